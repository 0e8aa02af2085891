"""`graph-restore inspect`: what a model or checkpoint holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from graph_restore.cli import options
from graph_restore.cli.notes import notes
from graph_restore.cli.op_report import op_lines
from graph_restore.cli.tables import rows, shape

_OPS_A_LINE = 6


@click.command("inspect")
@click.argument("path")
@options.as_json
@options.tags
@click.option("--ops", is_flag=True, help="Each op: since when, until when, what replaces it.")
@options.names("--fetches", help="With --ops: outputs to look at.")
def command(path: str, as_json: bool, tags: list[str] | None, ops: bool, fetches: list[str] | None) -> None:
    """Show what a model or checkpoint holds.

    Of a model: format, version, inputs, outputs, signatures, variables, ops. Of a checkpoint (a prefix or any
    of its files): version, shards, tensors.

    \b
    Example: graph-restore inspect run/model.ckpt-1000.meta
             graph-restore inspect run/model.ckpt-1000 --json
             graph-restore inspect frozen.pb --ops
    """
    with notes():
        found = _found(path, tags, ops, fetches)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif ops:
        click.echo("\n".join(op_lines(found)))
    else:
        lines = _model(found) if found["kind"] == "model" else _checkpoint(found)
        click.echo("\n".join(lines))


def _found(path: str, tags: list[str] | None, ops: bool, fetches: list[str] | None) -> dict[str, Any]:
    if ops:
        from graph_restore.api import load
        from graph_restore.op_report import report_ops

        return report_ops(load(path, tags=tags), fetches)
    if fetches:
        raise click.UsageError("--fetches goes with --ops")
    from graph_restore.summary import summarise

    return summarise(path, tags=tags)


def _checkpoint(found: Mapping[str, Any]) -> Iterator[str]:
    yield found["prefix"]
    yield f"  {_checkpoint_facts(found, len(found['tensors']))}"
    yield from _section("tensors", (_tensor(tensor) for tensor in found["tensors"]))


def _checkpoint_facts(found: Mapping[str, Any], tensors: int) -> str:
    counts = f"{_counted(found['shards'], 'shard')}, {_counted(tensors, 'tensor')}, {_counted(found['bytes'], 'byte')}"
    return f"checkpoint V{found['version']}, {counts}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _model(found: Mapping[str, Any]) -> Iterator[str]:
    yield found["path"]
    version = f", TensorFlow {found['tensorflow_version']}" if found["tensorflow_version"] else ""
    tags = f", tags {','.join(found['tags'])}" if found["tags"] else ""
    yield f"  {found['format']}{version}, producer {found['producer']}{tags}, {_counted(found['nodes'], 'node')}"
    if found["checkpoint"] is not None:
        yield from _own_checkpoint(found["checkpoint"])
    yield from _section("inputs", (_tensor(tensor) for tensor in found["inputs"]))
    guessed = " (candidates: no signature names them)" if found["outputs_from"] == "candidates" else ""
    yield from _section(f"outputs{guessed}", (_tensor(tensor) for tensor in found["outputs"]))
    for name, signature in found["signatures"].items():
        yield from _section(f"signature {name} {signature['method']}".rstrip(), _bindings(signature))
    yield from _section("variables", (_variable(variable) for variable in found["variables"]))
    yield from _section("ops", _packed(found["ops"]))
    yield from _section("ops that today's TensorFlow lacks", _gone(found))
    yield from _section("functions", ((name,) for name in found["functions"]))
    yield from _section("assets", found["assets"].items())
    yield from _section("graphs in the file", _graphs(found["graphs"]))
    if found["init_op"]:
        yield from _section("init_op", [(found["init_op"],)])


def _own_checkpoint(found: Mapping[str, Any]) -> Iterator[str]:
    facts = found["error"] if "error" in found else _checkpoint_facts(found, found["tensors"])
    yield f"  {found['prefix']}: {facts}" if "error" not in found else f"  {facts}"


def _section(title: str, table: Iterable[Any]) -> Iterator[str]:
    lines = rows(table, indent="    ")
    if lines:
        yield f"  {title}"
        yield from lines


def _tensor(tensor: Mapping[str, Any]) -> tuple[str, ...]:
    slices = tensor.get("slices", 1)
    return (
        tensor["name"],
        tensor["dtype"],
        shape(tensor["shape"]),
        _counted(tensor["bytes"], "byte") if "bytes" in tensor else "",
        f"in {slices} slices" if slices != 1 else "",
    )


def _variable(variable: Mapping[str, Any]) -> tuple[str, ...]:
    key = variable["checkpoint_key"]
    part = f" slice {variable['slice']}" if variable["slice"] else ""
    trainable = {True: "trainable", False: "not trainable", None: ""}[variable["trainable"]]
    role = f"slot {variable['slot']} of {variable['slot_of']}" if variable["slot_of"] else trainable
    if variable["moving_average_of"]:
        role = f"moving average of {variable['moving_average_of']}"
    return (
        variable["name"],
        variable["kind"],
        variable["dtype"],
        shape(variable["shape"]),
        f"key {key}{part}" if key and (key != variable["name"] or part) else "",
        role,
    )


def _bindings(signature: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for side in ("inputs", "outputs"):
        for key, tensor in signature[side].items():
            yield side[:-1], key, tensor["name"], tensor["dtype"], shape(tensor["shape"])


def _packed(ops: Mapping[str, int]) -> Iterator[tuple[str]]:
    words = [f"{name} {count}" for name, count in ops.items()]
    for start in range(0, len(words), _OPS_A_LINE):
        yield (", ".join(words[start : start + _OPS_A_LINE]),)


def _gone(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, facts in found["gone_ops"].items():
        last = f"last in {facts['until']}" if facts["until"] else "in no TensorFlow known here: a custom op"
        yield name, _counted(found["ops"][name], "node"), last, facts["contrib_module"]


def _graphs(graphs: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for number, stored in enumerate(graphs, 1):
        yield str(number), stored["kind"], _counted(stored["nodes"], "node"), _counted(stored["bytes"], "byte")
