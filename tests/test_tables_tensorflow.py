"""Look-up tables of frozen graphs, wherever they are looked up in: against a session that ran the graph unfrozen.

The TensorFlow that is installed builds, fills, saves and runs each graph; files it reads are moved before freezing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graph_restore as gr

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]
WORDS = np.array([b"elm", b"none", b"yew", b"oak", b"ash tree"], object)
Build = Callable[[Any, Any, Any, Path], Any]  # tf, the table, the placeholder, the folder for files
TABLES: dict[str, Callable[[Any, Path], Any]] = {}
PLACES: dict[str, Callable[[Any, Any, Any], Any]] = {}


def table(build: Callable[[Any, Path], Any]) -> Callable[[Any, Path], Any]:
    TABLES[build.__name__] = build
    return build


def place(build: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    PLACES[build.__name__] = build
    return build


def vocabulary(folder: Path, text: bytes = b"oak\nelm\nash tree\nyew\n") -> str:
    path = folder / "vocabulary.txt"
    path.write_bytes(text)
    return str(path)


def from_file(tf: Any, path: str, key: Any, value: Any, **more: Any) -> Any:
    return tf.lookup.TextFileInitializer(path, key[0], key[1], value[0], value[1], **more)


@table
def consts(tf: Any, folder: Path) -> Any:
    keys, values = tf.constant(["elm", "oak"]), tf.constant([5, 6], tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)


@table
def file(tf: Any, folder: Path) -> Any:
    whole, number = (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE), (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
    return tf.lookup.StaticHashTable(from_file(tf, vocabulary(folder), whole, number), -1)


@table
def buckets_for_unknown_words(tf: Any, folder: Path) -> Any:
    whole, number = (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE), (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
    return tf.lookup.StaticVocabularyTable(from_file(tf, vocabulary(folder), whole, number), 3)


@table
def columns(tf: Any, folder: Path) -> Any:
    path = vocabulary(folder, b"7,oak,70\n8,elm,80\n9,ash tree,90\n")
    return tf.lookup.StaticHashTable(from_file(tf, path, (tf.string, 1), (tf.int64, 2), delimiter=","), -1)


@table
def mutable(tf: Any, folder: Path) -> Any:
    found = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1, name="mutable")
    tf.add_to_collection("fill", found.insert(["oak", "yew"], tf.constant([5, 6], tf.int64)))
    return found


@table
def dense(tf: Any, folder: Path) -> Any:
    """Saved as its buckets, most of them empty."""
    found = tf.lookup.experimental.DenseHashTable(
        tf.string, tf.int64, -1, empty_key="", deleted_key="$", initial_num_buckets=16, name="dense"
    )
    fill = found.insert(["oak", "yew", "elm"], tf.constant([5, 6, 7], tf.int64))
    with tf.control_dependencies([fill]):
        tf.add_to_collection("fill", found.erase(tf.constant(["elm"])))
    return found


@place
def plain(tf: Any, found: Any, words: Any) -> Any:
    return [found.lookup(words), found.lookup(words[:1])]


@place
def in_cond(tf: Any, found: Any, words: Any) -> Any:
    taken = tf.cond(tf.size(words) > 2, lambda: found.lookup(words), lambda: tf.zeros([5], tf.int64))
    other = tf.cond(tf.size(words) > 9, lambda: found.lookup(words), lambda: tf.zeros([5], tf.int64))
    return [taken, other]


@place
def in_while(tf: Any, found: Any, words: Any) -> Any:
    return tf.while_loop(lambda i, ids: i < 3, lambda i, ids: (i + 1, ids + found.lookup(words)), [0, zeros(tf)])


@place
def in_while_in_cond(tf: Any, found: Any, words: Any) -> Any:
    return [tf.cond(tf.size(words) > 2, lambda: in_while(tf, found, words)[1], lambda: zeros(tf))]


@place
def in_map(tf: Any, found: Any, words: Any) -> Any:
    return [tf.map_fn(found.lookup, words, dtype=tf.int64)]


@place
def in_functions(tf: Any, found: Any, words: Any) -> Any:
    inner = tf.function(lambda names: found.lookup(names) * 2)
    return [tf.function(lambda names: inner(names) + 1)(words)]


@place
def in_functional_flow(tf: Any, found: Any, words: Any) -> Any:
    tf.enable_control_flow_v2()
    try:
        return [*in_cond(tf, found, words), *in_while(tf, found, words)]
    finally:
        tf.disable_control_flow_v2()


def zeros(tf: Any) -> Any:
    return tf.zeros([5], tf.int64)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("kind", TABLES)
def test_tables_wherever_they_are_looked_up(kind: str, where: str, tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf

    files = tmp_path / "files"
    files.mkdir()
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.disable_control_flow_v2()
        words = tf.placeholder(tf.string, [5], name="words")
        scale = tf.get_variable("scale", initializer=np.int64(3))
        found = TABLES[kind](tf, files)
        outputs = [tf.identity(ids * tf.cast(scale, ids.dtype)) for ids in PLACES[where](tf, found, words)]
        session.run([tf.global_variables_initializer(), tf.tables_initializer()])
        session.run(tf.get_collection("fill"))
        tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
        answers = session.run(outputs, {words: WORDS})
    if (files / "vocabulary.txt").exists():
        shutil.move(files / "vocabulary.txt", tmp_path / "vocabulary.txt")
    names = [output.name for output in outputs]
    for source in (tmp_path / "model.ckpt.meta", graph.as_graph_def()):
        model = gr.restore(gr.load(source), tmp_path / "model.ckpt")
        for mode in ("inline", "init_op"):
            frozen = gr.freeze(model, names, "words", tables=mode)
            for value, expected in zip(run(frozen, names, mode), answers):
                np.testing.assert_array_equal(value, expected)
            if mode == "inline":
                again = gr.freeze(gr.unfreeze(frozen), names, "words")
                for value, expected in zip(run(again, names, mode), answers):
                    np.testing.assert_array_equal(value, expected)


def run(frozen: gr.Model, names: list[str], mode: str) -> Any:
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(frozen.graph.materialize(), name="")
        if mode == "init_op":
            session.run(frozen.init_op)
        session.run(names, {"words:0": WORDS})
        return session.run(names, {"words:0": WORDS})  # tables are filled once, and stay right


@pytest.mark.parametrize("reference", [False, True])
def test_a_dense_table_without_deleted_key_gets_one(reference: bool, tmp_path: Path) -> None:
    """Until 1.13 the op had one input; today it has two, but as a reference, which it was until 1.0."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph, tf.Session() as session:
        ids = tf.placeholder(tf.int64, [None], name="ids")
        least = np.iinfo(np.int64).min
        found = tf.lookup.experimental.DenseHashTable(
            tf.int64, tf.int64, -1, empty_key=0, deleted_key=-9, initial_num_buckets=16, name="dense"
        )
        both = tf.cond(tf.size(ids) > 0, lambda: found.lookup(ids), lambda: tf.zeros_like(ids))
        tf.identity(found.lookup(ids) + both * 0, name="y")
        session.run(found.insert(tf.constant([1, 2, least], tf.int64), tf.constant([10, 20, 30], tf.int64)))
        tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    graph_def = graph.as_graph_def()
    (node,) = [node for node in graph_def.node if node.op == "MutableDenseHashTableV2"]
    del node.input[1]
    for node in graph_def.node if reference else ():
        if node.op.endswith("V2") and "Table" in node.op:
            node.op = node.op[:-2]
        elif node.op == "Switch" and node.attr["T"].type == tf.resource.as_datatype_enum:
            node.op, node.attr["T"].type = "RefSwitch", tf.string.as_datatype_enum
    frozen = gr.freeze(gr.restore(gr.load(graph_def), tmp_path / "model.ckpt"), "y", "ids")
    assert f"deleted_key that a dense table needs today: [{least + 1}]" in "".join(frozen.notes)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(frozen.graph.materialize(), name="")
        assert session.run("y:0", {"ids:0": [2, 1, 5, least]}).tolist() == [20, 10, -1, 30]


