"""Values of old models in new ones: what goes where, and that the new model then computes what the old one did."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from corpus import Case, case, cases

import graph_restore as gr
from graph_restore.transforms.cells import old_cells
from graph_restore.transforms.donors import of_model, of_tensors
from graph_restore.transforms.pairing import Item, propose, role
from graph_restore.transforms.recurrent import lstm_weights

live = pytest.mark.tensorflow
MLP = case("mlp/tf1.4.1-v2")

# --- proposals -------------------------------------------------------------------------------------------------------


def items(text: str) -> list[Item]:
    """`a/kernel 2,3; b 4` as items."""
    pairs = [part.split() for part in text.split(";") if part.strip()]
    return [Item(name, tuple(int(size) for size in (sizes or [""])[0].split(",") if size)) for name, *sizes in pairs]


PROPOSALS: dict[str, tuple[str, str, dict[str, str], dict[str, list[str]]]] = {
    "by the layer's name": (
        "conv1/weights 3,3; conv1/biases 3; conv2/weights 3,3; conv2/biases 3",
        "net/conv2/kernel 3,3; net/conv2/bias 3; net/conv1/kernel 3,3; net/conv1/bias 3",
        {"net/conv2/kernel": "conv2/weights", "net/conv2/bias": "conv2/biases",
         "net/conv1/kernel": "conv1/weights", "net/conv1/bias": "conv1/biases"},
        {},
    ),
    "by the only shape": (
        "a/weights 2,3; a/biases 3; b/weights 3,4; b/biases 4",
        "d1/kernel 3,4; d1/bias 4; d0/kernel 2,3; d0/bias 3",
        {"d0/kernel": "a/weights", "d0/bias": "a/biases", "d1/kernel": "b/weights", "d1/bias": "b/biases"},
        {},
    ),
    "in order": (
        "a/weights 3,3; b/weights 3,3; c/weights 3,9",
        "d/kernel 3,3; e/kernel 3,3; f/kernel 3,8",
        {"d/kernel": "a/weights", "e/kernel": "b/weights"},
        {},
    ),
    "more than there are": (
        "a/weights 3,3; b/weights 3,3", "d/kernel 3,3", {}, {"d/kernel": ["a/weights", "b/weights"]},
    ),
    "another head": (
        "a/weights 2,3; a/biases 3; head/weights 3,5; head/biases 5",
        "d/kernel 2,3; d/bias 3; head/kernel 3,7; head/bias 7",
        {"d/kernel": "a/weights", "d/bias": "a/biases"},
        {},
    ),
    "a bias alone is no reason": ("a/weights 2,8; a/biases 8", "d/kernel 3,8; d/bias 8", {}, {}),
    "a scale that the old one has not": (
        "bn/beta 4; bn/moving_mean 4; bn/moving_variance 4",
        "norm/gamma 4; norm/beta 4; norm/moving_mean 4; norm/moving_variance 4",
        {"norm/beta": "bn/beta", "norm/moving_mean": "bn/moving_mean", "norm/moving_variance": "bn/moving_variance"},
        {},
    ),
    "without a bias": ("a/weights 2,8; a/biases 8", "d/kernel 2,8", {"d/kernel": "a/weights"}, {}),
    "batch norm by role": (
        "bn/moving_variance 4; bn/gamma 4; bn/beta 4; bn/moving_mean 4",
        "n/gamma 4; n/beta 4; n/moving_mean 4; n/moving_variance 4",
        {"n/gamma": "bn/gamma", "n/beta": "bn/beta", "n/moving_mean": "bn/moving_mean",
         "n/moving_variance": "bn/moving_variance"},
        {},
    ),
    "an embedding": (
        "words/weights 9,4; out/weights 4,2; out/biases 2", "embedding/embeddings 9,4",
        {"embedding/embeddings": "words/weights"}, {},
    ),
    "an embedding without a scope": ("table 9,4; x/weights 4,2; x/biases 2", "embedding/embeddings 9,4",
                                     {"embedding/embeddings": "table"}, {}),
    "plain variables": (
        "a/weights 2,3; a/biases 3; b/weights 3,3; c/weights 3,3", "w1 2,3; v 3; w2 3,3; w3 3,3",
        {"w1": "a/weights", "v": "a/biases", "w2": "b/weights", "w3": "c/weights"}, {},
    ),
    "plain variables, too few": ("a/weights 3,3; c/weights 3,3", "w2 3,3", {}, {"w2": ["a/weights", "c/weights"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", PROPOSALS)
def test_proposals(name: str) -> None:
    sources, targets, pairs, ambiguous = PROPOSALS[name]
    found = propose(items(sources), items(targets))
    assert {pair.target: pair.source for pair in found.pairs} == pairs
    assert found.ambiguous == ambiguous


def test_pairs_by_order_say_so() -> None:
    found = propose(items("a/w 3,3; b/w 3,3"), items("d/kernel 3,3; e/kernel 3,3"))
    assert [pair.how for pair in found.pairs] == [
        f"same roles and shapes, 2 such: number {n} in order" for n in (1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a/weights", "kernel"), ("Matrix", "kernel"), ("a/b/Bias", "bias"), ("a/biases", "bias"), ("x/other", "other")],
)
def test_roles(name: str, expected: str) -> None:
    assert role(name) == expected


def test_what_only_training_needs_is_aside() -> None:
    weights = ["hidden/weights", "hidden/biases", "logits/weights", "logits/biases"]
    for donors in (of_model(gr.restore(gr.load(MLP.meta))), of_tensors(gr.load_checkpoint(MLP.prefix))):
        assert sorted(item.name for item in donors.items()) == sorted(weights)
        assert set(donors.values) == set(MLP.oracle["checkpoint"][""])


def test_partitioned_variables_are_put_together() -> None:
    one = case("partitioned/tf1.15.5-v2")
    donors = of_model(gr.restore(gr.load(one.meta)))
    table = donors.values["embedding/table"].read()
    np.testing.assert_array_equal(table, one.oracle["checkpoint"][""]["embedding/table"])
    assert donors.aside["embedding/table/Adagrad"].startswith("a slot")
    assert not any("part_" in item.name for item in donors.items())


def test_names_of_checkpoints_are_in_natural_order() -> None:
    donors = of_tensors({f"layer_{number}/w": np.zeros(1) for number in (10, 9, 1)})
    assert list(donors.values) == ["layer_1/w", "layer_9/w", "layer_10/w"]


def test_the_gates_of_an_lstm() -> None:
    """One input, one unit: the columns are the gates i, j, f, o."""
    kernel, recurrent, bias = lstm_weights(
        np.array([[1, 2, 3, 4], [5, 6, 7, 8]], "float32"), np.array([10, 20, 30, 40], "float32"), 0.5
    )
    assert (kernel.tolist(), recurrent.tolist(), bias.tolist()) == ([[1, 3, 2, 4]], [[5, 7, 6, 8]], [10, 30.5, 20, 40])


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("rnn/basic_lstm_cell/kernel 5,8; rnn/basic_lstm_cell/bias 8", [("LSTM", 3, 2)]),
        ("RNN/BasicLSTMCell/Linear/Matrix 5,8; RNN/BasicLSTMCell/Linear/Bias 8", [("LSTM", 3, 2)]),
        ("dense/kernel 5,8; dense/bias 8", []),
        ("rnn/gru_cell/gates/kernel 5,4; rnn/gru_cell/gates/bias 4; rnn/gru_cell/candidate/kernel 5,2; "
         "rnn/gru_cell/candidate/bias 2", [("GRU", 3, 2)]),
        ("RNN/GRUCell/Gates/Linear/Matrix 5,4; RNN/GRUCell/Gates/Linear/Bias 4; "
         "RNN/GRUCell/Candidate/Linear/Matrix 5,2; RNN/GRUCell/Candidate/Linear/Bias 2", [("GRU", 3, 2)]),
    ],
)  # fmt: skip
def test_old_cells(text: str, kinds: list[tuple[str, int, int]]) -> None:
    assert [(cell.kind, cell.inputs, cell.units) for cell in old_cells(items(text))] == kinds


# --- into Keras ------------------------------------------------------------------------------------------------------


def keras_convnet() -> Any:
    import keras

    return keras.Sequential([
        keras.Input([6, 6, 1]),
        keras.layers.Conv2D(4, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.8),
        keras.layers.ReLU(),
        keras.layers.MaxPool2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(5),
    ])  # fmt: skip


def by_auto(one: Case, model: Any) -> Any:
    plan = gr.transfer(one.meta or one.prefix, model, "auto")
    assert not plan.applied and not plan.ambiguous
    return plan.apply()


def by_scopes(one: Case, model: Any) -> Any:
    conv, norm, dense = (model.layers[index].name for index in (0, 1, 5))
    return gr.transfer(one.prefix, model, {"conv/": f"{conv}/", "norm/": f"{norm}/", "scores/": f"{dense}/"})


def by_layers(one: Case, model: Any) -> Any:
    layers = {"conv": model.layers[0], "norm/": model.layers[1], "scores": model.layers[5]}
    return gr.transfer(gr.restore(gr.load(one.graph_pb), one.prefix), model, layers)


def by_rename(one: Case, model: Any) -> Any:
    conv, norm, dense = (model.layers[index].name for index in (0, 1, 5))
    rename = {
        "conv/": f"{conv}/",
        "norm/": f"{norm}/",
        "scores/weights": f"{dense}/kernel",
        "scores/biases": f"{dense}/bias",
    }
    return gr.transfer(one.meta, model, rename=rename)


@live
@pytest.mark.parametrize("how", [by_auto, by_scopes, by_layers, by_rename], ids=lambda how: how.__name__)
@pytest.mark.parametrize("one", cases("convnet"), ids=lambda one: one.id)
def test_a_convnet_in_keras_gives_what_the_old_one_gave(one: Case, how: Callable[[Case, Any], Any]) -> None:
    model = keras_convnet()
    done = how(one, model)
    assert done.applied and not done.kept and len(done.pairs) == 7
    images, expected = one.oracle["feeds"]["images:0"], one.oracle["outputs"]["scores/out:0"]
    np.testing.assert_allclose(model(images, training=False), expected, rtol=1e-4, atol=1e-5)


@live
@pytest.mark.parametrize("how", ["auto", "scope", "layer"])
@pytest.mark.parametrize("one", cases("lstm_static"), ids=lambda one: one.id)
def test_an_lstm_in_keras_gives_what_the_old_one_gave(one: Case, how: str) -> None:
    import keras

    model = keras.Sequential([keras.Input([3, 3]), keras.layers.LSTM(3, return_sequences=True)])
    scope = re.sub("[^/]*$", "", next(iter(gr.load(one.graph_pb).variables)).name)
    goal = {"auto": "auto", "scope": {scope: "lstm_cell/"}, "layer": {scope: model.layers[0]}}[how]
    values = dict(gr.load_checkpoint(one.prefix))
    if how == "auto":
        refused = gr.transfer(values, model, "auto")
        assert not refused.pairs and "forget_bias=1.0" in str(refused)
    else:
        with pytest.raises(gr.RestoreError, match=r"pass forget_bias=1\.0"):
            gr.transfer(values, model, goal)
    source = gr.restore(gr.load(one.graph_pb), one.prefix)
    done = gr.transfer(source, model, goal)  # whose graph tells the forget bias
    assert done.apply() is done and len(done.pairs) == 3 and not done.kept and not done.unused
    assert all("forget bias 1)" in f"{pair.how})" for pair in done.pairs)
    found = model(one.oracle["feeds"]["x:0"])
    np.testing.assert_allclose(found, one.oracle["outputs"]["y:0"], rtol=1e-4, atol=1e-6)
    assert gr.transfer(values, model, done.mapping, forget_bias=1.0).mapping == done.mapping


def old_gru(x: Any, w: dict[str, Any]) -> Any:
    """The states of a GRUCell as tensorflow/python/ops/rnn_cell_impl.py of 1.x computes them."""

    def sigmoid(value: Any) -> Any:
        return 1 / (1 + np.exp(-value))

    h = np.zeros([x.shape[0], 4])
    states = []
    for step in range(x.shape[1]):
        gates = sigmoid(
            np.concatenate([x[:, step], h], 1) @ w["rnn/gru_cell/gates/kernel"] + w["rnn/gru_cell/gates/bias"]
        )
        r, u = np.split(gates, 2, axis=1)
        both = np.concatenate([x[:, step], r * h], 1)
        c = np.tanh(both @ w["rnn/gru_cell/candidate/kernel"] + w["rnn/gru_cell/candidate/bias"])
        h = u * h + (1 - u) * c
        states.append(h)
    return np.stack(states, 1)


@live
@pytest.mark.parametrize("mapping", ["auto", {"rnn/gru_cell/": "gru_cell/"}])
def test_a_gru_in_keras_gives_what_the_old_one_gave(mapping: Any) -> None:
    import keras

    random = np.random.default_rng(0)
    shapes = {"gates/kernel": [7, 8], "gates/bias": [8], "candidate/kernel": [7, 4], "candidate/bias": [4]}
    old = {f"rnn/gru_cell/{name}": random.normal(0, 1, shape).astype("float32") for name, shape in shapes.items()}
    x = random.normal(0, 1, [2, 5, 3]).astype("float32")
    other = keras.Sequential([keras.Input([5, 3]), keras.layers.GRU(4)])
    if mapping == "auto":
        assert "reset_after=False" in str(gr.transfer(old, other, mapping))
    else:
        with pytest.raises(gr.RestoreError, match="reset_after=False"):
            gr.transfer(old, other, mapping)
    model = keras.Sequential([keras.Input([5, 3]), keras.layers.GRU(4, return_sequences=True, reset_after=False)])
    done = gr.transfer(old, model, mapping).apply()
    assert len(done.pairs) == 3 and not done.unused
    np.testing.assert_allclose(model(x), old_gru(x, old), rtol=1e-4, atol=1e-5)


@live
def test_peepholes_are_refused() -> None:
    import keras

    one = case("lstm_dynamic/tf1.15.5-v2")
    model = keras.Sequential([keras.Input([5, 3]), keras.layers.LSTM(4)])
    with pytest.raises(gr.RestoreError, match="peepholes"):
        gr.transfer(one.meta, model, {"rnn/lstm_cell/": model.layers[0]}, forget_bias=1.0)
    plan = gr.transfer(one.meta, model, "auto", forget_bias=1.0)
    assert not plan.pairs and "peepholes" in str(plan)


@live
@pytest.mark.parametrize("source", [MLP.meta, MLP.prefix], ids=["model", "checkpoint"])
def test_another_head_is_left_alone(source: Any) -> None:
    import keras

    model = keras.Sequential([keras.Input([6]), keras.layers.Dense(10, "relu"), keras.layers.Dense(7)])
    head = [weight.numpy() for weight in model.layers[1].weights]
    plan = gr.transfer(source, model, "auto")
    before = model.layers[0].kernel.numpy()
    text = str(plan)
    assert "2 values proposed, nothing is given" in text and "unused     logits/weights" in text
    assert "aside      hidden/weights/Adam, " in text and f"kept       {model.layers[1].kernel.path}" in text
    np.testing.assert_array_equal(model.layers[0].kernel.numpy(), before)
    plan.apply()
    np.testing.assert_array_equal(model.layers[0].kernel.numpy(), MLP.oracle["variables"]["hidden/weights:0"])
    np.testing.assert_array_equal(model.layers[0].bias.numpy(), MLP.oracle["variables"]["hidden/biases:0"])
    assert all((weight.numpy() == old).all() for weight, old in zip(model.layers[1].weights, head))
    assert "2 values given" in str(plan) and plan.to_dict()["applied"] is True


@live
def test_moving_averages() -> None:
    import tensorflow as tf

    target = {"w": tf.Variable(tf.zeros([6, 10]))}
    gr.transfer(MLP.meta, target, {"hidden/weights": "w"}, moving_averages=True)
    expected = MLP.oracle["checkpoint"][""]["hidden/weights/ExponentialMovingAverage"]
    np.testing.assert_array_equal(target["w"].numpy(), expected)
    gr.transfer(MLP.meta, target, {"hidden/weights": target["w"]})
    np.testing.assert_array_equal(target["w"].numpy(), MLP.oracle["variables"]["hidden/weights:0"])
    gr.transfer(MLP.prefix, target, {"hidden/weights/ExponentialMovingAverage": "w"})  # named, so taken
    np.testing.assert_array_equal(target["w"].numpy(), expected)


# --- into modules, lists and graphs ----------------------------------------------------------------------------------


def module_of(tf: Any) -> Any:
    class Dense(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self, rows: int, columns: int) -> None:
            super().__init__()
            self.w = tf.Variable(tf.zeros([rows, columns]), name="anything")
            self.b = tf.Variable(tf.zeros([columns]), name="anything")

    class Net(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.rest = Dense(6, 10), [Dense(10, 3), {"own": Dense(2, 2)}]
            self.same = self.hidden

    net = Net()
    assert len(net.variables) == 6 and tf.train.Checkpoint(net=net).save_counter is not None
    return net


@live
@pytest.mark.parametrize(
    "mapping",
    ["auto", {"hidden": "hidden/", "logits/": "rest/0/"},
     {"hidden/weights": "hidden/w", "hidden/": "hidden/", "logits/": "rest/0/"}],
)  # fmt: skip
def test_a_module_by_its_attributes(mapping: Any) -> None:
    import tensorflow as tf

    net = module_of(tf)
    if isinstance(mapping, dict) and "hidden" in mapping:
        mapping = {**mapping, "hidden": net.hidden}
    if isinstance(mapping, dict) and "hidden/weights" in mapping:
        with pytest.raises(gr.RestoreError, match="hidden/w gets the value of hidden/weights already"):
            gr.transfer(MLP.meta, net, mapping)
        return
    done = gr.transfer(MLP.meta, net, mapping).apply()
    assert done.kept == ("rest/1/own/w", "rest/1/own/b")
    for variable, name in ((net.hidden.w, "hidden/weights"), (net.hidden.b, "hidden/biases"),
                           (net.rest[0].w, "logits/weights"), (net.rest[0].b, "logits/biases")):  # fmt: skip
        np.testing.assert_array_equal(variable.numpy(), MLP.oracle["variables"][f"{name}:0"])


@live
def test_a_list_of_variables_of_one_name() -> None:
    import tensorflow as tf

    variables = [tf.Variable(tf.zeros(shape), name="v") for shape in ([6, 10], [10], [3])]
    plan = gr.transfer(MLP.meta, variables, "auto").apply()
    assert [pair.target.name for pair in plan.pairs] == ["v", "v (2)", "v (3)"]
    assert [pair.source for pair in plan.pairs] == ["hidden/weights", "hidden/biases", "logits/biases"]


@live
@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_variables_of_a_live_graph() -> None:
    import tensorflow as tf

    one = case("linear/tf1.15.5-v2")
    graph = tf.Graph()
    with graph.as_default():
        gr.restore_graph(one.graph_pb)
        variables = tf.compat.v1.global_variables() + [tf.compat.v1.get_variable("new/w", [4, 3], use_resource=True)]
    with pytest.raises(gr.GraphRestoreError, match="pass session="):
        gr.transfer(one.meta, variables)
    values = {"w": np.ones([4, 3], "float32"), "b": np.ones(3, "float32")}
    with tf.compat.v1.Session(graph=graph) as session:
        gr.transfer(values, variables, {"w": "new/w"}, session=session)
        gr.transfer(one.meta, variables[:2])  # by the same names, in the default session
        found = session.run(variables)
    for array, name in zip(found, ("w", "b")):
        np.testing.assert_array_equal(array, one.oracle["variables"][f"{name}:0"])
    np.testing.assert_array_equal(found[2], values["w"])


@live
def test_dtypes_are_cast_only_when_asked() -> None:
    import tensorflow as tf

    target = tf.Variable(np.zeros([4, 3]), name="w")
    with pytest.raises(gr.RestoreError, match=r"float32 \[4, 3\], and w is float64 \[4, 3\]; pass cast=True"):
        gr.transfer(case("linear/tf1.15.5-v2").meta, target)
    gr.transfer(case("linear/tf1.15.5-v2").meta, target, cast=True)
    np.testing.assert_array_equal(target.numpy(), case("linear/tf1.15.5-v2").oracle["variables"]["w:0"])


# --- errors ----------------------------------------------------------------------------------------------------------

ERRORS: dict[str, tuple[Any, str]] = {
    "all at once": (
        {"hidden/weights": "rest/0/w", "hiden/biases": "hidden/b", "logits/": "nowhere/", "logits/biases": "hidden/w"},
        r"4 variables cannot be transferred, and none was:\n(.*\n?){4}",
    ),
    "a shape": ({"hidden/weights": "rest/0/w"}, r"is float32 \[6, 10\], and rest/0/w is float32 \[10, 3\]"),
    "a name": ({"hiden/biases": "hidden/b"}, "no such variable; near names: hidden/biases"),
    "a target": ({"hidden/biases": "hiden/b"}, "has no variable hiden/b; near names: hidden/b"),
    "two targets": ({"hidden/biases": "b"}, "b could be hidden/b or rest/0/b or rest/1/own/b"),
    "a scope without its slash": ({"hidden": "hidden/b"}, "it is a scope, write 'hidden/'"),
    "an empty scope": ({"hidden/": "nowhere/"}, "the target has no weights in nowhere/"),
    "what a layer has not": ({"": "hidden/"}, "nothing in hidden/ is certainly for it"),
}


@live
@pytest.mark.parametrize("name", ERRORS)
def test_what_does_not_fit_is_told_and_nothing_is_given(name: str) -> None:
    import tensorflow as tf

    net = module_of(tf)
    mapping, words = ERRORS[name]
    with pytest.raises(gr.RestoreError, match=words):
        gr.transfer(MLP.meta, net, {"hidden/biases": net.hidden.b, **mapping} if name == "a shape" else mapping)
    assert not any(variable.numpy().any() for variable in net.variables)


@live
def test_other_errors() -> None:
    import keras
    import tensorflow as tf

    one = case("linear/tf1.15.5-v2")
    with pytest.raises(gr.GraphRestoreError, match="call it once"):
        gr.transfer(one.meta, keras.Sequential([keras.layers.Dense(3)]), "auto")
    with pytest.raises(TypeError, match="a tf.Module, a Keras model"):
        gr.transfer(one.meta, 5, "auto")
    with pytest.raises(gr.RestoreError, match="no name of the source"):
        gr.transfer(one.meta, tf.Variable([1.0], name="other"))
    with pytest.raises(gr.RestoreError, match="unfreeze"):
        gr.transfer(gr.freeze(gr.restore(gr.load(one.meta)), "y"), tf.Variable([1.0]), "auto")
    with pytest.raises(ValueError, match="pass one of them"):
        gr.transfer(one.meta, tf.Variable([1.0]), {}, rename={})
    with pytest.raises(ValueError, match="a dict or 'auto'"):
        gr.transfer(one.meta, tf.Variable([1.0]), "automatic")
