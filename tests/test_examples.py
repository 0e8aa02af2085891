"""Every program in examples/live runs; each asserts what it claims."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from snippets import ROOT

PROGRAMS = sorted((ROOT / "examples" / "live").glob("*.py"))


def run(program: Path, *arguments: str) -> str:
    command = [sys.executable, str(program), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.tensorflow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_live(program: Path) -> None:
    assert run(program).strip()


def test_there_are_five_live_ones() -> None:
    assert {program.stem for program in PROGRAMS} == {
        "bare_graph", "continue_training", "fine_tune", "serve", "two_models",
    }  # fmt: skip
