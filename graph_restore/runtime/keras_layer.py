"""as_keras_layer: an old model as a layer of Keras 3, on its TensorFlow backend."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graph_restore.api import load
from graph_restore.runtime.blueprint import draw_up
from graph_restore.runtime.session import with_values


def as_keras_layer(
    model: Any,
    fetches: str | Iterable[str] | None = None,
    feeds: str | Iterable[str] | None = None,
    *,
    name: str | None = None,
    checkpoint: Any = None,
    trainable: bool | str = True,
    asset_dir: str | None = None,
) -> Any:
    """A keras.layers.Layer that computes `fetches` from `feeds`; its weights are the model's variables, with values.

    Called with one tensor, a list in the order of `feeds`, or a dict by their names. Gives the one tensor fetched, or a
    dict by the names asked for. The other arguments are those of `as_module`.

    A model with the layer in it is saved to and loaded from `.keras` files: the graph is in the layer's configuration.
    Import `graph_restore.runtime.restored_layer` before loading. Keras keeps numbers only: a variable of strings is
    a TypeError. Raises what `as_module` raises.
    """
    from graph_restore.runtime.restored_layer import RestoredLayer

    source = with_values(load(model), checkpoint)
    feeds = feeds if feeds is None or isinstance(feeds, str) else list(feeds)
    fetches = fetches if fetches is None or isinstance(fetches, str) else list(fetches)
    blueprint, variables = draw_up(source, fetches, feeds, trainable, asset_dir)
    layer = RestoredLayer(blueprint.to_config(), name=name)
    layer.assign(variables)
    return layer
