"""What `graph-restore inspect --ops` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graph_restore.cli.tables import rows


def op_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The report of `report_ops` as lines."""
    ops: Sequence[Mapping[str, Any]] = found["ops"]
    gone = [op for op in ops if op["gone"]]
    refused = [op for op in ops if op["deprecated_in"] is not None]
    yield found["path"]
    nodes = sum(op["nodes"] for op in ops)
    yield f"  {len(ops)} ops in {nodes:,} nodes; {len(gone) or 'none'} that TensorFlow {found['tensorflow']} lacks"
    yield from _section("gone", [(op["name"], _nodes(op), _history(op), op["replacement"]) for op in gone])
    yield from _section("refused in new graphs", [(op["name"], _nodes(op), _version(op, found)) for op in refused])
    yield from _section("outputs", [(output["name"], _needs(output)) for output in found["outputs"]])
    kept = [(op["name"], _nodes(op), _history(op), op["unsafe"]) for op in ops if not op["gone"]]
    yield from _section("ops", kept)


def _section(title: str, table: Sequence[Sequence[str]]) -> Iterator[str]:
    if table:
        yield f"  {title}"
        yield from rows(table, indent="    ")


def _nodes(op: Mapping[str, Any]) -> str:
    return f"{op['nodes']:,} node{'' if op['nodes'] == 1 else 's'}"


def _history(op: Mapping[str, Any]) -> str:
    if op["custom"]:
        return "in no TensorFlow known here: a custom op"
    module = f", {op['contrib_module']} until {op['contrib_until']}" if op["contrib_module"] else ""
    return f"{op['since']} to {op['until']}{module}" if op["until"] else f"since {op['since']}{module}"


def _version(op: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return f"from GraphDef version {op['deprecated_in']} on; this graph's is {found['producer']}"


def _needs(output: Mapping[str, Any]) -> str:
    return f"needs {', '.join(output['needs'])}" if output["needs"] else "needs nothing that is gone"
