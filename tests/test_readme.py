"""Runs the README: its Python and its commands, and checks its links. `.ci/run` runs the two commands of "Set up"."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from snippets import LIVE, ROOT, dead_links, run, run_command, snippets

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = [snippet.text for snippet in snippets("README.md", "python")]
COMMANDS = [pair for snippet in snippets("README.md", "console") for pair in snippet.commands()]


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
    continued, module = [text for text in PYTHON if "tensorflow" in text]
    run(["-c", continued], place)
    assert (place / "continued" / "model.ckpt").exists()  # of version 1, as the model's own saver wrote
    run(["-c", f"{module}assert len(gradients) > 1 and all(gradient is not None for gradient in gradients)"], place)


def marked(command: str, shown: list[str]) -> Any:
    marks = [pytest.mark.tensorflow] if any(sign in command for sign in LIVE) else []
    return pytest.param(command, shown, marks=marks, id=" ".join(command.split()[:2]))


@pytest.mark.parametrize(("command", "shown"), [marked(*one) for one in COMMANDS])
def test_commands_print_what_is_shown(command: str, shown: list[str], place: Path) -> None:
    run_command(command, shown, place)


def test_links_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md", "legacy_models/README.md"):
        assert dead_links(name) == []


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
