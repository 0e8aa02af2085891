"""Genuine old releases read what graph_restore and its Saver write, and initialise as restored graphs do.

Their Pythons are looked for in $GENUINE_TENSORFLOW/<release>/bin/python; `.ci/genuine FOLDER` installs them.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import Arrays, Case, case

import graph_restore as gr
from graph_restore.checkpoint import save_checkpoint

pytestmark = [pytest.mark.genuine, pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")]
PROGRAM = Path(__file__).parent / "genuine" / "variables_of.py"
ROUND_TRIPS = [
    "linear/tf0.12.1-v1", "mlp/tf0.12.1-v1", "mlp/tf0.12.1-v2", "partitioned/tf0.12.1-v1", "sharded/tf0.12.1-v2",
    "mlp/tf1.4.1-v2", "partitioned/tf1.4.1-v2", "linear/tf1.15.5-v2", "mlp/tf1.15.5-v2",
    "partitioned/tf1.15.5-v2", "resource/tf1.15.5-v1", "resource/tf1.15.5-v2", "sharded/tf1.15.5-v1",
    "resource_partitioned/tf1.15.5-v2",
]  # fmt: skip


def python_of(release: str) -> str:
    folder = os.environ.get("GENUINE_TENSORFLOW")
    if folder is None:
        pytest.skip("GENUINE_TENSORFLOW is not set: `.ci/genuine FOLDER` installs old releases of TensorFlow")
    python = Path(folder) / release / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no TensorFlow {release} in {folder}: `.ci/genuine {folder}` installs it")
    return str(python)


def genuine_variables(one: Case, checkpoint: str, place: Path, release: str = "") -> Arrays:
    """What the release that made a model has in its variables, restored from a checkpoint ("-": initialised)."""
    output = place / "variables.npz"
    python = python_of(release or one.facts["tensorflow"])
    command = [python, str(PROGRAM), str(one.meta), checkpoint, str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(output) as arrays:
        return {name.replace("|", "/"): arrays[name] for name in arrays.files}


def changed(value: Any) -> Any:
    """Another value of the same dtype and shape."""
    return np.flip(value).copy() + np.ones((), value.dtype) if value.dtype.kind in "fiuc" else value


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "identity, source",
    [*((one, "graph_pb") for one in ROUND_TRIPS), ("mlp/tf0.12.1-v1", "meta"), ("resource/tf1.15.5-v2", "meta")],
)
def test_the_original_restores_what_the_saver_saved(identity: str, source: str, tmp_path: Path) -> None:
    import tensorflow as tf

    one = case(identity)
    python_of(one.facts["tensorflow"])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        _, saver = gr.restore_graph(getattr(one, source), one.prefix)
        keyed = {v.name: v for v in tf.compat.v1.global_variables() if "checkpoint_key" in v.description.authority}
        for variable in keyed.values():
            variable.load(changed(session.run(variable)), session)
        expected = {name: session.run(variable) for name, variable in keyed.items()}
        path = saver.save(session, str(tmp_path / "again"))
    found = genuine_variables(one, path, tmp_path)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("release", ["0.12.1", "1.4.1", "1.15.5"])
def test_old_releases_restore_what_is_written_without_tensorflow(release: str, version: int, tmp_path: Path) -> None:
    one = case("mlp/tf0.12.1-v1")
    checkpoint = gr.load_checkpoint(one.prefix)
    values = {key: changed(tensor.read()) for key, tensor in checkpoint.items()}
    save_checkpoint(str(tmp_path / "written"), values, version=version)
    found = genuine_variables(one, str(tmp_path / "written"), tmp_path, release)
    expected = {entry.variable: values[entry.key] for entry in gr.load(one.meta).savers[0].entries}
    for name, value in expected.items():
        assert found[f"{name}:0"].tobytes() == value.tobytes(), name


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "identity", ["convnet/tf0.12.1-v1", "mlp/tf1.4.1-v2", "mlp/tf1.15.5-v2", "resource/tf1.15.5-v2"]
)
def test_initializers_give_what_they_gave(identity: str, tmp_path: Path) -> None:
    """The graphs have seeds, and random ops with seeds give one sequence in all releases."""
    import tensorflow as tf

    one = case(identity)
    expected = genuine_variables(one, "-", tmp_path)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        gr.restore_graph(one.graph_pb)
        made = {v.name: v for v in tf.compat.v1.global_variables() if v.name in expected}
        session.run([variable.initializer for variable in made.values()])
        assert set(made) == set(expected)
        for name, variable in made.items():
            np.testing.assert_allclose(session.run(variable), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
