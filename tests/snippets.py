"""The blocks of code in the documentation, and how they are run.

A `python` block must check something: with `assert`, with `print(...)  # what it prints`, or with a `text` block right
after it that holds all it prints. A `console` block holds commands after `$ ` and what they print; `...` stands for the
rest. Both run in a folder that has legacy_models in it and may be written to.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = {"graph-restore": "graph_restore", "freeze_graph": "graph_restore.freeze_graph"}
LIVE = ("import tensorflow", "gr.verify(", "graph-restore verify", " --verify")  # what needs TensorFlow
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n(?=(?:\n```text\n(.*?)^```$)?)", re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """One block of a page; `shown` is the `text` block right after it, or ""."""

    page: str
    line: int
    language: str
    text: str
    shown: str

    @property
    def id(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def needs_tensorflow(self) -> bool:
        return any(sign in self.text for sign in LIVE)

    @property
    def printed(self) -> str:
        """What the page says that a Python block prints."""
        return self.shown or "".join(f"{line}\n" for line in _PRINTED.findall(self.text))

    @property
    def checks_something(self) -> bool:
        return bool(self.printed) or re.search(r"^\s*assert ", self.text, re.MULTILINE) is not None

    def commands(self) -> list[tuple[str, list[str]]]:
        """(command, lines shown after it) of a console block."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
        return found


def snippets(page: str, language: str = "") -> list[Snippet]:
    """The blocks of a page, given by its path from the root, in order; those of one language only, if one is named."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [
        Snippet(page, text.count("\n", 0, match.start()) + 1, match[1], match[2], match[3] or "")
        for match in _BLOCK.finditer(text)
    ]
    return [one for one in found if language in ("", one.language)]


def run(arguments: list[str], place: Path) -> str:
    """What Python prints, run with these arguments in `place`; it must exit with 0."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=place, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_command(command: str, shown: list[str], place: Path) -> None:
    """Run a command of a console block and compare what it prints."""
    program, *arguments = shlex.split(command)
    printed = run(["-m", MODULES[program], *arguments], place).splitlines()
    if shown and shown[-1] == "...":
        shown, printed = shown[:-1], printed[: len(shown) - 1]
    assert printed == shown


def dead_links(page: str) -> list[str]:
    """The links of a page that lead to no file."""
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    return [target for target in targets if not target.startswith("https://") and not (path.parent / target).exists()]
