"""Which tensors are means and variances over the batch, however they are computed.

A statistic is followed back through ops that only reshape it to its core: the Mean of TensorFlow 1.3 and later, the sum
or difference that nn.moments ended in before. Its source is what it averages: x in `mean(x)`, `mean((x - m)^2)`,
`sum(x - shift) / n`. Over the batch means: along axis 0 among others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graph_restore.names import parse_tensor_name
from graph_restore.transforms.draft import Tensor
from graph_restore.transforms.pattern import PASSING, Pattern
from graph_restore.variables import VARIABLE_OPS

CORE_PASSING = frozenset({*PASSING, "Squeeze", "Reshape", "ExpandDims", "Cast", "Switch"})
_CHOICES = {"Merge": 0, "Select": 1, "SelectV2": 1}  # op to the first input it may pass on
_REDUCTIONS = ("Mean", "Sum")
_DIVISIONS = ("RealDiv", "Div", "DivNoNan", "Reciprocal", "Inv")
_ARITHMETIC = frozenset(
    {*PASSING, *_DIVISIONS, "Add", "AddV2", "Sub", "Mul", "Square", "Squeeze", "Reshape", "Cast", "Maximum"}
)
_BELOW = frozenset({*PASSING, "Cast", "Switch"})
_FUSED_OUTPUTS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_ROOTS = ("Rsqrt", "Sqrt", "Pow")
_INPUTS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")


class Statistics:
    """Statistics of tensors in a graph."""

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self._from_inputs: dict[str, bool] = {}

    def cores(self, item: str) -> set[Tensor]:
        """Where the values of an input are computed, variables left aside: one core, or one for each branch."""
        found: set[Tensor] = set()
        waiting, seen = [item], set()
        while waiting:
            tensor = parse_tensor_name(waiting.pop())
            node = self._pattern.nodes.get(tensor[0])
            if node is None or tensor in seen:
                continue
            seen.add(tensor)
            if node.op in _CHOICES:
                waiting.extend(self._pattern.inputs(node)[_CHOICES[node.op] :])
            elif node.op in CORE_PASSING and node.input:
                waiting.append(node.input[0])
            elif node.op == "Mul" and (fused := self._corrected(node)):
                waiting.extend(fused)
            elif node.op not in VARIABLE_OPS and node.op not in ("ReadVariableOp", "Const"):
                found.add(tensor)
        return found

    def _corrected(self, node: Any) -> list[str]:
        """The factors that are a fused op's variance: layers multiply it by (n - 1) / n, or by n / (n - 1)."""
        found = []
        for item in self._pattern.inputs(node):
            source = self._pattern.source(item, CORE_PASSING)
            if source is not None and source.op in _FUSED_OUTPUTS:
                found.append(item)
        return found

    def variances_of(self, node: Any) -> set[Tensor]:
        """The cores of variances over the batch, if the node is the inverse deviation of a batch norm."""
        if node.op not in _ROOTS or (node.op == "Pow" and self._pattern.number(node.input[1]) not in (0.5, -0.5)):
            return set()
        shifted = self._pattern.source(node.input[0], {*PASSING, "Cast"})
        if shifted is None or shifted.op not in ("Add", "AddV2"):
            return set()
        found = set().union(*(self.cores(item) for item in self._pattern.inputs(shifted)))
        return {core for core in found if any(self.is_over_batch(item) for item in self._reductions(core))}

    def _reductions(self, core: Tensor) -> list[Any]:
        """The sums and means that a core is made of."""
        found, waiting, seen = [], [core[0]], set()
        while waiting:
            name = waiting.pop()
            node = self._pattern.nodes.get(name)
            if node is None or name in seen:
                continue
            seen.add(name)
            if node.op in _REDUCTIONS:
                found.append(node)
            elif node.op in _ARITHMETIC:
                waiting.extend(parse_tensor_name(item)[0] for item in self._pattern.inputs(node))
        return found

    def is_over_batch(self, node: Any) -> bool:
        """Whether a node takes sums or means along axis 0 of something computed from the inputs."""
        if node.op not in _REDUCTIONS:
            return False
        axes = self._pattern.constant(node.input[1])
        return axes is not None and 0 in axes.reshape(-1).tolist() and self._moves(parse_tensor_name(node.input[0])[0])

    def _moves(self, name: str) -> bool:
        """Whether a node's value depends on what is fed."""
        if name not in self._from_inputs:
            waiting, seen = [name], {name}
            found = False
            while waiting and not found:
                node = self._pattern.nodes.get(waiting.pop())
                if node is None:
                    continue
                found = node.op in _INPUTS or node.op.startswith(("Queue", "Iterator", "Reader"))
                for item in self._pattern.inputs(node):
                    source = parse_tensor_name(item)[0]
                    if source not in seen:
                        seen.add(source)
                        waiting.append(source)
            self._from_inputs[name] = found
        return self._from_inputs[name]

    def sources(self, core: Tensor) -> set[Tensor]:
        """The tensors that a core is a statistic of, in every spelling that two statistics of one tensor may share."""
        return set().union(*(self.base(node) for node in self._reductions(core)), set())

    def base(self, reduction: Any) -> set[Tensor]:
        """What a sum or mean is taken of: the tensor, and what its square or difference is made of."""
        tensor = self._pattern.tensor(reduction.input[0], _BELOW)
        node = self._pattern.nodes.get(tensor[0])
        found = {tensor}
        if node is not None and node.op in ("Square", "SquaredDifference", "Sub", "Mul"):
            operands = self._pattern.inputs(node)
            if node.op != "Mul" or operands[0] == operands[1]:
                first = self._pattern.tensor(operands[0], _BELOW)
                found.add(first)
                inner = self._pattern.nodes.get(first[0])
                if inner is not None and inner.op == "Sub":  # the square of a difference
                    found.add(self._pattern.tensor(inner.input[0], _BELOW))
        return found

    def means_of(self, variance: Tensor, cores: Iterable[Tensor]) -> list[Tensor]:
        """Those of `cores` that may be the mean that belongs to a variance: of the same tensor, and, if that leaves
        several, made of the same sums or used in the variance."""
        sources = self.sources(variance)
        found = [core for core in cores if self.sources(core) & sources]
        if len(found) < 2:
            return found
        own = {node.name for node in self._reductions(variance)}
        beneath = {self._pattern.tensor(item, CORE_PASSING) for name in own for item in self._differences(name)}
        related = [c for c in found if c in beneath or own & {node.name for node in self._reductions(c)}]
        return related or found

    def _differences(self, reduction: str) -> list[str]:
        """What is taken off in the difference that a reduction sums up."""
        node = self._pattern.source(self._pattern.nodes[reduction].input[0], _BELOW)
        if node is not None and node.op == "Square":
            node = self._pattern.source(node.input[0], _BELOW)
        return [node.input[1]] if node is not None and node.op in ("Sub", "SquaredDifference") else []

    def kept_axes(self, core: Tensor) -> list[int]:
        """The axes that the reductions of a core leave in its shape, with size 1."""
        kept = [node for node in self._reductions(core) if "keep_dims" in node.attr and node.attr["keep_dims"].b]
        axes = self._pattern.constant(kept[0].input[1]) if kept else None
        return [] if axes is None else [int(axis) for axis in axes.reshape(-1)]
