"""Running a command in a fresh process: wall time, and peak memory as the kernel counted it.

The process that measures must stay small: the kernel lets a child's peak begin at its parent's size (the 20 MB that cp
seems to take are this Python), so nothing heavy (numpy, TensorFlow) is imported here; what needs them runs in a process
of its own.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Sample:
    """One run of a command."""

    seconds: float
    peak_bytes: int
    output: str


@dataclass(frozen=True)
class Timing:
    """All runs of a command, in the order they were made."""

    samples: tuple[Sample, ...]

    @property
    def median(self) -> float:
        """The middle wall time, in seconds."""
        return statistics.median(sample.seconds for sample in self.samples)

    @property
    def best(self) -> float:
        """The shortest wall time, in seconds."""
        return min(sample.seconds for sample in self.samples)

    @property
    def peak_bytes(self) -> int:
        """The highest peak of resident memory."""
        return max(sample.peak_bytes for sample in self.samples)

    @property
    def output(self) -> str:
        """What the last run printed."""
        return self.samples[-1].output


@dataclass(frozen=True)
class Command:
    """A command to measure; `makes` are files and directories it writes, removed before each run; `inputs` are read
    before each run."""

    arguments: Sequence[str]
    makes: Sequence[Path] = ()
    inputs: Sequence[str] = ()

    def clean(self) -> None:
        """Remove what it made."""
        for path in self.makes:
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)


def python(*arguments: str) -> list[str]:
    """The command that runs this Python."""
    return [sys.executable, *arguments]


def run(command: Sequence[str]) -> Sample:
    """Run a command to its end; RuntimeError with what it printed when it fails."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment())
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{text[-3000:]}")
    return Sample(seconds, peak_bytes(usage), text)


def peak_bytes(usage: resource.struct_rusage | None = None) -> int:
    """The most memory that a process had so far, by default this one."""
    usage = usage or resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def alternate(
    commands: Mapping[str, Command], rounds: int, tell: Callable[[str], None] = lambda text: None
) -> dict[str, Timing]:
    """Each command once as a warm-up, then `rounds` times in turn, every other round in reverse order.

    What is still to be written to the disk is written before each run, so that none waits for another's bytes.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        names = list(commands) if number % 2 else list(commands)[::-1]
        for name in names:
            sample = _once(commands[name])
            if number:
                samples[name].append(sample)
            tell(f"{name} {'warm-up' if not number else f'run {number}'}: {sample.seconds:.3f} s")
    return {name: Timing(tuple(found)) for name, found in samples.items()}


def _once(command: Command) -> Sample:
    command.clean()
    os.sync()
    for path in command.inputs:
        _warm(path)
    return run(command.arguments)


def _warm(path: str) -> None:
    """Read a file to its end, so that it is in the page cache: some kernels give back what lay idle for seconds."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def environment() -> dict[str, str]:
    """That of a user: compiled modules are kept, TensorFlow is quiet and sees no GPU, this checkout can be imported."""
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "0"}
    return {**environment, **quiet, "PYTHONPATH": os.pathsep.join(paths)}
