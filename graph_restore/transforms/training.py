"""Which variables are trained, where the graph does not say."""

from __future__ import annotations

from collections.abc import Collection

from graph_restore.graph import Graph
from graph_restore.savers import variable_of
from graph_restore.variables import Variable

_NEVER_TRAINED = ("global_step", "beta1_power", "beta2_power", "moving_mean", "moving_variance")
_UPDATES = ("AssignAdd", "AssignSub", "AssignAddVariableOp", "AssignSubVariableOp")
_LOCAL_COLLECTION = "local_variables"


def is_trainable(variable: Variable, trainable: bool | str, updated: Collection[str]) -> bool:
    """Whether a variable counts as trainable: False none, "infer" those the graph says, True the likely ones too.

    A likely one is a float variable that is no slot, moving average or counter; asked only where the graph is silent.
    `updated`: the variables that `updated_variables` gives.
    """
    if trainable is False:
        return False
    if variable.trainable is not None:
        return variable.trainable
    if trainable == "infer":
        return False
    return (
        variable.data_type.name in ("DT_FLOAT", "DT_DOUBLE", "DT_HALF", "DT_BFLOAT16")
        and not variable.is_slot
        and variable.moving_average_of is None
        and _LOCAL_COLLECTION not in variable.collections
        and variable.name.rpartition("/")[2] not in _NEVER_TRAINED
        and variable.name not in updated
    )


def updated_variables(graph: Graph) -> set[str]:
    """The variables to which the graph itself adds, as to a counter or an average."""
    updates = [node for node in graph.of_ops(_UPDATES) if node.input]
    return {name for node in updates if (name := variable_of(graph, node.input[0])) is not None}
