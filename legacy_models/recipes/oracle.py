"""Writes oracle.npz and oracle.json: what the making TensorFlow itself says about a model."""
from __future__ import absolute_import, division, print_function

import io
import json
import os
import re

import numpy as np

RAW = {"bfloat16": np.uint16, "qint8": np.int8, "quint8": np.uint8, "qint16": np.int16, "quint16": np.uint16,
       "qint32": np.int32}


class Oracle(object):
    """Collects arrays under keys such as `var|w:0` and writes each distinct value once."""

    def __init__(self):
        self.arrays = {}
        self.strings = {}
        self.raw = {}
        self.same = {}
        self._seen = {}

    def add(self, key, value, dtype=None):
        """`dtype`: TensorFlow's name of it, needed for dtypes that numpy cannot save."""
        value = np.asarray(value)
        if dtype in RAW:
            self.raw[key] = dtype
            value = value.view(RAW[dtype]) if value.shape else value.reshape(1).view(RAW[dtype]).reshape(())
        if value.dtype.kind in "OSU":
            self.strings[key] = {"shape": list(value.shape), "latin1": [_latin1(item) for item in value.ravel()]}
            return
        fingerprint = (str(value.dtype), value.shape, value.tobytes())
        if fingerprint in self._seen:
            self.same[key] = self._seen[fingerprint]
        else:
            self._seen[fingerprint] = key
            self.arrays[key] = value

    def write(self, folder, facts):
        np.savez_compressed(os.path.join(folder, "oracle.npz"), **self.arrays)
        facts = dict(facts, strings=self.strings, raw=self.raw, same=self.same)
        with io.open(os.path.join(folder, "oracle.json"), "w", encoding="utf-8") as file:
            file.write(_compact(json.dumps(facts, indent=1, sort_keys=True, separators=(",", ": "))) + u"\n")


def _compact(text):
    """Puts every innermost list and object on one line; no string of JSON holds a line break."""
    return re.sub(r"([\[{])\n\s*([^\[\]{}]*?)\n\s*([\]}])",
                  lambda found: found.group(1) + re.sub(r"\n\s*", " ", found.group(2)) + found.group(3), u"" + text)


def _latin1(item):
    return (item if isinstance(item, bytes) else item.encode("utf-8")).decode("latin-1")
