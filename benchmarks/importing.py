"""What importing graph_restore costs beside importing numpy."""

from __future__ import annotations

import json
import statistics

from benchmarks.measure import Command, alternate, python
from benchmarks.report import Report

STAGES = {
    "numpy": "import numpy",
    "graph_restore": "import graph_restore as gr",
    "its verbs": "gr.load, gr.load_checkpoint, gr.restore, gr.freeze, gr.export",
}
_SCRIPT = """
import json, sys, time
spent = {}
for name, statement in json.loads(sys.argv[1]).items():
    start = time.perf_counter()
    exec(statement)
    spent[name] = time.perf_counter() - start
assert not {"tensorflow", "ml_dtypes"} & set(sys.modules), "imported without need"
print(json.dumps(spent))
"""


def measure(rounds: int, report: Report) -> float:
    """Print the time of each stage of one process after the other; the seconds that `import graph_restore` takes.

    What the package needs is imported on first use, so its verbs are a stage of their own. The stages follow each other
    in the same process, so that a busy machine slows all of them alike.
    """
    report.heading(f"Import, stage after stage in one process, median of {rounds}; TensorFlow is not among the modules")
    command = Command(python("-c", _SCRIPT, json.dumps(STAGES)))
    samples = [json.loads(sample.output) for sample in alternate({"import": command}, rounds)["import"].samples]
    medians = {name: statistics.median(sample[name] for sample in samples) for name in STAGES}
    for name, seconds in medians.items():
        best = min(sample[name] for sample in samples)
        report.line(f"{name:14}  {seconds * 1e3:6.1f} ms  min {best * 1e3:6.1f} ms")
    return float(medians["graph_restore"])