def test_mutable_tables_of_saved_models_of_tensorflow_2(tmp_path: Path) -> None:
    """Their content is in the checkpoint under the paths of objects, and restored inside of a function."""
    import tensorflow as tf

    tables = tf.lookup.experimental
    module, module.inner = tf.Module(), tf.Module()
    module.table = tables.MutableHashTable(tf.string, tf.int64, -1)
    module.inner.table = tables.MutableHashTable(tf.string, tf.int64, -1)
    module.dense = tables.DenseHashTable(tf.int64, tf.int64, -1, empty_key=0, deleted_key=-7)
    for number, table in enumerate((module.table, module.inner.table)):
        table.insert(["oak", "yew"], tf.constant([5 + number, 60 + number], tf.int64))
    module.dense.insert(tf.constant([5, 61, 7], tf.int64), tf.constant([50, 610, 70], tf.int64))

    def served(words: Any) -> Any:
        first = tf.cond(tf.size(words) > 1, lambda: module.table.lookup(words), lambda: tf.zeros([1], tf.int64))
        second = module.inner.table.lookup(words)
        return {"y": tf.stack([first, second, module.dense.lookup(second)])}

    module.serve = tf.function(served, input_signature=[tf.TensorSpec([None], tf.string, name="words")])
    expected = module.serve(tf.constant(WORDS))["y"].numpy()
    assert 610 in expected
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    frozen = gr.freeze(gr.restore(gr.load(tmp_path / "model")))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(frozen.graph.materialize(), name="")
        assert session.run(frozen.fetches[0], {frozen.feeds[0]: WORDS}).tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["consts", "file", "buckets_for_unknown_words", "columns"])
def test_tables_of_saved_models_of_tensorflow_2(kind: str, tmp_path: Path) -> None:
    """They are filled inside of a function, from a file whose name is a variable."""
    import tensorflow as tf

    tmp_path.joinpath("files").mkdir()
    module = tf.Module()
    module.table = TABLES[kind](tf, tmp_path / "files")
    module.scale = tf.Variable(np.int64(3))
    module.serve = tf.function(
        lambda words: {"y": module.table.lookup(words) * module.scale},
        input_signature=[tf.TensorSpec([None], tf.string, name="words")],
    )
    expected = module.serve(tf.constant(WORDS))["y"].numpy()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    shutil.rmtree(tmp_path / "files")
    frozen = gr.freeze(gr.restore(gr.load(tmp_path / "model")))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(frozen.graph.materialize(), name="")
        found = session.run(frozen.fetches[0], {frozen.feeds[0]: WORDS})
    assert found.tolist() == expected.tolist()
