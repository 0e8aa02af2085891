"""The table of what freezing gives for a corpus: rows, sums and exit status, and the figures in the documentation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus import CORPUS
from snippets import ROOT

pytestmark = pytest.mark.tensorflow


def table(*arguments: str) -> tuple[int, list[str]]:
    """(exit status, lines) of the command."""
    command = [sys.executable, "-m", "tests.corpus_table", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout.splitlines()


def test_of_the_whole_corpus_as_the_documentation_has_it() -> None:
    status, lines = table("--reasons")
    page = (ROOT / "docs/freezing.md").read_text(encoding="utf-8")
    assert status == 0
    sums = [line for line in lines if line.split(":")[0] in ("graph.pb", ".meta", "SavedModel", "event file", "all")]
    assert len(sums) == 5
    for line in sums:
        assert line in page
    refused = {line.split("/")[0] for line in lines if line not in sums and " no  " in line}
    assert refused == {path.parent.parent.name for path in CORPUS.glob("*/*/oracle.json") if _is_refused(path)}


def _is_refused(path: Path) -> bool:
    facts = json.loads(path.read_text())
    return bool(facts.get("refuse"))


def test_of_another_directory(tmp_path: Path) -> None:
    """Cases in all three layouts; one whose oracle says otherwise makes the status 1."""
    shutil.copytree(CORPUS / "linear/tf0.12.1-v1", tmp_path / "linear/tf0.12.1-v1")
    other = tmp_path / "tf1.15.5/linear/v2"
    shutil.copytree(CORPUS / "linear/tf1.15.5-v2", other)
    (other / "oracle.json").unlink()
    _as_info(other)
    run = tmp_path / "third"
    shutil.copytree(CORPUS / "saved_model/tf1.4.1-v2/saved_model", run)
    with np.load(CORPUS / "saved_model/tf1.4.1-v2/oracle.npz") as stored:
        x, y = stored["feed|0|x:0"], stored["out|0|y:0"]
    np.savez(run / "e2e_third.npz", in__x=x, out__y=y)
    status, lines = table(str(tmp_path))
    assert status == 0 and lines[-1] == "all: 5: 5 equal"
    assert {tuple(line.split()[:2]) for line in lines[:-4]} >= {
        ("linear/tf0.12.1-v1", "graph.pb"), ("tf1.15.5/linear/v2", ".meta"), ("third/e2e_third", "SavedModel"),
    }  # fmt: skip
    np.savez(run / "e2e_third.npz", in__x=x, out__y=y + 1)
    status, lines = table(str(tmp_path), "--reasons")
    assert status == 1 and lines[0].split(maxsplit=4) == [
        "third/e2e_third",
        "SavedModel",
        "yes",
        "no",
        "differs in y:0",
    ]


def _as_info(folder: Path) -> None:
    with np.load(folder / "oracle.npz") as stored:
        kept = {"in|x:0": stored["feed|0|x:0"], "out|y:0": stored["out|0|y:0"]}
    np.savez(folder / "oracle.npz", **kept)
    (folder / "info.json").write_text(json.dumps({"outs": ["y:0"], "prefixes": {"": "model.ckpt"}}))
