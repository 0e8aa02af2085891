"""Keeps legacy_models/ honest: recipes and directories agree, oracles are complete, no path of the maker is left."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import CORPUS, Case, all_cases, cases

LIMIT = 8_000_000
NO_MODELS = {"recipes", "packages"}  # a package is a file of its own, made by recipes/package.cc
RELEASES = {"0.12.1": "2.7", "1.4.1": "3.6", "1.15.5": "3.7"}


def _recipes() -> set[str]:
    names = set()
    for path in (CORPUS / "recipes").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any("recipe(" in ast.unparse(d) for d in node.decorator_list):
                names.add(node.name)
    return names


def _files() -> list[Path]:
    return [path for path in CORPUS.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_directories_are_recipes() -> None:
    models = {path.name for path in CORPUS.iterdir() if path.is_dir()} - NO_MODELS
    assert models == _recipes()


def test_every_model_directory_is_a_case() -> None:
    models = [path for path in CORPUS.iterdir() if path.is_dir() and path.name not in NO_MODELS]
    made = {path for model in models for path in model.iterdir()}
    assert made == {case.directory for case in all_cases()}


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_case_states_its_origin(case: Case) -> None:
    version, flavour = re.fullmatch(r"tf([\d.]+)-(v[12])", case.directory.name).groups()  # type: ignore[union-attr]
    facts = case.facts
    assert (facts["recipe"], facts["tensorflow"], facts["checkpoint_version"]) == (case.model, version, flavour)
    assert facts["python"].startswith(RELEASES[version])


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_oracle_is_complete(case: Case) -> None:
    oracle = case.oracle
    assert set(oracle["variables"]) == set(case.facts["variables"])
    for tag, checkpoint in {**case.facts["savers"], **case.facts["other_checkpoints"]}.items():
        assert set(oracle["checkpoint"][tag]) == set(checkpoint["keys"])
        for key, facts in checkpoint["keys"].items():
            assert list(oracle["checkpoint"][tag][key].shape) == facts["shape"]
    assert bool(oracle["runs"]) == case.has_graph
    assert all(run["outputs"] for run in oracle["runs"])
    computed = [*oracle["variables"].values(), *(value for run in oracle["runs"] for value in run["outputs"].values())]
    assert all(np.isfinite(value).all() for value in computed if value.dtype.kind in "fc"), "NaN would hide differences"


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_checkpoint_files_have_their_version(case: Case) -> None:
    tagged = {**case.prefixes, **case.other_prefixes}
    assert tagged
    for tag, prefix in tagged.items():
        two = case.facts["checkpoint_version"] == "v2" and tag != "v1"
        whole, shards = (".index", ".data-*-of-*") if two else ("", "-?????-of-?????")
        folder, name = os.path.split(prefix)
        alone, parts = Path(folder, name + whole).is_file(), list(Path(folder).glob(name + shards))
        assert (alone and parts) if two else (alone or parts), prefix


def test_size() -> None:
    assert sum(path.stat().st_size for path in _files()) < LIMIT


def test_no_path_of_the_making_machine() -> None:
    place = re.compile(rb"/(?:root|home|work|opt|usr|Users)/|/tmp/(?!train\b)\w+")
    found = {str(path): place.findall(path.read_bytes()) for path in _files()}
    assert {path: hits for path, hits in found.items() if hits and "/recipes/" not in path} == {}


def test_graphs_only_by_default() -> None:
    assert {case.model for case in all_cases()} - {case.model for case in cases()} == {"wide_table", "raw_dtypes"}


@pytest.mark.tensorflow
@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_todays_tensorflow_reads_the_same_values(case: Case) -> None:
    import tensorflow as tf

    checkpoints = {**case.facts["savers"], **case.facts["other_checkpoints"]}
    for tag, checkpoint in checkpoints.items():
        if tag == "v1":
            continue  # TensorFlow reads the V2 files that share its prefix
        pattern = f"{case.directory}/{checkpoint.get('restore_from', checkpoint['prefix'])}"
        for key, facts in checkpoint["keys"].items():
            dtype = tf.as_dtype(facts["dtype"])
            (value,) = tf.raw_ops.RestoreV2(prefix=pattern, tensor_names=[key], shape_and_slices=[""], dtypes=[dtype])
            _expect_equal(value, dtype, case.oracle["checkpoint"][tag][key])


def _expect_equal(value: Any, dtype: Any, expected: np.ndarray[Any, Any]) -> None:
    import tensorflow as tf

    if dtype.is_quantized:
        value = tf.bitcast(value, tf.as_dtype(dtype.name.replace("quint", "uint").replace("qint", "int")))
    found = value.numpy()
    if expected.dtype == object:
        assert np.asarray(found, dtype=object).tolist() == expected.tolist()
    else:
        assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes()
