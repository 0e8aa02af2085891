"""The two programs as text. Every name and path is written by repr, so that none can be anything but a string."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from graph_restore.dtypes import DataType, type_name
from graph_restore.runtime.made_feeds import BATCH
from graph_restore.script.facts import Facts, Feed, told

_OPEN = 4  # for sizes that nothing tells, where some past the first are open
_ROWS = "\n# There have to be {} rows: the graph adds that many of its own."
_START = '''\
"""{title}

Written by graph-restore for one model; it runs as it is. Put in your data where it says so, and keep what you need.
"""

import numpy as np
import tensorflow as tf

import graph_restore as gr

{paths}
random = np.random.default_rng(0)

# What the model is fed{order}: examples, to be replaced by your data. A size of ? is of your choice.{told}
feeds = {feeds}

# What it computes.
fetches = {fetches}

'''
_TF2 = """\
# The graph, with the checkpoint's values for its variables: they stay on disk until they are needed.
{load}
# In TensorFlow 2: a tf.Module whose variables have the old names, called with what is fed.
module = gr.as_module(model, fetches, list(feeds){assets})
for note in module.notes:
    print("note:", note)
results = module(*feeds.values())
for name, value in results.items():
    print(name, np.shape(value))

"""
_TF2_TRAIN = """\
# One step of training. This loss is a stand-in: put in your own, of the results and of what they should be.
optimizer = tf.keras.optimizers.Adam(1e-4)
with tf.GradientTape() as tape:
    results = module(*feeds.values())
    loss = tf.reduce_mean(tf.square(results[{output}]))
gradients = tape.gradient(loss, module.trainable_variables)
pairs = [pair for pair in zip(gradients, module.trainable_variables) if pair[0] is not None]
print("loss", loss.numpy(), "of", len(pairs), "variables")
if pairs:
    optimizer.apply_gradients(pairs)

"""
_TF2_SAVE = """\
# To keep it:
# tf.train.Checkpoint(module=module).save("continued/model")
# tf.saved_model.save(module, "continued/saved_model")
"""
_TF1_LOOPS = """\
# The gradients of loops that TensorFlow 1 wrote are made by its own kind of control flow.
tf.compat.v1.disable_control_flow_v2()

"""
_TF1 = """\
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    # Variables get the checkpoint's values, those it does not hold their first ones; tables are filled.
    elements, saver = gr.restore_graph({model}, {checkpoint}, return_elements={elements}{assets})
{report}
    results = session.run(elements[: len(fetches)], feeds)
    for name, value in zip(fetches, results):
        print(name, np.shape(value))

"""
_TF1_OWN = """\
    # One step of training, as the graph does it; what it is fed besides:
    train_feeds = {{
        **feeds,
{feeds}    }}
    session.run(elements[-1], train_feeds)
    print("one step of", {train_op})

"""
_TF1_NEW = """\
    # One step of training. This loss is a stand-in: put in your own, of the results and of what they should be.
    loss = tf.reduce_mean(tf.square(elements[{index}]))
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(1e-4)
    pairs = [pair for pair in optimizer.compute_gradients(loss) if pair[0] is not None]
    print("loss", session.run(loss, feeds), "of", len(pairs), "variables")
    if pairs:
        session.run(optimizer.apply_gradients(pairs), feeds)

"""
_TF1_SAVE = """\
    # To keep it, for TensorFlow of any age:
    # saver.save(session, "continued/model.ckpt")
