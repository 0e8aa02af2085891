"""RestoredLayer: the Keras layer of an old model. Importing this makes it known to Keras, which loading needs.

Keras tracks neither tf.Variable nor tf.Module, so the variables are made by `add_weight`; the graph is a part of the
layer's configuration, so that a `.keras` file holds all there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graph_restore.runtime.blueprint import Blueprint, Slot
from graph_restore.runtime.function import constant, make_function
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.module_tables import make_table
from graph_restore.variables import Variable

tf = tensorflow()
keras = tf.keras


@keras.utils.register_keras_serializable(package="graph_restore")
class RestoredLayer(keras.layers.Layer):  # type: ignore[misc, name-defined]
    """An old model as a layer; `blueprint`: the configuration of a Blueprint."""

    def __init__(self, blueprint: dict[str, Any], **arguments: Any) -> None:
        super().__init__(**{"autocast": False, **arguments})
        self._config = blueprint
        self._blueprint = Blueprint.from_config(blueprint)
        self._by_node = {slot.node: self._add(slot) for slot in self._blueprint.slots}
        self._tables = {table.node: make_table(table) for table in self._blueprint.tables}
        variables = {node: weight.value for node, weight in self._by_node.items()}
        self._function = make_function(self._blueprint, variables, self._tables)
        self._shapes: dict[str, Any] = {}  # of results of which the graph tells none
        self.built = True

    def assign(self, variables: Mapping[str, Variable]) -> None:
        """Give the weights the values of variables, by node name."""
        for node, weight in self._by_node.items():
            value = variables[node].value
            if value is not None:
                weight.assign(constant(value))

    def call(self, inputs: Any) -> Any:
        """The result of one fetch, or a dict of them."""
        found = self._results(inputs)
        for key, shape in self._shapes.items():
            found[key].set_shape(shape)
        return _only(found)

    def _results(self, inputs: Any) -> dict[str, Any]:
        feeds = self._blueprint.feeds
        given = zip(self._listed(inputs), feeds, strict=True)
        tensors = [tf.convert_to_tensor(value, feed.dtype) for value, feed in given]
        return self._function(*tensors)

    def _listed(self, inputs: Any) -> list[Any]:
        """Inputs in the order of the feeds."""
        if isinstance(inputs, Mapping):
            feeds = self._blueprint.feeds
            return [inputs[feed.name if feed.name in inputs else feed.name.removesuffix(":0")] for feed in feeds]
        return list(inputs) if isinstance(inputs, list | tuple) else [inputs]

    def _trial(self, inputs: Any, size: int) -> list[Any]:
        """Zeros for inputs: sizes that they leave open are those of the graph, where it has any, else `size`."""
        made = []
        for tensor, feed in zip(self._listed(inputs), self._blueprint.feeds, strict=True):
            stated = feed.shape if feed.shape is not None and len(feed.shape) == len(tensor.shape) else tensor.shape
            either = (known if known is not None else other for known, other in zip(tensor.shape, stated, strict=True))
            made.append(tf.zeros([size if known is None else known for known in either], tensor.dtype))
        return made

    def compute_output_spec(self, inputs: Any) -> Any:
        """Shapes and dtypes of the results, as the graph tells them, else as two trial calls show."""
        try:
            return super().compute_output_spec(inputs)
        except ValueError:
            trials = [self._results(self._trial(inputs, size)) for size in _TRIAL_SIZES]
            specs = keras.tree.map_structure(_spec, *trials)
            self._shapes = {key: spec.shape for key, spec in specs.items()}
            return _only(specs)

    def get_config(self) -> dict[str, Any]:
        """All that makes the layer anew, its weights aside."""
        return {**super().get_config(), "blueprint": self._config}

    def _add(self, slot: Slot) -> Any:
        dtype = tf.dtypes.as_dtype(slot.dtype)
        return self.add_weight(
            name=slot.name.replace("/", "."), shape=slot.shape, dtype=dtype.name, initializer="zeros",
            trainable=slot.trainable, autocast=False,
        )  # fmt: skip


def _only(found: dict[str, Any]) -> Any:
    return next(iter(found.values())) if len(found) == 1 else found


_TRIAL_SIZES = (2, 3)  # of unknown dimensions


def _spec(one: Any, other: Any) -> Any:
    """A symbolic tensor of the dimensions in which two agree."""
    shape = [first if first == second else None for first, second in zip(one.shape, other.shape)]
    return keras.KerasTensor(shape, one.dtype.name)
