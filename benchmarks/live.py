"""A model made to live in today's TensorFlow, by restore_graph and by TensorFlow's own import_meta_graph and Saver:
`python -m benchmarks.live ours|theirs GRAPH PREFIX FETCHES-AND-FEEDS`; `... bare META OUTPUT` writes the graph alone.

Each prints, as JSON, the seconds from its imports to restored variables, the peak memory until then, and hashes of what
it then computes.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Command, Timing, alternate, peak_bytes, python, run
from benchmarks.models import BenchmarkModel
from benchmarks.outputs import fetched
from benchmarks.report import Report

OURS, BARE, THEIRS = "restore_graph, .meta", "restore_graph, bare graph", "import_meta_graph + Saver.restore"


def measure(model: BenchmarkModel, folder: Path, rounds: int, report: Report, meaningful: bool) -> None:
    """Time them in processes of their own, print the table, and compare what the models compute."""
    report.heading(f"live model: {model.data_bytes / 1e6:.1f} MB of weights, {model.nodes} nodes; median of {rounds}")
    task = json.dumps({"fetches": model.fetches, "feeds": model.feeds})
    folder.mkdir(parents=True, exist_ok=True)
    bare = str(folder / "graph.pb")
    run(python("-m", "benchmarks.live", "bare", model.meta, bare))
    asked = {OURS: ("ours", model.meta), BARE: ("ours", bare), THEIRS: ("theirs", model.meta)}
    commands = {
        who: Command(python("-m", "benchmarks.live", *what, model.prefix, task), inputs=model.files)
        for who, what in asked.items()
    }
    timings = alternate(commands, rounds)
    report.table(timings, THEIRS)
    told = {who: [json.loads(one.output.splitlines()[-1]) for one in timing.samples] for who, timing in timings.items()}
    report.equal("live model", len({str(runs[-1]["outputs"]) for runs in told.values()}) == 1, str(told))
    seconds, peaks = (
        {who: statistics.median(one[what] for one in runs) for who, runs in told.items()}
        for what in ("seconds", "peak_bytes")
    )
    for who in (OURS, BARE):
        ratio, peak = seconds[who] / seconds[THEIRS], peaks[who] / peaks[THEIRS]
        report.line(f"{who}, imports left out: {seconds[who]:.3f} s, {ratio:.2f} times {THEIRS}")
        report.line(f"{who}, until restored: {peaks[who] / 1e6:.1f} MB, {peak:.4f} times {THEIRS}")
        if meaningful:
            report.at_most(f"{who}, time", ratio, 1)
            report.at_most(f"{who}, peak memory", peak, 1)
            whole = _peak(timings[who]) / _peak(timings[THEIRS])
            report.at_most(f"{who}, peak memory of the whole process", whole, 1)


def _peak(timing: Timing) -> float:
    return statistics.median(sample.peak_bytes for sample in timing.samples)


def live(who: str, graph: str, prefix: str, task: dict[str, Any]) -> dict[str, Any]:
    """Bring the model to life; the seconds that took, and what it computes."""
    import tensorflow as tf

    import graph_restore as gr

    restore_graph = gr.restore_graph
    start = time.perf_counter()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        if who == "theirs":
            tf.compat.v1.train.import_meta_graph(graph, clear_devices=True).restore(session, prefix)
        else:
            restore_graph(graph, prefix)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "peak_bytes": peak_bytes(), "outputs": fetched(session, **task)}


def write_bare(meta: str, output: str) -> None:
    """The GraphDef of a .meta, by TensorFlow."""
    import tensorflow as tf

    with open(meta, "rb") as file, open(output, "wb") as bare:
        bare.write(tf.compat.v1.MetaGraphDef.FromString(file.read()).graph_def.SerializeToString())


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        write_bare(*sys.argv[2:4])
    else:
        print(json.dumps(live(*sys.argv[1:4], json.loads(sys.argv[4]))))
