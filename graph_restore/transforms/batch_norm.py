"""Batch norm in training form turned to inference form: moving averages in place of what the batch has.

1. A fused op with is_training gets is_training=False and, as mean and variance, the variables that average its outputs.
2. Else a batch norm is known by its inverse deviation, Rsqrt or Sqrt of (variance + a small number) where the variance
   is taken over the batch. That variance, and the mean over the same tensor, are replaced by the variables that average
   them, in the shape they have.
3. Which variable averages what is told by the updates in the whole graph (see `moving_averages`); no variable, or more
   than one, is an error: what the model does in inference is not known then.
4. The updates of those averages go: inference changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graph_restore.dtypes import REF_OFFSET, DataType
from graph_restore.errors import FreezeError, UnsupportedFormatError
from graph_restore.names import node_of, parse_tensor_name
from graph_restore.protos import NodeDef
from graph_restore.transforms.averages_sought import none_found
from graph_restore.transforms.batch_statistics import Statistics
from graph_restore.transforms.constants import constant_node
from graph_restore.transforms.contexts import SWITCHES, Contexts
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.moving_averages import FUSED, MovingAverage, moving_averages
from graph_restore.transforms.pattern import Pattern
from graph_restore.variables import RESOURCE_OPS

Shapes = Mapping[str, tuple[int | None, ...] | None]  # of variables
_MOST_LISTED = 3
_HOW = (
    "; fetch from the model's inference graph, or give the placeholder that chooses the form with constants= (--set) "
    "in place of inference"
)


class BatchNorms:
    """The batch norms among what a draft's fetches need."""

    def __init__(self, draft: Draft, former: Mapping[str, Any], shapes: Shapes, where: str = "") -> None:
        """`former`: the nodes of the graph before anything was cut off or settled; the updates are among them. Those
        of functions that were opened since are in the draft. `where`: " in function f", of a function's body."""
        self._draft = draft
        self._where = where
        self._shapes = shapes
        self._contexts = Contexts(draft.nodes)
        whole = Pattern(draft.graph, {**former, **draft.nodes}, draft.payloads)
        before = Pattern(draft.graph, former, draft.payloads)
        self._averages: dict[Tensor, dict[str, MovingAverage]] = {}
        for pattern in (before, whole):
            for average in moving_averages(pattern):
                for core in Statistics(pattern).cores(average.value):
                    self._averages.setdefault(core, {}).setdefault(average.variable, average)
        self._whole = whole
        self._statistics = Statistics(whole)
        self._done: dict[str, MovingAverage] = {}

    def turn(self, needed: Collection[str], fetches: Iterable[str]) -> list[str]:
        """Turn every batch norm among `needed`; gives the names of the nodes that were changed."""
        fused = [name for name in needed if self._draft.nodes[name].op in FUSED and _trains(self._draft.nodes[name])]
        for name in fused:
            self._turn_fused(name)
        pattern = Pattern(self._draft.graph, self._draft.nodes, self._draft.payloads)
        found: dict[Tensor, str] = {}
        statistics = Statistics(pattern)
        for name in needed:
            for core in statistics.variances_of(self._draft.nodes[name]):
                if core[0] not in fused:
                    found.setdefault(core, name)
        for core, name in found.items():
            self._turn_unfused(statistics, core, name)
        self._drop_updates()
        self._check_nothing_left(found, fetches)
        return [*fused, *found.values()]

    def _turn_fused(self, name: str) -> None:
        averages = [self._average((name, index), name, kind) for index, kind in ((1, "mean"), (2, "variance"))]
        self._refuse_in_loop(name)
        node = self._draft.change(name)
        for position, average in zip((3, 4), averages):
            read = self._read(average.variable, f"{name}/{average.variable.rpartition('/')[2]}", name)
            node.input[position] = read
        node.attr["is_training"].b = False

    def _average(self, core: Tensor, name: str, kind: str) -> MovingAverage:
        found = self._averages.get(core, {})
        if len(found) == 1:
            average = next(iter(found.values()))
            self._done[average.update] = average
            return average
        if found:
            how = f"the graph updates several averages of it ({', '.join(sorted(found))})"
        else:
            how = none_found(self._whole, self._draft.graph, core, self._known(), self._where)
        op = self._draft.nodes[name].op
        raise FreezeError(
            f"{name} ({op}){self._where} normalises by the {kind} of the batch, and {how}{_HOW}",
            nodes={name: "batch norm in training form without one moving average"},
        )

    def _known(self) -> list[MovingAverage]:
        """Every moving average, sorted by its variable."""
        found = {name: average for averages in self._averages.values() for name, average in averages.items()}
        return [found[name] for name in sorted(found)]

    def _refuse_in_loop(self, name: str) -> None:
        if self._contexts.of(name).frames:
            raise FreezeError(
                f"{name} is part of a batch norm in training form in a while loop; it cannot be turned{_HOW}",
                nodes={name: "batch norm in a loop"},
            )

    def _read(self, variable: str, name: str, user: str) -> str:
        """An input that is the variable's value."""
        node = self._draft.nodes[variable]
        if node.op not in (*RESOURCE_OPS, "Placeholder"):
            return variable
        read = NodeDef(name=self._draft.free_name(name), op="ReadVariableOp", input=[variable])
        number = node.attr["dtype"].type
        if node.op == "Placeholder":  # a function's argument; its reads tell the type
            number = self._type_read(variable)
        read.attr["dtype"].type = number
        return str(self._draft.add(read).name)

    def _type_read(self, argument: str) -> int:
        for node in self._draft.nodes.values():
            if node.op == "ReadVariableOp" and node_of(node.input[0]) == argument:
                return int(node.attr["dtype"].type)
        return int(DataType.DT_FLOAT)

    def _turn_unfused(self, statistics: Statistics, core: Tensor, name: str) -> None:
        variance = self._average(core, name, "variance")
        known = [other for other in self._averages if other[0] in self._draft.nodes and other != core]
        means = statistics.means_of(core, known)
        if len(means) != 1:
            several = sorted(variable for mean in means for variable in self._averages[mean])
            how = f"several means of the same tensor have moving averages ({', '.join(several)})"
            others = [average.variable for average in self._known() if average.variable != variance.variable]
            if not means:
                listed = f" ({', '.join(others[:_MOST_LISTED])})" if others else ""
                how = f"no other moving average{listed} is seen to be that of a plain mean of the same tensor"
            raise FreezeError(
                f"{name}{self._where} normalises by the variance of the batch, which {variance.variable} averages, and "
                f"{how}{_HOW}",
                nodes={name: "batch norm in training form without one moving average"},
            )
        self._refuse_in_loop(core[0])
        for tensor, average in ((core, variance), (means[0], self._average(means[0], name, "mean"))):
            self._replace(statistics, tensor, average)

    def _replace(self, statistics: Statistics, core: Tensor, average: MovingAverage) -> None:
        """Let everything that takes the statistic take the variable, in the statistic's shape and type."""
        read = self._read(average.variable, f"{core[0]}/{average.variable.rpartition('/')[2]}", core[0])
        read = self._in_type(read, average.variable, core)
        axes = statistics.kept_axes(core)
        if axes:
            read = self._in_shape(read, average.variable, core, axes)
        read = self._in_branch(read, core)
        for user, position in self._draft.consumers()[core[0]]:
            if parse_tensor_name(user.input[position]) == core and user.name != node_of(read):
                self._draft.change(user.name).input[position] = read

    def _type_of(self, name: str, index: int) -> int:
        try:
            number = int(self._draft.graph.ops.output_types(self._draft.nodes[name])[index])
        except (UnsupportedFormatError, IndexError):
            return 0
        return number - REF_OFFSET if number > REF_OFFSET else number

    def _in_type(self, read: str, variable: str, core: Tensor) -> str:
        wanted, own = self._type_of(*core), self._type_of(node_of(read), 0)
        if not wanted or wanted == own:
            return read
        cast = NodeDef(name=self._draft.free_name(f"{core[0]}/cast"), op="Cast", input=[read])
        cast.attr["SrcT"].type, cast.attr["DstT"].type = own, wanted
        return str(self._draft.add(cast).name)

    def _in_shape(self, read: str, variable: str, core: Tensor, axes: list[int]) -> str:
        shape = self._shapes.get(variable)
        if shape is None or any(size is None for size in shape):
            raise FreezeError(
                f"{core[0]} cannot be replaced by {variable}, whose shape is not known; restore the model first",
                nodes={core[0]: "a moving average without shape"},
            )
        rank = len(axes) + len(shape)
        ones = {axis % rank for axis in axes}
        rest = iter(shape)
        wanted = [1 if axis in ones else next(rest) for axis in range(rank)]
        dims = self._draft.add(constant_node(self._draft.free_name(f"{core[0]}/shape"), DataType.DT_INT32, wanted))
        reshape = NodeDef(name=self._draft.free_name(f"{core[0]}/moving"), op="Reshape", input=[read, dims.name])
        reshape.attr["T"].type, reshape.attr["Tshape"].type = self._type_of(*core), DataType.DT_INT32
        return str(self._draft.add(reshape).name)

    def _in_branch(self, read: str, core: Tensor) -> str:
        """The value where the statistic was computed: in a branch that is not taken there must be none."""
        if not self._contexts.of(core[0]).conds:
            return read
        controls = []
        for item in self._draft.nodes[core[0]].input:
            name, index = parse_tensor_name(item)
            if self._draft.nodes[name].op in SWITCHES and index >= 0:
                anchor = NodeDef(name=self._draft.free_name(f"{core[0]}/anchor"), op="Identity", input=[item])
                anchor.attr["T"].type = self._draft.nodes[name].attr["T"].type
                name = self._draft.add(anchor).name
            controls.append(f"^{name}")
        value = NodeDef(name=self._draft.free_name(f"{core[0]}/value"), op="Identity", input=[read, *controls])
        value.attr["T"].type = self._type_of(*core)
        return str(self._draft.add(value).name)

    def _drop_updates(self) -> None:
        """Updates of the averages give what the variable holds, and nothing waits for them."""
        for name in self._done.keys() & self._draft.nodes.keys():
            users = self._draft.consumers()[name]
            for user, _ in users:
                kept = [item for item in user.input if item != f"^{name}"]
                if len(kept) < len(user.input):
                    self._draft.change(user.name).input[:] = kept
            node = self._draft.change(name)
            number = node.attr["T"].type
            if node.op.endswith("VariableOp"):
                node.op, node.input[:] = "NoOp", []
            else:
                node.op, node.input[:] = "Identity", [node.input[0]]
            node.attr.clear()
            if node.op == "Identity":
                node.attr["T"].type = number

    def _check_nothing_left(self, found: Mapping[Tensor, str], fetches: Iterable[str]) -> None:
        """FreezeError where the fetches still use a statistic of a tensor that is normalised."""
        pattern = Pattern(self._draft.graph, self._draft.nodes, self._draft.payloads)
        left = Statistics(pattern)
        needed = self._draft.ancestors(fetches, data_only=True)
        for core, name in found.items():
            sources = self._statistics.sources(core)
            for other in needed:
                if left.is_over_batch(self._draft.nodes[other]) and left.base(self._draft.nodes[other]) & sources:
                    raise FreezeError(
                        f"{name} normalises by statistics of the batch, and {other} takes one of them that no moving "
                        f"average stands for{_HOW}",
                        nodes={other: "a statistic of the batch"},
                    )


def _trains(node: Any) -> bool:
    return node.attr["is_training"].b if "is_training" in node.attr else True
