"""The collections of a model put into a live graph, under the names that its nodes have there.

What import_meta_graph makes of a MetaGraph without nodes: that is how conds and loops become known to TensorFlow's
gradients, and queue runners to `start_queue_runners`, by public means. Variables are made elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from graph_restore.errors import GraphRestoreWarning
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import node_of, parse_tensor_name
from graph_restore.protos import CollectionDef, MetaGraphDef, QueueRunnerDef, SaverDef
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.importing import Imported
from graph_restore.transforms.collections import VARIABLE_COLLECTIONS
from graph_restore.transforms.flow_contexts import COND, WHILE, flow_contexts

_RUNNERS = "queue_runners"
_NOT_TAKEN = {*VARIABLE_COLLECTIONS, COND, WHILE, "savers", "saveable_objects"}  # nodes in place of Python's objects

# Nodes that nothing looks for: without a SaverDef, TensorFlow adds those of a saver for all that is in the graph.
_NO_SAVER = SaverDef(filename_tensor_name="none", save_tensor_name="none", restore_op_name="none", version=SaverDef.V2)


def restore_collections(model: Model, graph: Graph, imported: Imported) -> None:
    """Add to the collections of the live graph what the model's hold, and the contexts of conds and loops.

    `graph`: what was imported. A GraphRestoreWarning says when TensorFlow does not take the contexts: the graph runs,
    but has no gradients through them.
    """
    taken = {name: given for name, given in model.collections.items() if name not in _NOT_TAKEN}
    listed = {name: _live(name, given, graph, imported) for name, given in taken.items()}
    _add({name: collection for name, collection in listed.items() if collection.WhichOneof("kind")})
    contexts = flow_contexts(graph, model.collections)
    for context in [one for several in contexts.values() for one in several]:
        _rename_context(context, imported)
    try:
        _add({name: _bytes(one.SerializeToString() for one in several) for name, several in contexts.items()})
    except (ValueError, KeyError, AssertionError, AttributeError) as error:
        warnings.warn(f"gradients through conds and loops will fail: {error}", GraphRestoreWarning, stacklevel=2)


def _add(collections: dict[str, Any]) -> None:
    if collections:
        tf = tensorflow()
        own = MetaGraphDef(saver_def=_NO_SAVER)
        for name, collection in collections.items():
            own.collection_def[name].CopyFrom(collection)
        tf.compat.v1.train.import_meta_graph(tf.compat.v1.MetaGraphDef.FromString(own.SerializeToString()))


def _live(name: str, given: Any, graph: Graph, imported: Imported) -> Any:
    """A collection under live names; without what is not in the graph, and of kinds that are not known."""
    kind = given.WhichOneof("kind")
    if kind == "node_list":
        names = [_live_name(item, imported) for item in given.node_list.value if node_of(item) in graph.nodes]
        return CollectionDef(node_list=CollectionDef.NodeList(value=names)) if names else CollectionDef()
    if kind == "bytes_list" and name == _RUNNERS:
        return _bytes(_runner(data, imported) for data in given.bytes_list.value)
    return CollectionDef() if kind == "any_list" else given


def _bytes(items: Iterable[bytes]) -> Any:
    return CollectionDef(bytes_list=CollectionDef.BytesList(value=items))


def _live_name(name: str, imported: Imported) -> str:
    """The live name of a node or tensor; of the node, where that gives fewer tensors than it did: an update of a
    reference gives the variable, one of a resource nothing."""
    operation, index = imported.operation(name), parse_tensor_name(name)[1]
    return str(operation.outputs[index].name if ":" in name and index < len(operation.outputs) else operation.name)


def _runner(data: bytes, imported: Imported) -> bytes:
    runner = QueueRunnerDef.FromString(data)
    for field in ("queue_name", "close_op_name", "cancel_op_name"):
        if getattr(runner, field):
            setattr(runner, field, _live_name(getattr(runner, field), imported))
    runner.enqueue_op_name[:] = [_live_name(name, imported) for name in runner.enqueue_op_name]
    return bytes(runner.SerializeToString())


def _rename_context(context: Any, imported: Imported) -> None:
    """Give a context the live names; a loop the name that its frame has: TensorFlow adds to the frame by that."""
    for descriptor, value in context.ListFields():
        if descriptor.name.endswith("_names"):
            value[:] = [_live_name(name, imported) for name in value]
        elif descriptor.name.endswith("_name") and descriptor.name != "context_name":
            setattr(context, descriptor.name, _live_name(value, imported))
    context.values_def.values[:] = [_live_name(name, imported) for name in context.values_def.values]
    if context.DESCRIPTOR.name == "WhileContextDef":
        enter = tensorflow().compat.v1.get_default_graph().get_operation_by_name(node_of(context.loop_enter_names[0]))
        context.context_name = enter.get_attr("frame_name").decode("utf-8", "replace")
    for nested in context.nested_contexts:
        _rename_context(nested.while_ctxt if nested.HasField("while_ctxt") else nested.cond_ctxt, imported)
