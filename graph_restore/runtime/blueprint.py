"""Blueprint: all that a function of TensorFlow 2 is made of, as plain data: a graph in modern form, and what its feeds,
fetches, variables and tables are. It goes into the configuration of a Keras layer, and comes out of it.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graph_restore.dtypes import REF_OFFSET
from graph_restore.errors import RestoreError, counted
from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import parse_tensor_name
from graph_restore.protos import GraphDef, NodeDef
from graph_restore.runtime.gradients import forget_numbered_gradients
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.importing import import_graph, refuse_unknown_ops
from graph_restore.runtime.module_tables import TableContent, table_contents
from graph_restore.transforms.feeds import output_shape
from graph_restore.transforms.initialize import initialize
from graph_restore.transforms.modernize import modernize
from graph_restore.transforms.prepare import prepare
from graph_restore.transforms.rerun import after_init_op
from graph_restore.transforms.tensorflow2 import cut, for_tensorflow2
from graph_restore.transforms.training import is_trainable, updated_variables
from graph_restore.variables import Variable, Variables

Sizes = Sequence[int | None] | None  # of a tensor; None for unknown rank


@dataclass(frozen=True)
class Feed:
    """An argument: the tensor it is fed to, dtype (a DataType number) and shape."""

    name: str
    dtype: int
    shape: Sizes

    def spec(self) -> Any:
        """As a tf.TensorSpec, whose name can be that of an argument."""
        tf = tensorflow()
        letters = (letter if letter.isascii() and letter.isalnum() else "_" for letter in self.name.removesuffix(":0"))
        return tf.TensorSpec(self.shape, tf.dtypes.as_dtype(self.dtype), name="".join(letters))


@dataclass(frozen=True)
class Slot:
    """A variable: node name of its handle, its own name, dtype, shape and whether it is trained."""

    node: str
    name: str
    dtype: int
    shape: Sizes
    trainable: bool


@dataclass(frozen=True)
class Blueprint:
    """`keys`: the names results are given under, `shapes` what is known of their shapes; `notes`: what was chosen."""

    graph: Graph
    keys: tuple[str, ...]
    shapes: tuple[Sizes, ...]
    feeds: tuple[Feed, ...]
    slots: tuple[Slot, ...]
    tables: tuple[TableContent, ...]
    notes: tuple[str, ...] = ()

    def to_config(self) -> dict[str, Any]:
        """As values that json takes."""
        data = zlib.compress(self.graph.materialize().SerializeToString(), 9)
        return {
            "graph": base64.b64encode(data).decode(),
            "keys": list(self.keys),
            "shapes": [None if shape is None else list(shape) for shape in self.shapes],
            "feeds": [_plain(feed) for feed in self.feeds],
            "slots": [_plain(slot) for slot in self.slots],
            "tables": [table.to_config() for table in self.tables],
            "notes": list(self.notes),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Blueprint:
        """What `to_config` gave."""
        return cls(
            Graph(GraphDef.FromString(zlib.decompress(base64.b64decode(config["graph"])))),
            tuple(config["keys"]),
            tuple(config["shapes"]),
            tuple(Feed(**feed) for feed in config["feeds"]),
            tuple(Slot(**slot) for slot in config["slots"]),
            tuple(TableContent.from_config(table) for table in config["tables"]),
            tuple(config["notes"]),
        )


def _plain(item: Feed | Slot) -> dict[str, Any]:
    return {**item.__dict__, "shape": None if item.shape is None else list(item.shape)}


def draw_up(
    source: Model,
    fetches: str | Iterable[str] | None,
    feeds: str | Iterable[str] | None,
    trainable: bool | str = True,
    asset_dir: str | None = None,
) -> tuple[Blueprint, dict[str, Variable]]:
    """The blueprint of a model with values, and its variables, with their values, by node name.

    Raises RestoreError, naming the variables, when the fetches need one without a value, and what `for_tensorflow2`
    raises.
    """
    source = after_init_op(source)
    modern = for_tensorflow2(source, fetches, feeds)
    refuse_unknown_ops(modern.graph)
    modern = with_first_values(source, modern)
    needed = {variable.name: variable for variable in modern.variables if variable.name in modern.graph.nodes}
    updated = updated_variables(source.graph)
    slots = [_slot(variable, is_trainable(variable, trainable, updated)) for variable in needed.values()]
    keys = [fetches] if isinstance(fetches, str) else list(fetches) if fetches is not None else list(modern.fetches)
    keys = list(dict.fromkeys(keys))
    graph = prepare(modern, asset_folders=[asset_dir] if asset_dir is not None else [])
    forget_numbered_gradients(graph)
    blueprint = Blueprint(
        graph,
        tuple(keys),
        tuple(_static_shapes(source, keys, modern.feeds)),
        tuple(_feed(modern.graph, source.graph, name) for name in modern.feeds),
        tuple(slots),
        tuple(table_contents(source, modern.graph, asset_dir)),
        modern.notes,
    )
    return blueprint, needed


def _slot(variable: Variable, trainable: bool) -> Slot:
    assert variable.value is not None
    declared = variable.shape
    shape = variable.value.shape if declared is None or None not in declared else declared
    return Slot(variable.name, variable.name.removesuffix("/handle"), int(variable.data_type), tuple(shape), trainable)


def with_first_values(source: Model, modern: Model) -> Model:
    """The modern model with values for all variables that its graph needs; RestoreError that names those without."""
    lacking = [v.name for v in modern.variables if v.value is None and v.name in modern.graph.nodes]
    if not lacking:
        return modern
    initial = initialize(source)
    values = {variable.name: variable.value for variable in initial.variables}
    values |= {f"{name}/handle": value for name, value in values.items()}
    variables = [replace(v, value=v.value if v.value is not None else values.get(v.name)) for v in modern.variables]
    without = [v.name for v in variables if v.value is None and v.name in modern.graph.nodes]
    if without:
        have = "has" if len(without) == 1 else "have"
        raise RestoreError(
            f"{counted(len(without), 'variable')} that the fetches need {have} no value: {', '.join(without)}; "
            "restore the model first, with a checkpoint that holds them",
            missing=without,
        )
    note = f"variables without a value have their first one: {', '.join(lacking)}"
    return replace(modern, variables=Variables(variables), notes=(*modern.notes, note))


def _feed(modern: Graph, source: Graph, name: str) -> Feed:
    """A feed with dtype and shape as the graph states them."""
    node, index = parse_tensor_name(name)
    fed = modern.nodes.get(f"{node}/{index}") or modern.nodes.get(node)
    if fed is not None and fed.op == "Placeholder":
        shape, number = output_shape(fed, 0, modern.versions.producer), fed.attr["dtype"].type
    else:  # nothing needs it
        fed = source.node(node)
        shape = output_shape(fed, index, source.versions.producer)
        number = source.ops.output_types(fed)[index] % REF_OFFSET
    return Feed(name, int(number), _sizes(shape))


def _sizes(shape: Any) -> Sizes:
    return None if shape.unknown_rank else [None if dim.size < 0 else int(dim.size) for dim in shape.dim]


def _static_shapes(source: Model, keys: Sequence[str], feeds: Sequence[str]) -> list[Sizes]:
    """What is known of the results' shapes: as the graph states them, else as TensorFlow infers them, which knows more
    of the old loops than of functional ones."""
    stated = {}
    for key in keys:
        node: NodeDef = source.graph.node(key)
        if "_output_shapes" in node.attr:
            stated[key] = _sizes(output_shape(node, parse_tensor_name(key)[1]))
    if len(stated) == len(keys):
        return [stated[key] for key in keys]
    tf = tensorflow()
    graph = prepare(modernize(cut(source, list(keys), list(feeds))))
    try:
        _, imported = import_graph(graph, tf.Graph(), "", None, [])
    except ValueError:  # TensorFlow says so again, and better, when the function is built
        return [None] * len(keys)
    return [stated[key] if key in stated else _inferred(imported, key) for key in keys]


def _inferred(imported: Any, key: str) -> Sizes:
    index = parse_tensor_name(key)[1]
    outputs = imported.operation(key).outputs
    return outputs[index].shape.as_list() if index < len(outputs) and outputs[index].shape.rank is not None else None
