"""A model made to live in today's TensorFlow, by restore_graph and by TensorFlow's own import_meta_graph and Saver:
`python -m benchmarks.live ours|bare|theirs GRAPH PREFIX FETCHES-AND-FEEDS`.

Each prints, as JSON, the seconds from TensorFlow's import to restored variables, and hashes of what it then computes.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

from benchmarks.measure import Command, Timing, alternate, python
from benchmarks.models import BenchmarkModel
from benchmarks.outputs import fetched
from benchmarks.report import Report

OURS, BARE, THEIRS = "restore_graph, .meta", "restore_graph, bare graph", "import_meta_graph + Saver.restore"
_CODES = {"ours": OURS, "bare": BARE, "theirs": THEIRS}


def measure(model: BenchmarkModel, rounds: int, report: Report, meaningful: bool) -> None:
    """Time them in processes of their own, print the table, and compare what the models compute."""
    report.heading(f"live model: {model.data_bytes / 1e6:.1f} MB of weights, {model.nodes} nodes; median of {rounds}")
    task = json.dumps({"fetches": model.fetches, "feeds": model.feeds})
    commands = {
        who: Command(python("-m", "benchmarks.live", code, model.meta, model.prefix, task), inputs=model.files)
        for code, who in _CODES.items()
    }
    timings = alternate(commands, rounds)
    report.table(timings, THEIRS)
    told = {who: [json.loads(one.output.splitlines()[-1]) for one in timing.samples] for who, timing in timings.items()}
    report.equal("live model", len({str(runs[-1]["outputs"]) for runs in told.values()}) == 1, str(told))
    seconds = {who: statistics.median(run["seconds"] for run in runs) for who, runs in told.items()}
    for who in (OURS, BARE):
        ratio = seconds[who] / seconds[THEIRS]
        report.line(f"{who}, without importing TensorFlow: {seconds[who]:.3f} s, {ratio:.2f} times {THEIRS}")
        if meaningful:
            report.at_most(f"{who}, time", ratio, 1)
            report.at_most(f"{who}, peak memory", _peak(timings[who]) / _peak(timings[THEIRS]), 1)


def _peak(timing: Timing) -> float:
    return statistics.median(sample.peak_bytes for sample in timing.samples)


def live(who: str, meta: str, prefix: str, task: dict[str, Any]) -> dict[str, Any]:
    """Bring the model to life; the seconds that took, and what it computes."""
    import tensorflow as tf

    start = time.perf_counter()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        if who == "theirs":
            tf.compat.v1.train.import_meta_graph(meta, clear_devices=True).restore(session, prefix)
        else:
            import graph_restore as gr

            source = gr.load(gr.load(meta).graph.graph_def) if who == "bare" else meta
            gr.restore_graph(source, prefix)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "outputs": fetched(session, **task)}


if __name__ == "__main__":
    print(json.dumps(live(*sys.argv[1:4], json.loads(sys.argv[4]))))
