"""The measure of all that writes large files: cp of the same bytes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import Command, Timing
from benchmarks.report import Report

COPY, SYNCED = "cp", "cp and fsync"
_SYNC = 'cp "$1" "$2" && sync "$2"'


def copies(path: str, folder: Path) -> dict[str, Command]:
    """cp of the file at `path` into `folder`, and cp that waits until the disk has it."""
    copied, synced = folder / "copied", folder / "synced"
    return {
        COPY: Command(["cp", path, str(copied)], [copied], [path]),
        SYNCED: Command(["sh", "-c", _SYNC, "sh", path, str(synced)], [synced], [path]),
    }


def targets(what: str, timings: dict[str, Timing], ours: str, report: Report, meaningful: bool) -> None:
    """At most 1.5 times cp and 80 MB; a small file is all start-up, and its times are not `meaningful`."""
    report.at_most(f"{what}, peak memory", timings[ours].peak_bytes / 1e6, 80, "MB")
    for name in (COPY, SYNCED) if meaningful else ():
        report.at_most(f"{what}, against {name}", timings[ours].median / timings[name].median, 1.5)
