"""Variables that nothing uses: handles left in TensorFlow 2's SavedModels beside those that the functions take.

Keras exports a layer's `dense/kernel` as `dense/kernel_1`, with the key of its object, and leaves a handle of the old
name behind, which is read by an op of its own and by nothing else. Users know the old name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from graph_restore.model import Model
from graph_restore.variables import Variable

_NUMBERED = re.compile(r"(.+)_\d+")


def leftovers(model: Model, variables: Iterable[Variable]) -> set[str]:
    """The names of the resource variables that no saver knows, nothing initialises, and nothing reads to any end."""
    if not any(saver.entries for saver in model.savers):
        return set()
    return {variable.name for variable in variables if _is_unknown(variable) and not _is_used(model, variable.name)}


def stand_ins(variables: Iterable[Variable], left: set[str]) -> dict[str, str]:
    """Variable name to the name of the leftover it is used in place of, where that is one variable's only."""
    if not left:
        return {}
    named = ((variable.name, _NUMBERED.fullmatch(variable.name)) for variable in variables)
    found = {name: match[1] for name, match in named if match is not None and match[1] in left and name not in left}
    counts = Counter(found.values())
    return {name: old for name, old in found.items() if counts[old] == 1}


def _is_unknown(variable: Variable) -> bool:
    known = (variable.checkpoint_key, variable.initializer, variable.initial_value)
    return variable.kind == "resource" and all(one is None for one in known)


def _is_used(model: Model, name: str) -> bool:
    readers = [node for node, _ in model.graph.consumers.get(name, ())]
    return any(node.op != "ReadVariableOp" or model.graph.consumers.get(node.name) for node in readers)
