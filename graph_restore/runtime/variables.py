"""Live variables for a graph that was imported: what `tf.Variable` gave when the graph was built.

Every variable op gets a real `tf.compat.v1.Variable` in the collections TensorFlow looks in, so that optimizers,
gradients and savers find it. What a graph that was cut down lacks (an initializer, a read) is added.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from graph_restore.discovery import TRAINABLE_COLLECTION
from graph_restore.dtypes import REF_OFFSET
from graph_restore.graph import Graph
from graph_restore.names import is_control, parse_tensor_name
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.importing import Imported
from graph_restore.savers import ASSIGN_OPS, variable_of
from graph_restore.transforms.definitions import set_slice_info
from graph_restore.variables import SaverMap, Variable

GLOBAL_COLLECTION, LOCAL_COLLECTION = "variables", "local_variables"
_VARIABLE_COLLECTIONS = (
    GLOBAL_COLLECTION, LOCAL_COLLECTION, "model_variables", "moving_average_variables", "metric_variables",
    "global_step",
)  # fmt: skip

_PART = re.compile(r"/part_\d+(?=/|$)")


class RestoredVariable:
    """Mark of the variables that `restore_graph` makes; each is a `tf.compat.v1.Variable` too.

    `description`: what is known of the variable (graph_restore.Variable), its names being those of the model's graph.
    """

    description: Variable


@dataclass(frozen=True)
class Setter:
    """How a variable is given a value: run `operation`, feeding `tensor`."""

    tensor: Any
    operation: Any

    def feed(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The array as TensorFlow wants it: quantised numbers are plain integers elsewhere."""
        wanted = self.tensor.dtype.as_numpy_dtype
        return array.view(wanted) if self.tensor.dtype.is_quantized else array


def make_setters(
    savers: Sequence[SaverMap], graph: Graph, variables: Iterable[Variable], imported: Imported
) -> dict[str, Setter]:
    """A setter for each variable, by name: the Assign of a saver that the graph has, else new nodes."""
    setters: dict[str, Setter] = {}
    assigns = {entry.variable: entry.restored_by for saver in reversed(savers) for entry in saver.entries}
    taken: set[str] = set()
    for variable in variables:
        name = assigns.get(variable.name, "")
        known = name in graph.nodes and _assigns(graph.nodes[name], variable)
        operation = imported.operation(name) if known else None
        if operation is None or operation.inputs[1].name in taken:  # one restored value may be assigned to several
            setters[variable.name] = _new_setter(variable, imported)
        else:
            taken.add(operation.inputs[1].name)
            setters[variable.name] = Setter(operation.inputs[1], operation)
    return setters


def _assigns(node: Any, variable: Variable) -> bool:
    """Whether a node of a saver assigns to the variable itself, and waits for nothing."""
    plain = node.op in ASSIGN_OPS and len(node.input) == 2 and parse_tensor_name(node.input[0]) == (variable.name, 0)
    return plain and (variable.kind == "resource" or node.attr["T"].type % REF_OFFSET == variable.data_type)


def _new_setter(variable: Variable, imported: Imported) -> Setter:
    """Nodes that assign a fed value, of whatever shape: what the shape must be is known before."""
    tf = tensorflow()
    target = imported.tensor(variable.name)
    dtype = tf.dtypes.as_dtype(int(variable.data_type))
    with tf.compat.v1.name_scope(f"{target.op.name}/restore/"):
        placeholder = tf.compat.v1.placeholder(dtype, name="value")
        if variable.kind == "resource":
            operation = tf.raw_ops.AssignVariableOp(resource=target, value=placeholder, name="Assign")
        else:
            operation = tf.raw_ops.Assign(ref=target, value=placeholder, validate_shape=False, name="Assign").op
    return Setter(placeholder, operation)


def make_variable(
    variable: Variable, graph: Graph, imported: Imported, setter: Setter, trainable: bool
) -> RestoredVariable:
    """The live variable. Without an initializer in the graph its own is `setter`, which must be fed."""
    definition = _classes()["VariableDef"](
        variable_name=imported.tensor(variable.name).name,
        is_resource=variable.kind == "resource",
        trainable=trainable,
        snapshot_name=_snapshot(variable, graph, imported).name,
    )
    if variable.initializer is not None and variable.initializer in graph.nodes:
        initializer = imported.operation(variable.initializer)
        definition.initializer_name = initializer.name
        if len(initializer.inputs) > 1:
            definition.initial_value_name = initializer.inputs[1].name
    else:
        definition.initializer_name = setter.operation.name
        definition.initial_value_name = setter.tensor.name
    set_slice_info(definition, variable)
    made: RestoredVariable = _classes()[variable.kind](variable_def=definition)
    made.description = variable
    return made


