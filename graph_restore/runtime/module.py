"""as_module: an old model as a tf.Module: called eagerly or in a tf.function, trained, saved and loaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graph_restore.api import load
from graph_restore.runtime.blueprint import draw_up
from graph_restore.runtime.function import constant, make_function
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.module_tables import make_table
from graph_restore.runtime.session import with_values


def as_module(
    model: Any,
    fetches: str | Iterable[str] | None = None,
    feeds: str | Iterable[str] | None = None,
    *,
    checkpoint: Any = None,
    trainable: bool | str = True,
    asset_dir: str | None = None,
) -> Any:
    """A tf.Module that computes `fetches` from tensors given in the order of `feeds`: a dict, by the names asked for.

        module = as_module(model, ["softmax:0"], ["images:0"])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(module(images)["softmax:0"])
        gradients = tape.gradient(loss, module.trainable_variables)

    `model`: a Model, or anything `load` takes. `fetches`, `feeds`: node or tensor names; by default the signature's,
    else the one sensible output and the placeholders it needs. A node without outputs (a train op) is run, and gives
    None. Values are the model's, those of `checkpoint`, or those that belong to the model's source; variables these
    do not hold get their first value where it is a constant. `trainable`: as for `restore_graph`. `asset_dir`: where
    vocabularies are that moved.

    The module's variables are resource variables of the old names, in `by_name` too; reference variables, loops and
    conds are brought to TensorFlow 2's form, so that gradients flow. `notes` lists what was chosen. It can be called
    eagerly and in a tf.function, and be saved by tf.saved_model.save and tf.train.Checkpoint.

    Raises RestoreError, naming the variables, when the fetches need one without a value; FreezeError, UpgradeError and
    NodeNotFoundError as `transforms.tensorflow2` does; UnsupportedFormatError for ops TensorFlow lacks.
    """
    tf = tensorflow()
    source = with_values(load(model), checkpoint)
    feeds = feeds if feeds is None or isinstance(feeds, str) else list(feeds)
    fetches = fetches if fetches is None or isinstance(fetches, str) else list(fetches)
    blueprint, sources = draw_up(source, fetches, feeds, trainable, asset_dir)
    variables = {}
    for slot in blueprint.slots:
        value = sources[slot.node].value
        assert value is not None
        variables[slot.node] = tf.Variable(constant(value), trainable=slot.trainable, name=slot.name, shape=slot.shape)
    tables = {table.node: make_table(table) for table in blueprint.tables}
    function = make_function(blueprint, variables, tables)

    class RestoredModule(tf.Module):  # type: ignore[misc, name-defined]
        """An old model as a module of TensorFlow 2."""

        def __init__(self) -> None:
            super().__init__()
            self.by_name = {slot.name: variables[slot.node] for slot in blueprint.slots}
            self.tables = tables
            self.notes = blueprint.notes
            self.feeds = tuple(feed.name for feed in blueprint.feeds)
            self.fetches = blueprint.keys

        @tf.function(input_signature=[feed.spec() for feed in blueprint.feeds], autograph=False)  # type: ignore[untyped-decorator]
        def __call__(self, *tensors: Any) -> dict[str, Any]:
            return function(*tensors)

    return RestoredModule()
