"""Weights of TensorFlow 1's LSTM and GRU cells as Keras's layers have them.

    BasicLSTMCell, LSTMCell   kernel [inputs + units, 4 units], bias; gates i, j, f, o; adds `forget_bias` as it runs
    keras LSTM                kernel [inputs, 4 units], recurrent_kernel [units, 4 units], bias; gates i, f, c, o
    GRUCell                   gates [inputs + units, 2 units]: r, u; candidate [inputs + units, units]; biases of both
    keras GRU                 kernel, recurrent_kernel, bias; gates z (which is u), r, h; with reset_after=False

tensorflow/python/ops/rnn_cell_impl.py; keras/src/layers/rnn/lstm.py and gru.py. An old cell multiplies the reset gate
with the state before the matrix product, as `reset_after=False` does; the two forms of a GRU are different functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from graph_restore.arrays import np
from graph_restore.storage.extent import Extent
from graph_restore.tensors import LazyTensor

Array: TypeAlias = "np.ndarray[Any, Any]"
Cell = tuple[Array, Array, Array]


class MadeTensor(LazyTensor):
    """A tensor that is computed from others when it is read."""

    def __init__(self, name: str, data_type: int, shape: tuple[int, ...], make: Callable[[], Array]) -> None:
        super().__init__(name, data_type, shape)
        self._make = make

    def parts(self) -> Iterator[Extent | bytes]:
        yield np.ascontiguousarray(self._make(), self.dtype).tobytes()


def lstm_weights(kernel: Array, bias: Array, forget_bias: float) -> Cell:
    """(kernel, recurrent_kernel, bias) for a Keras LSTM that computes what the old cell does."""
    units = bias.shape[0] // 4
    whole = _reordered(kernel, (0, 2, 1, 3))
    biases = _reordered(bias, (0, 2, 1, 3))
    biases[units : 2 * units] += bias.dtype.type(forget_bias)
    return whole[:-units], whole[-units:], biases


def gru_weights(gates: Array, gates_bias: Array, candidate: Array, candidate_bias: Array) -> Cell:
    """(kernel, recurrent_kernel, bias) for a Keras GRU with reset_after=False that computes what the old cell does."""
    units = candidate_bias.shape[0]
    whole = np.concatenate([_reordered(gates, (1, 0)), candidate], axis=1)
    return whole[:-units], whole[-units:], np.concatenate([_reordered(gates_bias, (1, 0)), candidate_bias])


def _reordered(array: Array, order: tuple[int, ...]) -> Array:
    """The array with the equal parts of its last axis in another order."""
    parts = np.split(array, len(order), axis=-1)
    return np.concatenate([parts[index] for index in order], axis=-1)


def made_cell(shapes: Sequence[tuple[int, ...]], sources: Sequence[LazyTensor], make: Callable[..., Cell]) -> list[Any]:
    """The three tensors of a Keras cell, of these shapes, made from those of an old one as they are read."""

    def made(index: int) -> Callable[[], Array]:
        return lambda: make(*(source.read() for source in sources))[index]

    name, kind = sources[0].name, sources[0].data_type
    return [MadeTensor(name, kind, shape, made(index)) for index, shape in enumerate(shapes)]
