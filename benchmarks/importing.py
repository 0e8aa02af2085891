"""What importing graph_restore costs over importing numpy, each in a fresh process."""

from __future__ import annotations

import statistics

from benchmarks.measure import Command, alternate, python
from benchmarks.report import Report

NUMPY, PACKAGE, VERBS = "numpy", "graph_restore", "graph_restore, its verbs used"
_STATEMENTS = {
    NUMPY: "import numpy",
    PACKAGE: "import numpy, graph_restore",
    VERBS: "import numpy, graph_restore as gr; gr.load, gr.load_checkpoint, gr.restore, gr.freeze, gr.export",
}
_SCRIPT = """
import sys, time
start = time.perf_counter()
{statement}
print(time.perf_counter() - start)
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
"""


def measure(rounds: int, report: Report) -> float:
    """Print the times inside the process; seconds that the package with all its verbs takes over numpy."""
    report.heading(f"Import, median of {rounds} (each process also asserts that TensorFlow was not imported)")
    commands = {
        name: Command(python("-c", _SCRIPT.format(statement=statement))) for name, statement in _STATEMENTS.items()
    }
    timings = alternate(commands, rounds)
    inside = {
        name: [float(sample.output.split()[-1]) for sample in timing.samples] for name, timing in timings.items()
    }
    medians = {name: statistics.median(values) for name, values in inside.items()}
    for name, values in inside.items():
        over = medians[name] - medians[NUMPY]
        report.line(f"{name:30}  {medians[name] * 1e3:6.1f} ms  min {min(values) * 1e3:6.1f} ms  {over * 1e3:+6.1f} ms")
    return medians[VERBS] - medians[NUMPY]
