"""Brings a model of TensorFlow 0.12 back, and compares what it computes with what it computed then.

    python examples/revive.py [DIRECTORY]

DIRECTORY is a model of legacy_models/: a MetaGraph, a checkpoint, and the inputs and outputs that the TensorFlow of
its time wrote down. Only the comparison needs TensorFlow. Exit status 1 when the outputs differ.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import graph_restore as gr

MODEL = Path(__file__).resolve().parent.parent / "legacy_models" / "convnet" / "tf0.12.1-v1"

Arrays = dict[str, "np.ndarray[Any, Any]"]


def main(folder: Path) -> int:
    """Revive the model in `folder`; 0 when today's outputs are those of its time."""
    feeds, expected = recorded_run(folder)
    model = gr.load(next(folder.glob("*.meta")))
    restored = gr.restore(model)
    frozen = gr.freeze(restored, fetches=list(expected), feeds=list(feeds))
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "frozen.pb")
        gr.export(frozen, path)
        size = os.path.getsize(path)
        found = run_in_tensorflow(path, list(expected), feeds)
    print(f"{folder.parent.name}, written by TensorFlow {model.source.tensorflow_version}")
    print(f"restored  {len(restored.restoration.restored)} of {len(restored.variables)} variables")
    print(f"frozen    {len(model.graph.nodes)} nodes to {len(frozen.graph.nodes)}, {size:,} bytes")
    return 0 if all([agree(name, found[name], expected[name]) for name in expected]) else 1


def recorded_run(folder: Path) -> tuple[Arrays, Arrays]:
    """Feeds and outputs of the first run that the oracle recorded; legacy_models/README.md tells the format."""
    facts = json.loads((folder / "oracle.json").read_text(encoding="utf-8"))
    with np.load(folder / "oracle.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays.update({name: arrays[source] for name, source in facts["same"].items()})
    run = facts["runs"][0]
    feeds = {name: arrays[f"feed|0|{name}"] for name in run["feeds"]}
    return feeds, {name: arrays[f"out|0|{name}"] for name in run["fetches"]}


def run_in_tensorflow(path: str, fetches: list[str], feeds: Arrays) -> Arrays:
    """What the frozen graph computes in the TensorFlow that is installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    with open(path, "rb") as file:
        graph_def = tf.compat.v1.GraphDef.FromString(file.read())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        print(f"running in TensorFlow {tf.__version__}")
        return dict(zip(fetches, session.run(fetches, feeds)))


def agree(name: str, found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    """Print whether two outputs are the same but for rounding. NaN would agree with anything, so it never does."""
    same = found.shape == expected.shape and bool(np.allclose(found, expected, rtol=1e-5, atol=1e-6))
    largest = f"largest difference {np.abs(found - expected).max():.1e}" if found.shape == expected.shape else "shapes"
    print(f"{name}  {'as then' if same else 'DIFFERS'}: {largest}")
    return same


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL))
