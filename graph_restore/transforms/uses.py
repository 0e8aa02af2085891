"""Where the values of variables are used, reads that only pass a view on followed to their end.

A read of a ref variable gives no copy: it is a view of the variable's buffer, and so is what ops make of it that do
not compute (Identity, Reshape, a Switch; a Tile or Sum that has nothing to do). What such a view holds is settled only
where an op computes with it. A resource variable's read is a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graph_restore.names import parse_tensor_name
from graph_restore.transforms.aliases import INITIALISED_TESTS, Access, Aliases
from graph_restore.transforms.contexts import ENTERS, EXITS, MERGES, NEXT_ITERATIONS, SWITCHES, Context, Contexts
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.hidden import keeps_for_others
from graph_restore.variables import Variable

_VIEWS = frozenset(
    {
        "Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient", "Bitcast",
        "Snapshot", "CheckNumerics", "PlaceholderWithDefault", "EnsureShape", "GuaranteeConst", "Print", "Cast",
        "DebugGradientIdentity", "DebugIdentity", "Copy", "CopyHost", "Slice", "StridedSlice", "Split", "SplitV",
        "Unpack", "Pack", "ParallelConcat", "Concat", "ConcatV2", "AddN", "AccumulateNV2", "Tile", "BroadcastTo",
        "Transpose", "ConjugateTranspose", "Pad", "PadV2", "MirrorPad", "Reverse", "ReverseV2", "Roll",
        "MatrixBandPart", "BatchMatrixBandPart", "SpaceToBatch", "SpaceToBatchND", "BatchToSpace", "BatchToSpaceND",
        "Sum", "Mean", "Max", "Min", "Prod", "All", "Any", "EuclideanNorm", "Pow",  # no axes; to the power of one
        "Neg", "Reciprocal", "Inv", "Invert", "Conj", "LogicalNot",  # twice is once, to TensorFlow's optimizer
        "PyFunc", "PyFuncStateless", "EagerPyFunc", *SWITCHES, *MERGES, *ENTERS, *EXITS, *NEXT_ITERATIONS,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Use:
    """A read of a variable and a node that uses the value read ("" for a fetch)."""

    access: Access
    site: str
    context: Context


class Uses:
    """The uses of variables in a draft that has been cut to its fetches."""

    def __init__(
        self, draft: Draft, aliases: Aliases, fetches: Iterable[Tensor], variables: Mapping[str, Variable]
    ) -> None:
        self._draft = draft
        self._aliases = aliases
        self._fetches = list(fetches)
        self._variables = variables
        self._consumers = draft.consumers()

    def views(self, updated: Iterable[str]) -> set[str]:
        """The nodes that stand for, or give views of, the ref variables among `updated`."""
        names = {name for name in updated if self._variables[name].kind == "ref"}
        found = {name for (name, _), owner in self._aliases.tensors.items() if owner in names}
        waiting = list(found)
        while waiting:
            for user, _ in self._consumers.get(waiting.pop(), ()):
                if self._is_view(user) and user.name not in found:
                    found.add(user.name)
                    waiting.append(user.name)
        return found

    def of(self, variable: str, contexts: Contexts) -> list[Use]:
        """Every place where the variable's value is used."""
        uses = [use for access in self._reads(variable) for use in self._followed(access, contexts)]
        for node, index in self._fetches:  # a fetched reference is looked at when all has run
            is_reference = self._aliases.tensors.get((node, index)) == variable
            if is_reference and (self._variables[variable].kind == "ref" or not self._is_update(node)):
                uses.append(Use(Access(variable, node, -1, False), "", contexts.of_edge(node, index)))
        return uses

    def _is_update(self, node: str) -> bool:
        return any(access.updates and access.node == node for access in self._aliases.accesses)

    def _is_view(self, node: Any) -> bool:
        return (
            node.op in _VIEWS
            or node.op.startswith(("TensorArray", "TensorList"))
            or node.op in self._draft.graph.functions
            or any(value.HasField("func") or value.list.func for value in node.attr.values())
        )

    def _reads(self, variable: str) -> list[Access]:
        return [
            access
            for access in self._aliases.accesses
            if access.variable == variable
            and not access.updates
            and self._draft.nodes[access.node].op not in INITIALISED_TESTS
        ]

    def _followed(self, access: Access, contexts: Contexts) -> list[Use]:
        node = self._draft.nodes[access.node]
        copies = self._variables[access.variable].kind == "resource"
        if copies or not self._is_view(node):
            return [Use(access, access.node, contexts.of(access.node))]
        uses: list[Use] = []
        waiting = [(access.node, index, Context()) for index in self._outputs(access.node) or {0}]
        seen: set[tuple[str, int, Context]] = set()
        while waiting:
            step = waiting.pop()
            if step in seen:
                continue
            seen.add(step)
            name, index, way = step
            context = contexts.of_edge(name, index).under(way)  # the conds on the way hold past their Merge
            if (name, index) in self._fetches:
                uses.append(Use(access, "", context))
            for consumer, position in self._consumers.get(name, ()):
                if parse_tensor_name(consumer.input[position]) != (name, index):
                    continue
                if keeps_for_others(consumer):
                    uses.append(Use(access, "", context))
                if self._is_view(consumer):
                    waiting.extend((consumer.name, output, context) for output in self._outputs(consumer.name) or {0})
                else:
                    uses.append(Use(access, consumer.name, contexts.of(consumer.name).under(context)))
        return uses

    def _outputs(self, name: str) -> set[int]:
        """The outputs of a node that something takes, as a range up to the last of them."""
        taken = [
            index
            for consumer, position in self._consumers.get(name, ())
            for source, index in [parse_tensor_name(consumer.input[position])]
            if source == name
        ]
        taken += [index for source, index in self._fetches if source == name]
        return set(range(max(taken, default=-1) + 1))
