"""Serves a model with a vocabulary from a program that executes eagerly, to several threads at a time.

python examples/live/serve.py
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

import graph_restore as gr

MODEL = Path(__file__).resolve().parents[2] / "legacy_models" / "vocabulary" / "tf1.4.1-v2"

with gr.Session(MODEL / "model.ckpt.meta", threads=(1, 2)) as session, ThreadPoolExecutor(4) as pool:

    def ids(words: list[str]) -> list[int]:
        """The numbers of words, by the table in the graph."""
        return session.run("ids:0", {"words:0": words}).tolist()

    requests = [["oak", "elm"], ["elm", "oak"], ["no tree", "yew"], ["ash tree", "oak"]]
    answers = list(pool.map(ids, requests))
    for request, answer in zip(requests, answers):
        print(request, answer)
    assert answers[0] == answers[1][::-1] and answers[0][0] != answers[0][1]
    assert tf.executing_eagerly()  # the program around is as it was
