"""Runs the README: its Python and its commands, and checks its links. `.ci/run` runs the two commands of "Set up"."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [(match[1], match[2]) for match in re.finditer(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]
PYTHON = [text for language, text in BLOCKS if language == "python"]
MODULES = {"graph-restore": "graph_restore", "freeze_graph": "graph_restore.freeze_graph"}


def sessions() -> list[tuple[str, list[str]]]:
    """(command, lines shown after it) of every console block."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(text for language, text in BLOCKS if language == "console").splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the models of the README in it, to be written to."""
    (tmp_path / "legacy_models").symlink_to(ROOT / "legacy_models")
    return tmp_path


def run(arguments: list[str], place: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=place, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_set_up_is_two_commands_of_one_line() -> None:
    section = README.split("## Set up\n")[1].split("\n## ")[0]
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    first, second = commands.splitlines()
    assert "examples/revive.py" in first and "pytest" in second
    assert README.index("## Set up") < 500


def test_python_without_tensorflow(place: Path) -> None:
    (text,) = [text for text in PYTHON if "tensorflow" not in text]
    assert run(["-c", text], place) == "float32 [3, 3, 1, 4]\n"
    assert (place / "frozen.pb").stat().st_size > 0


@pytest.mark.tensorflow
def test_python_with_tensorflow(place: Path) -> None:
    (text,) = [text for text in PYTHON if "tensorflow" in text]
    run(["-c", text], place)
    assert (place / "continued" / "model.ckpt.index").exists()


@pytest.mark.parametrize(("command", "shown"), sessions(), ids=[command.split()[1] for command, _ in sessions()])
def test_commands_print_what_is_shown(command: str, shown: list[str], place: Path) -> None:
    program, *arguments = shlex.split(command)
    printed = run(["-m", MODULES[program], *arguments], place).splitlines()
    if shown[-1] == "...":
        shown, printed = shown[:-1], printed[: len(shown) - 1]
    assert printed == shown


def test_links_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/design.md"):
        path = ROOT / name
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (path.parent / target).exists(), f"{name}: {target}"


@pytest.mark.tensorflow
def test_the_example_revives_a_model() -> None:
    text = run([str(ROOT / "examples" / "revive.py")], ROOT)
    assert "as then" in text and "DIFFERS" not in text


def test_the_example_copies_a_checkpoint(tmp_path: Path) -> None:
    import numpy as np

    output = tmp_path / "weights.npz"
    prefix = ROOT / "legacy_models" / "linear" / "tf0.12.1-v1" / "model.ckpt"
    assert run([str(ROOT / "examples" / "checkpoint_to_npz.py"), str(prefix), str(output)], ROOT).startswith("2 of 2")
    with np.load(output) as stored, np.load(prefix.with_name("oracle.npz")) as oracle:
        for name in ("w", "b"):
            np.testing.assert_array_equal(stored[name], oracle[f"var|{name}:0"])