"""


def tensorflow2_program(facts: Facts) -> str:
    """The program with `as_module` and a GradientTape."""
    restored = f"gr.restore({_load(facts)}, CHECKPOINT)\nprint(model.restoration)"
    load = f"model = {restored if facts.checkpoint is not None else _load(facts)}\n"
    text = _start(facts, "A model of TensorFlow 1 in TensorFlow 2: run it, train it.", ", in the order it takes it")
    text += _TF2.format(load=load, assets=_assets(facts))
    text += _why_not(facts) or _TF2_TRAIN.format(output=repr(facts.differentiable[0]))
    return text + _TF2_SAVE


def graph_mode_program(facts: Facts) -> str:
    """The program with `restore_graph` and a Session."""
    report = "    print(saver.restoration)\n" if facts.checkpoint is not None else ""
    own = facts.train_op is not None
    text = _start(
        facts, "A model of TensorFlow 1 in a graph and a session of today's TensorFlow: run it, train it.", ""
    )
    text += _TF1_LOOPS if facts.has_loops and not facts.untrained else ""
    text += _TF1.format(
        model=f"gr.modernize({_load(facts)})" if facts.modern else _load(facts),
        checkpoint="CHECKPOINT" if facts.checkpoint is not None else "None",
        elements=f"[*fetches, {facts.train_op!r}]" if own else "fetches",
        assets=_assets(facts),
        report=report,
    )
    if own:
        text += _TF1_OWN.format(feeds=_lines(facts.train_feeds, 8, _open_size(facts)), train_op=repr(facts.train_op))
    else:
        names = list(facts.fetches)
        text += _why_not(facts, 4) or _TF1_NEW.format(index=names.index(facts.differentiable[0]))
    return text + _TF1_SAVE if facts.checkpoint is not None else text.rstrip("\n") + "\n"


PROGRAMS: dict[str, Callable[[Facts], str]] = {"tf2": tensorflow2_program, "tf1": graph_mode_program}


def _start(facts: Facts, title: str, order: str) -> str:
    paths = f"MODEL = {facts.path!r}\n"
    if facts.checkpoint is not None:
        paths += f"CHECKPOINT = {facts.checkpoint!r}\n"
    fetches = "".join(f"    {name!r},  # {what}\n" for name, what in facts.fetches.items())
    return _START.format(
        title=title,
        paths=paths,
        order=order,
        told=_ROWS.format(_open_size(facts)) if _is_told(facts) else "",
        feeds=f"{{\n{_lines(facts.feeds, 4, _open_size(facts))}}}" if facts.feeds else "{}",
        fetches=f"[\n{fetches}]",
    )


def _load(facts: Facts) -> str:
    return f"gr.load(MODEL{f', tags={list(facts.tags)!r}' if facts.tags is not None else ''})"


def _assets(facts: Facts) -> str:
    return f", asset_dir={facts.asset_dir!r}" if facts.asset_dir is not None else ""


def _why_not(facts: Facts, indent: int = 0) -> str:
    """A comment that says why nothing is trained; its names are quoted, lest a line end in one ends the comment."""
    reason = " ".join(facts.untrained.splitlines())
    return f"{' ' * indent}# Not trained: {reason}.\n\n" if facts.untrained else ""


def _is_told(facts: Facts) -> bool:
    return any(feed.rows is not None for feed in (*facts.feeds, *facts.train_feeds))


def _open_size(facts: Facts) -> int:
    """The number for every size that is left open: one, as some have to agree, and which do is not told."""
    feeds = [*facts.feeds, *facts.train_feeds]
    told_sizes = [feed.rows for feed in feeds if feed.rows is not None]
    later = any(None in (feed.shape if feed.shape is not None else feed.needed or (None, None))[1:] for feed in feeds)
    return told_sizes[0] if told_sizes else _OPEN if later else BATCH


def _lines(feeds: Iterable[Feed], indent: int, size: int) -> str:
    rows = ((f"{feed.name!r}: {_example(feed, size)},", told(type_name(feed.dtype), feed.shape)) for feed in feeds)
    return "".join(f"{' ' * indent}{item}  # {what}\n" for item, what in rows)


def _sizes(feed: Feed, size: int) -> list[int]:
    """The shape of the example: open sizes are `size`, the last one what the weights need."""
    needed = feed.needed or ()
    stated = feed.shape if feed.shape is not None else needed if feed.needed is not None else (None, None)
    sizes = [size if known is None else known for known in stated]
    if stated and stated[-1] is None and needed and needed[-1] is not None:
        sizes[-1] = needed[-1]
    return sizes


def _example(feed: Feed, size: int) -> str:
    """An expression that gives an array which most models can be fed. Whole numbers are one, as is a single float: it
    may be the share that a dropout keeps."""
    sizes, dtype = _sizes(feed, size), type_name(feed.dtype)
    if feed.dtype is DataType.DT_STRING:
        return f"np.full({sizes}, {_string(feed)}, object)"
    if feed.dtype.name.startswith(("DT_Q", "DT_BFLOAT16", "DT_FLOAT8")):
        return f"np.zeros({sizes}, tf.{dtype}.as_numpy_dtype)"
    if dtype in ("float16", "float32", "float64"):
        return f'random.uniform(-1, 1, {sizes}).astype("{dtype}")' if sizes else f'np.ones([], "{dtype}")'
    return f'np.{"ones" if dtype.startswith(("int", "uint")) else "zeros"}({sizes}, "{dtype}")'


def _string(feed: Feed) -> str:
    if any(op.startswith("Parse") for op in feed.takers):
        return 'b""'  # a tf.Example without features
    if any(op.startswith("Decode") and op != "DecodeRaw" for op in feed.takers):
        return 'tf.io.encode_png(np.zeros([8, 8, 3], "uint8")).numpy()'
    return 'b"the"'
