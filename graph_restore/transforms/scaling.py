"""ScaledTensor: a tensor whose slices along one axis are multiplied by numbers, piece by piece, when it is written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from graph_restore.arrays import np
from graph_restore.storage.extent import Extent
from graph_restore.tensors import LazyTensor


class ScaledTensor(LazyTensor):
    """`tensor` with the slice `i` along `axis` (its last axes from there on taken as one if the factors are as many)
    multiplied by `factors[i]`; the product is taken in float64 and rounded once."""

    def __init__(self, tensor: LazyTensor, axis: int, factors: np.ndarray[Any, Any]) -> None:
        super().__init__(tensor.name, tensor.data_type, tensor.shape)
        self.tensor = tensor
        self.factors = factors.astype(np.float64).reshape(-1)
        outer = math.prod(tensor.shape[:axis])
        self._inner = tensor.size // max(outer * self.factors.size, 1)

    def parts(self) -> Iterator[Extent | bytes]:
        rest, position, width = b"", 0, self.dtype.itemsize
        for chunk in self.tensor.chunks():
            data = rest + chunk
            whole = len(data) - len(data) % width
            rest = data[whole:]
            values = np.frombuffer(data[:whole], self.dtype).astype(np.float64)
            places = (np.arange(position, position + values.size) // max(self._inner, 1)) % self.factors.size
            yield (values * self.factors[places]).astype(self.dtype).tobytes()
            position += values.size
