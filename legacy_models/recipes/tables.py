"""Lookup tables: from a vocabulary file, from constants, from strings, and one that a checkpoint holds."""
from __future__ import absolute_import, division, print_function

import os

import numpy as np
import tensorflow as tf

from model import BOTH, Model, recipe
from versions import BEFORE_1_0, tables_initializer


def words_placeholder():
    return tf.placeholder(tf.string, [None], name="words")


def strings(*words):
    return np.array(words, dtype=object)


def vocabulary_file(folder, name="vocabulary.txt", content=b"oak\nelm\n \nash tree\nyew\n"):
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(content)
    return path


def vocabulary_ids(words, path):
    """Ids of words by their line in the file; one word is a blank (an empty line is refused by TensorFlow)."""
    if BEFORE_1_0:
        initializer = tf.contrib.lookup.TextFileIdTableInitializer(path)
        return tf.contrib.lookup.HashTable(initializer, 5, name="vocabulary").lookup(words)
    return tf.contrib.lookup.index_table_from_file(path, num_oov_buckets=1, name="vocabulary").lookup(words)


def embedded(words, ids):
    table = tf.Variable(tf.zeros([6, 2]), name="embedding")
    y = tf.gather(table, ids, name="y")
    model = Model([y, tf.identity(ids, name="ids")], [{words: strings(b"ash tree", b"oak", b" ", b"pine", b"yew")}])
    model.init_ops = [tables_initializer()]
    return model


@recipe()
def vocabulary(folder):
    """A word to id table filled from a file, and an embedding."""
    words = words_placeholder()
    return embedded(words, vocabulary_ids(words, vocabulary_file(folder)))


@recipe()
def columns_table(folder):
    """A table from two columns of a file with carriage returns: int64 to string, and string to int64."""
    path = vocabulary_file(folder, "codes.tsv", b"7\tseven\r\n-2\tminus two\r\n900\t \r\n")
    lookup = tf.contrib.lookup
    codes = tf.placeholder(tf.int64, [None], name="codes")
    words = words_placeholder()
    to_word = lookup.HashTable(lookup.TextFileInitializer(path, tf.int64, 0, tf.string, 1), "none", name="to_word")
    to_code = lookup.HashTable(lookup.TextFileInitializer(path, tf.string, 1, tf.int64, 0), -1, name="to_code")
    offset = tf.Variable(np.int64(1000), name="offset")
    fetches = [tf.identity(to_word.lookup(codes), name="names"), tf.add(to_code.lookup(words), offset, name="y")]
    model = Model(fetches, [{codes: np.array([900, 7, 1]), words: strings(b"minus two", b"seven", b"six")}])
    model.init_ops = [tables_initializer()]
    model.steps = [(offset.assign(2000), {})]
    return model


@recipe()
def key_value_table(folder):
    """Tables whose keys and values are constants of the graph."""
    lookup = tf.contrib.lookup
    words = words_placeholder()
    initializer = lookup.KeyValueTensorInitializer(["low", "high"], [3, 8], tf.string, tf.int64)
    heights = lookup.HashTable(initializer, -5, name="heights")
    back = lookup.KeyValueTensorInitializer(tf.constant([3, 8], tf.int64), tf.constant(["low", "high"]))
    names = lookup.HashTable(back, "?", name="names")
    scale = tf.Variable(np.int64(1), name="scale")
    found = heights.lookup(words)
    fetches = [tf.multiply(found, scale, name="y"), tf.identity(names.lookup(found), name="again")]
    model = Model(fetches, [{words: strings(b"high", b"low", b"middle")}])
    model.init_ops = [tables_initializer()]
    model.steps = [(scale.assign(10), {})]
    return model


@recipe()
def string_mapping(folder):
    """The contrib function that makes ids from a list of strings: string_to_index, later index_table_from_tensor."""
    words = words_placeholder()
    mapping = tf.constant(["oak", "elm", " ", "ash tree", "yew"])
    if BEFORE_1_0:
        ids = tf.contrib.lookup.string_to_index(words, mapping, default_value=5)
    else:
        ids = tf.contrib.lookup.index_table_from_tensor(mapping, default_value=5).lookup(words)
    return embedded(words, ids)


@recipe(BOTH)
def mutable_table(folder):
    """A table that is filled while training; its keys and values are in the checkpoint."""
    words = words_placeholder()
    table = tf.contrib.lookup.MutableHashTable(tf.string, tf.int64, -1, name="seen", checkpoint=True)
    insert = table.insert(tf.constant(["b", "a", "longer word"]), tf.constant([2, 1, 30], tf.int64))
    factor = tf.Variable(np.int64(1), name="factor")
    y = tf.multiply(table.lookup(words), factor, name="y")
    model = Model([y], [{words: strings(b"a", b"longer word", b"zzz")}])
    model.steps = [(insert, {}), (factor.assign(7), {})]
    return model