def by_full_name(made: Iterable[Any]) -> dict[str, Any]:
    """Live variables by name; the parts of a partitioned one as one PartitionedVariable, by the name of the whole."""
    found: dict[str, Any] = {}
    groups: dict[str, list[Any]] = {}
    for one in made:
        if one.description.slice is None:
            found[one.op.name] = one
        else:
            groups.setdefault(_whole_name(one), []).append(one)
    for name, parts in groups.items():
        starts = [part.description.slice.starts for part in parts]
        partitions = [len(set(along)) for along in zip(*starts)]
        if len(set(starts)) == len(starts) == math.prod(partitions):
            first = parts[0]
            shape, dtype = list(first.description.slice.full_shape), first.dtype.base_dtype
            found[name] = _partitioned_class()(name, shape, dtype, parts, partitions)
        else:  # some parts are not in the graph
            found.update((part.op.name, part) for part in parts)
    return found


def _whole_name(part: Any) -> str:
    """The name of the variable that a part belongs to: `emb/Adam` of `emb/part_3/Adam`, else what it is saved as."""
    whole = _PART.sub("", part.op.name)
    return str(whole if whole != part.op.name else part.description.checkpoint_key or whole)


@cache
def _classes() -> dict[str, Any]:
    """The classes of live variables by kind, and VariableDef; learnt from throw-away variables.

    `tf.compat.v1.Variable` makes resource variables of a class that is not derived from it; ours is, so that whoever
    asks finds a variable.
    """
    tf = tensorflow()
    with tf.Graph().as_default():
        ref = tf.compat.v1.Variable(0.0, use_resource=False)
        resource = tf.compat.v1.Variable(0.0, use_resource=True)
        variable_def = type(ref.to_proto())
    resource_bases = (RestoredVariable, type(resource), tf.compat.v1.Variable)
    return {
        "ref": type("RestoredRefVariable", (RestoredVariable, type(ref)), {}),
        "resource": type("RestoredResourceVariable", resource_bases, {}),
        "VariableDef": variable_def,
    }


@cache
def _partitioned_class() -> Any:
    """PartitionedVariable, which has no public name, learnt in the same way."""
    tf = tensorflow()
    with tf.Graph().as_default():
        partitioner = tf.compat.v1.fixed_size_partitioner(1)
        return type(tf.compat.v1.get_variable("partitioned", [1], partitioner=partitioner))


def _snapshot(variable: Variable, graph: Graph, imported: Imported) -> Any:
    """The tensor that reads the variable whenever it is run: the graph's, unless that one waits for updates."""
    tf = tensorflow()
    target = imported.tensor(variable.name)
    reading = "ReadVariableOp" if variable.kind == "resource" else "Identity"
    node = graph.nodes.get(parse_tensor_name(variable.snapshot or "")[0])
    if node is not None:
        from_collection = variable.authority.get("snapshot") == "collection"
        plain = node.op == reading and len(node.input) == 1 and parse_tensor_name(node.input[0]) == (variable.name, 0)
        if plain or (from_collection and variable_of(graph, node.name) == variable.name and not _waits(node)):
            return imported.tensor(variable.snapshot or "")
    with tf.compat.v1.name_scope(f"{target.op.name}/Read/"):
        if variable.kind == "resource":
            return tf.raw_ops.ReadVariableOp(resource=target, dtype=tf.dtypes.as_dtype(int(variable.data_type)))
        return tf.identity(target, name="Identity")


def _waits(node: Any) -> bool:
    return any(is_control(name) for name in node.input)


def add_to_collections(made: Any, live_graph: Any, collections: Sequence[str] | None, trainable: bool) -> None:
    """Put a live variable into the collections it belongs to; into `collections` instead of these if given."""
    described = made.description.collections
    if collections is not None:
        names = list(collections)
    else:
        names = [name for name in _VARIABLE_COLLECTIONS if name in described]
        if GLOBAL_COLLECTION not in names and LOCAL_COLLECTION not in names:
            names.insert(0, GLOBAL_COLLECTION)
    if trainable:
        names.append(TRAINABLE_COLLECTION)
    for name in dict.fromkeys(names):
        if name != "global_step" or not live_graph.get_collection(name):  # TensorFlow refuses to choose between two
            live_graph.add_to_collection(name, made)
