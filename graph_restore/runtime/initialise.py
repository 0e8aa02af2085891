"""First values for what a checkpoint does not hold: variables by their own initializers, tables by theirs.

An initializer may need other variables; it runs after these have values. One that needs a feed or the next element
of an input pipeline cannot be run here and is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graph_restore.runtime.guard import tensorflow
from graph_restore.savers import ASSIGN_OPS
from graph_restore.variables import VARIABLE_OPS

_WAITING = ("Placeholder", "PlaceholderV2")
_INPUT_PIPELINES = ("Dequeue", "ReaderRead", "IteratorGetNext")


@dataclass
class Initialised:
    """What was run: the variables that got their first values; those that could not, with the reason; the restored
    ones whose own initializer ran as a part of another's, so that they must be restored once more."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    overwritten: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Needs:
    """What an operation runs first: names of live variable operations read and assigned, and what cannot be run."""

    read: frozenset[str]
    assigned: frozenset[str]
    obstacle: str


def initialise_variables(session: Any, missing: Mapping[str, Any], restored: Iterable[str]) -> Initialised:
    """Run the initializers of `missing`, (live variable operation's name to live variable), in order of need.

    `restored`: names of live variable operations that have values.
    """
    result, valued = Initialised(), set(restored)
    restored_names = frozenset(valued)
    needs = {name: _needs(variable.initializer, name) for name, variable in missing.items()}
    for name, need in needs.items():
        if need.obstacle:
            result.failed[name] = need.obstacle
    waiting = [name for name in missing if name not in result.failed]
    while waiting:
        ready = [name for name in waiting if needs[name].read <= valued | needs[name].assigned]
        if not ready:
            break
        done = _run_all(session, {name: missing[name].initializer for name in ready}, result.failed)
        result.done += done
        valued.update(done)
        waiting = [name for name in waiting if name not in ready]
    for name in waiting:
        lacking = ", ".join(sorted(needs[name].read - valued - needs[name].assigned))
        result.failed[name] = f"its initializer reads {lacking}, which has no value"
    for name in result.done:
        result.overwritten |= needs[name].assigned & restored_names
    return result


def run_initializers(session: Any, operations: Mapping[str, Any]) -> dict[str, str]:
    """Run operations that fill tables; name to reason for those that could not be run."""
    failed: dict[str, str] = {}
    for name, operation in operations.items():
        obstacle = _needs(operation, "").obstacle
        if obstacle:
            failed[name] = obstacle
    _run_all(session, {name: op for name, op in operations.items() if name not in failed}, failed)
    return failed


def _needs(operation: Any, variable: str) -> _Needs:
    read: set[str] = set()
    assigned: set[str] = set()
    obstacle = ""
    waiting, seen = [operation], {operation}
    while waiting:
        current = waiting.pop()
        if current.type in _WAITING:
            obstacle = f"its initializer needs a value fed for {current.name}"
        elif any(word in current.type for word in _INPUT_PIPELINES):
            obstacle = f"its initializer takes an element of an input pipeline ({current.name})"
        elif current.type in VARIABLE_OPS:
            read.add(current.name)
        elif current.type in ASSIGN_OPS:
            assigned.add(_root(current.inputs[0].op).name)
        for other in (*(tensor.op for tensor in current.inputs), *current.control_inputs):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return _Needs(frozenset(read - {variable}), frozenset(assigned - {variable}), obstacle)


def _root(operation: Any) -> Any:
    while operation.type in ("Identity", "RefIdentity", "Enter", "RefEnter", "Switch", "RefSwitch"):
        operation = operation.inputs[0].op
    return operation


def _run_all(session: Any, operations: Mapping[str, Any], failed: dict[str, str]) -> list[str]:
    """Run all at once; if that fails, one by one. The names of those that ran."""
    errors = tensorflow().errors.OpError
    if not operations:
        return []
    try:
        session.run(list(operations.values()))
    except errors:
        done = []
        for name, operation in operations.items():
            try:
                session.run(operation)
                done.append(name)
            except errors as error:
                failed[name] = _reason(error)
        return done
    return list(operations)


def _reason(error: Any) -> str:
    """The sentence of a TensorFlow error, without the stack around it."""
    lines = [line.strip() for line in str(error.message).splitlines() if line.strip()]
    after_node = [index for index, line in enumerate(lines) if line.startswith("Node: ")]
    return lines[after_node[0] + 1] if after_node and after_node[0] + 1 < len(lines) else lines[0] if lines else ""
