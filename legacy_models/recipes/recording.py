"""Builds one model, trains and saves it, restores it into fresh sessions and writes down what they say."""
from __future__ import absolute_import, division, print_function

import os
import platform
import shutil
import zlib

import numpy as np
import tensorflow as tf

import describe
from oracle import Oracle

FOLDER = "/tmp/train"   # where everything is made: TensorFlow writes absolute paths into its files


class Recording(object):
    """One model under one checkpoint version.  `run` leaves its files in `folder`."""

    def __init__(self, name, build, version):
        self.name, self.build, self.version = name, build, version
        self.folder = os.path.join(FOLDER, name)
        self.oracle = Oracle()

    def run(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        tf.reset_default_graph()
        tf.set_random_seed(20)
        self.model = model = self.build(self.folder)
        self.facts = {"recipe": self.name, "tensorflow": tf.__version__, "python": platform.python_version(),
                      "checkpoint_version": "v%d" % self.version, "savers": {},
                      "other_checkpoints": {}}
        self.init = [tf.global_variables_initializer(), tf.local_variables_initializer()]
        if not model.saver_in_graph:
            self.write_graph()
        self.savers = self._savers()
        if model.saver_in_graph:
            self.write_graph()
        self.session = self.new_session()
        self._train()
        self._note_values()
        self._save()
        self._question()
        if model.after:
            model.after(self)
        self._write_oracle()
        self.session.close()

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def new_session(self):
        """A session whose variables, locals and tables are initialized."""
        session = tf.Session(config=self.model.config)
        for op in self.init + self.model.init_ops:
            session.run(op)
        return session

    def write_graph(self):
        graph_def = self.model.graph_def or tf.get_default_graph().as_graph_def()
        with open(self.path("graph.pb"), "wb") as file:
            file.write(graph_def.SerializeToString())
        if self.model.text:
            tf.train.write_graph(graph_def, self.folder, "graph.pbtxt", as_text=True)

    def _savers(self):
        if self.model.savers:
            return self.model.savers(self.version)
        return [("", "model.ckpt", tf.train.Saver(write_version=self.version))]

    def _train(self):
        if self.model.already_saved:
            for _, prefix, saver in self.savers:
                saver.restore(self.session, self.path(prefix))
            return
        if self.model.scramble:
            for variable in tf.global_variables():
                scramble(self.session, variable)
        for op, feeds in self.model.steps:
            self.session.run(op, feeds)

    def _note_values(self):
        known = describe.variables(self.model)
        self.facts["variables"] = known
        self.values = {name: self.session.run(fetchable(self.model, name)) for name in known}
        for name, value in self.values.items():
            self.oracle.add("var|" + name, value, known[name]["dtype"])

    def _save(self):
        for tag, prefix, saver in self.savers:
            written = self.path(prefix) if self.model.already_saved else self._write_checkpoint(prefix, saver)
            self.facts["savers"][tag] = self._saver_facts(tag, saver, written[len(self.folder) + 1:])

    def _write_checkpoint(self, prefix, saver):
        if not os.path.isdir(os.path.dirname(self.path(prefix))):
            os.makedirs(os.path.dirname(self.path(prefix)))
        return saver.save(self.session, self.path(prefix), global_step=self.model.global_step,
                          write_meta_graph=self.model.write_meta)

    def _saver_facts(self, tag, saver, written):
        """`restore_from` is what Saver.save returned: for shards of V1 files a pattern, not the prefix."""
        definition = saver.saver_def
        keys = {}
        for key, (value, parts) in describe.full_values(describe.keys(saver), self.values).items():
            dtype = self.facts["variables"][parts[0]["variable"]]["dtype"]
            keys[key] = self.note_key(tag, key, value, dtype, parts)
        for key, tensor in describe.table_keys(saver).items():
            keys[key] = self.note_key(tag, key, self.session.run(tensor), tensor.dtype.base_dtype.name, [])
        return {"prefix": written.split("-?")[0], "restore_from": written, "keys": keys,
                "sharded": bool(definition.sharded), "filename_tensor": definition.filename_tensor_name,
                "save_tensor": definition.save_tensor_name, "restore_op": definition.restore_op_name}

    def note_key(self, tag, key, value, dtype, parts=None):
        self.oracle.add("ckpt|%s|%s" % (tag, key), value, dtype)
        facts = {"dtype": dtype, "shape": list(np.shape(value))}
        return facts if parts is None else dict(facts, parts=parts)

    def note_other_checkpoint(self, tag, prefix, values):
        """A checkpoint that no Saver of the model wrote: `values` is {key: array}."""
        keys = {key: self.note_key(tag, key, value, tf.as_dtype(np.asarray(value).dtype).name)
                    for key, value in values.items()}
        self.facts["other_checkpoints"][tag] = {"prefix": prefix, "keys": keys}

    def restored_session(self):
        """A fresh session after every Saver's restore; checked against what was saved."""
        session = self.new_session()
        for tag, _, saver in self.savers:
            saver.restore(session, self.path(self.facts["savers"][tag]["restore_from"]))
            for key in self.facts["savers"][tag]["keys"].values():
                for part in key["parts"]:
                    name = part["variable"]
                    expect_same(name, session.run(fetchable(self.model, name)), self.values[name])
        return session

    def _question(self):
        """The oracle's outputs are those of the first run after restoring."""
        self.facts["fetches"] = [tensor.name for tensor in self.model.fetches]
        self.facts["runs"] = []
        for number, feeds in enumerate(self.model.runs if self.model.fetches else []):
            session = self.restored_session()
            answers = session.run(self.model.fetches, feeds)
            session.close()
            self.note_run(number, feeds, self.model.fetches, answers)

    def note_run(self, number, feeds, fetches, answers):
        self.facts["runs"].append({"feeds": [tensor.name for tensor in feeds],
                                   "fetches": [tensor.name for tensor in fetches]})
        for tensor, value in feeds.items():
            self.oracle.add("feed|%d|%s" % (number, tensor.name), value)
        for tensor, value in zip(fetches, answers):
            self.oracle.add("out|%d|%s" % (number, tensor.name), value, tensor.dtype.base_dtype.name)

    def _write_oracle(self):
        neutral_event_names(self.folder)
        self.facts.update(self.model.facts)
        self.oracle.write(self.folder, self.facts)


def neutral_event_names(folder):
    """TensorFlow ends an event file's name with the time and the machine's name."""
    for place, _, files in os.walk(folder):
        for number, name in enumerate(sorted(files)):
            if name.startswith("events.out.tfevents."):
                neutral = "events.out.tfevents.%d.host" % (10 ** 9 + number)
                os.rename(os.path.join(place, name), os.path.join(place, neutral))


def fetchable(model, name):
    """What `session.run` reads variable `name` by: its object, the snapshot of a raw resource one, or its ref."""
    for tensor, facts in model.raw_variables.items():
        if tensor.name == name:
            return facts.get("snapshot", name)
    return next(variable for variable in describe.all_variables() if variable.name == name)


def scramble(session, variable):
    """Loads values that depend on the name only, through the variable's own initializer."""
    if variable.dtype.base_dtype not in (tf.float32, tf.float64) or "_power" in variable.name:
        return
    shape = np.shape(session.run(variable))
    seed = zlib.crc32(variable.name.encode()) & 0xffffffff
    values = np.random.RandomState(seed).normal(scale=0.6, size=shape)
    if any(word in variable.name for word in ("variance", "Adam", "Adagrad")):  # roots are taken of these
        values = np.abs(values) + 0.5
    session.run(variable.initializer, {variable.initializer.inputs[1]: values})


def expect_same(name, found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    same = found.dtype == expected.dtype and found.shape == expected.shape
    if not same or (found.tolist() if found.dtype == object else found.tobytes()) != (
            expected.tolist() if expected.dtype == object else expected.tobytes()):
        raise AssertionError("%s: restored %r, saved %r" % (name, found, expected))
