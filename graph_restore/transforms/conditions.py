"""The branches of conds that given constants settle.

1. Nodes whose values follow from them (LogicalNot, Identity, comparisons ...) become Consts where they run in any case;
   nodes that numpy does not do exactly stay as they are.
2. A Switch whose predicate is known becomes an Identity; what only the other branch computes is gone, and with it what
   waits for that. A Merge that only one branch is left for becomes an Identity; its index output a Const.
3. A functional If or Case becomes a call of the branch taken, or that branch's nodes where it runs in any case, so that
   what is settled inside is seen as well; so do calls of functions with conds that a known argument reaches.
4. A fetch in a branch that is not taken is an error: TensorFlow would give no value for it either.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from graph_restore.arrays import np
from graph_restore.dtypes import DataType, numpy_dtype
from graph_restore.errors import FreezeError, UnsupportedFormatError
from graph_restore.names import input_name, is_control, node_of, parse_tensor_name, tensor_name
from graph_restore.protos import NodeDef
from graph_restore.transforms.constants import constant_node
from graph_restore.transforms.contexts import MERGES, NEXT_ITERATIONS, SWITCHES
from graph_restore.transforms.draft import Draft, Tensor, control_inputs
from graph_restore.transforms.inlining import can_inline, inline
from graph_restore.transforms.liveness import Liveness
from graph_restore.transforms.specialise import BRANCHES, LOOPS, called_functions, specialise

_IFS = ("If", "StatelessIf")
_CONDS = (*BRANCHES, *SWITCHES)
_MOST_ROUNDS = 100  # of inlining; a function that calls itself would take any number


def fold_conditions(draft: Draft, given: set[str], targets: Sequence[Tensor], also: Collection[str] = ()) -> None:
    """Settle what the Consts `given` settle, in what the fetches `targets` and the nodes `also` need.

    FreezeError for a fetch that then never has a value. New functions are in the draft's `functions`.
    """
    seeds, opened = set(given), set[str]()
    for _ in range(_MOST_ROUNDS):
        if not seeds:
            return
        round_of = _Round(draft, seeds, targets, also, opened)
        round_of.rewrite()
        seeds |= round_of.settled
        opened |= round_of.inlined
        if not round_of.inlined:
            return
    raise FreezeError(
        f"functions call one another without end: {', '.join(sorted(round_of.inlined)[:5])}",
        nodes=dict.fromkeys(round_of.inlined, "calls without end"),
    )


class _Round:
    """One pass over a draft: everything that is settled is written down."""

    def __init__(
        self, draft: Draft, seeds: set[str], targets: Sequence[Tensor], also: Collection[str], opened: set[str]
    ) -> None:
        self._draft = draft
        self._given = seeds
        self._fetched = set(targets)
        self._live = Liveness(draft, seeds, draft.ancestors({name for name, _ in targets} | set(also)), opened)
        self._moved: dict[str, str] = {}  # input to what takes its place
        self._made_anew: set[str] = set()  # loops that may have lost outputs
        self.settled: set[str] = set()
        self.inlined: set[str] = set()

    def rewrite(self) -> None:
        for name, index in self._fetched:
            if self._live.is_dead((name, index)):
                raise FreezeError(
                    f"{tensor_name(name, index)} never has a value: it lies in a branch that is not taken, given "
                    f"{', '.join(sorted(self._given)[:3])}; fetch what the branches give, or another constant",
                    nodes={name: "in a branch that is not taken"},
                )
        if self._live.odd:
            self._refuse_odd(min(self._live.odd))
        for name in self._live.order:
            if name not in self._live.dead:
                self._rewrite_node(self._draft.nodes[name])
        self._drop_dead()
        self._move_inputs()
        self._forget_settled()

    def _rewrite_node(self, node: Any) -> None:
        if node.op in SWITCHES and node.name in self._live.taken:
            self._pass_through(node, node.input[0], self._live.taken[node.name], [node.input[1]])
        elif node.op in MERGES:
            self._settle_merge(node)
        elif node.op == "Select":
            self._settle_select(node)
        elif node.op == "RefSelect":
            index = self._live.known.get(parse_tensor_name(node.input[0]))
            if index is not None:
                self._pass_through(node, node.input[1 + int(index)], 0, [node.input[0]])
        elif called_functions(node, self._draft.graph.functions):
            self._settle_call(node)
        self._settle_value(self._draft.nodes[node.name])

    def _settle_value(self, node: Any) -> None:
        """A node of one output whose value is known in every run becomes a Const."""
        tensor = (node.name, 0)
        value = self._live.known.get(tensor)
        sure = node.name in self._live.sure and tensor not in self._live.loose
        several = (node.name, 1) in self._live.known and node.name not in self._live.taken
        if value is None or not sure or several or node.op == "Const":
            return
        if node.op in SWITCHES or node.op == "IdentityN":
            return
        number = self._type_of(node)
        if number and value.dtype == numpy_dtype(number):
            self._draft.add(constant_node(node.name, number, value, control_inputs(node)))
            self.settled.add(node.name)

    def _type_of(self, node: Any) -> int:
        try:
            return int(self._draft.graph.ops.output_types(node)[0])
        except (UnsupportedFormatError, IndexError):
            return 0

    def _pass_through(self, node: Any, data: str, index: int, also: Sequence[str], second: str = "") -> None:
        """Make a node pass one input on, from its output `index`; it comes only when the inputs `also` come."""
        controls = [*control_inputs(node), *(self._waiting_for(item) for item in also if not self._is_sure(item))]
        number = node.attr["T"].type
        passer = NodeDef(name=node.name, device=node.device)
        if (node.name, 1) in self._fetched or second:  # it keeps two outputs
            passer.op, types = "IdentityN", [number, DataType.DT_INT32 if second else number]
            passer.input.extend([data, second or data])
            passer.attr["T"].list.type.extend(types)
        else:
            passer.op = "RefIdentity" if node.op.startswith("Ref") else "Identity"
            passer.input.append(data)
            passer.attr["T"].type = number
            self._moved[input_name(node.name, index)] = node.name
        passer.input.extend(dict.fromkeys(controls))
        self._draft.add(passer)

    def _is_sure(self, item: str) -> bool:
        return self._live.is_sure(parse_tensor_name(item))

    def _waiting_for(self, item: str) -> str:
        """A control input that comes exactly when tensor `item` comes."""
        name, index = parse_tensor_name(item)
        node = self._draft.nodes[name]
        if node.op not in SWITCHES or name in self._live.taken:
            return f"^{name}"
        anchor = self._draft.free_name(f"{name}/anchor")
        op = "RefIdentity" if node.op == "RefSwitch" else "Identity"
        passer = self._draft.add(NodeDef(name=anchor, op=op, input=[input_name(name, index)]))
        passer.attr["T"].type = node.attr["T"].type
        return f"^{anchor}"

    def _settle_merge(self, node: Any) -> None:
        """Leave dead inputs away."""
        data = [item for item in node.input if not is_control(item)]
        alive = [position for position, item in enumerate(data) if not self._dead(item)]
        if len(alive) == len(data):
            return
        if any(self._live_op(item) in NEXT_ITERATIONS for item in data):
            raise FreezeError(
                f"{node.name} (Merge) of a loop has a branch that is never taken, given {', '.join(self._given)}; "
                "feed the constant instead",
                nodes={node.name: "a loop that never turns"},
            )
        if len(alive) == 1 and sum(not self._is_sure(item) for item in control_inputs(node)) > 1:
            self._refuse_odd(node.name)
        if len(alive) == 1:
            index = self._index_node(node, alive[0]) if self._takes_index(node) else ""
            self._pass_through(node, data[alive[0]], 0, [], index)
        else:
            self._shorten_merge(self._draft.change(node.name), data, alive)

    def _refuse_odd(self, name: str) -> None:
        raise FreezeError(
            f"{name} (Merge) waits for nodes of a branch that may not be taken, given {', '.join(sorted(self._given))};"
            " whether TensorFlow runs it is not certain; feed the constant, or what the Merge gives",
            nodes={name: "a Merge that waits for a branch"},
        )

    def _shorten_merge(self, node: Any, data: list[str], alive: list[int]) -> None:
        if self._takes_index(node):
            raise FreezeError(
                f"{node.name} (Merge) tells which of {len(data)} inputs came, and some never come; feed its outputs",
                nodes={node.name: "its index is used"},
            )
        node.input[:] = [*(data[position] for position in alive), *control_inputs(node)]
        node.attr["N"].i = len(alive)

    def _takes_index(self, node: Any) -> bool:
        users = self._consumers_of(node.name)
        return (node.name, 1) in self._fetched or any(input_name(node.name, 1) in user.input for user in users)

    def _consumers_of(self, name: str) -> list[Any]:
        return [self._draft.nodes[user.name] for user, _ in self._draft.graph.consumers.get(name, ())
                if user.name in self._draft.nodes]  # fmt: skip

    def _index_node(self, merge: Any, index: int) -> str:
        """A Const of a Merge's index, in the Merge's own branch."""
        name = self._draft.free_name(f"{merge.name}/value_index")
        self._draft.add(constant_node(name, DataType.DT_INT32, index, [self._waiting_for(merge.input[index])]))
        return name

    def _settle_select(self, node: Any) -> None:
        """tf.where of one kind: both of its values have the shape of the result."""
        value = self._live.known.get(parse_tensor_name(node.input[0]))
        if value is not None and value.size and (value.all() or not value.any()):
            chosen, other = (1, 2) if value.all() else (2, 1)
            self._pass_through(node, node.input[chosen], 0, [node.input[0], node.input[other]])

    def _settle_call(self, node: Any) -> None:
        tensor = parse_tensor_name(node.input[0]) if node.op in BRANCHES else ("", 0)
        value = self._live.known.get(tensor)
        if value is not None and tensor not in self._live.loose:
            called = called_functions(node, {})
            index = _branch(node.op, value, len(called))
            self._take_branch(node, called[index].name)
            return
        data = [item for item in node.input if not is_control(item)][1 if node.op in BRANCHES else 0 :]
        known = {position: self._known(item) for position, item in enumerate(data)}
        settled = {position: value for position, value in known.items() if value is not None}
        names = [item.name if item is not node else node.op
                 for item in called_functions(node, self._draft.graph.functions)]  # fmt: skip
        if not settled or not any(self._has_conds(name, set()) for name in names):
            return
        if self._opens(node, names[0]):
            inline(self._draft, node, names[0], data)
            self.inlined.add(node.name)
        else:
            self._moved.update(specialise(self._draft, node, settled, self._outputs_of(node.name), fold_conditions))
            self._made_anew.add(node.name)

    def _outputs_of(self, name: str) -> tuple[set[int], int]:
        """The outputs of a node that needed nodes take, and the last one that is fetched."""
        inputs = [parse_tensor_name(item) for user in self._live.order for item in self._draft.nodes[user].input]
        fetched = [index for source, index in self._fetched if source == name]
        return {index for source, index in inputs if source == name and index >= 0}, max(fetched, default=-1)

    def _known(self, item: str) -> Any:
        tensor = parse_tensor_name(item)
        return None if tensor in self._live.loose else self._live.known.get(tensor)

    def _opens(self, node: Any, function: str) -> bool:
        """Whether the nodes of its function can stand for a call: it runs in any case, and calls that one."""
        is_choice = node.op in BRANCHES or node.op in LOOPS
        return not is_choice and node.name in self._live.sure and can_inline(self._draft, function)

    def _has_conds(self, name: str, seen: set[str]) -> bool:
        function = self._draft.graph.functions.get(name)
        if name in seen or function is None:
            return False
        seen.add(name)
        for node in function.node_def:
            called = [item.name for item in called_functions(node, {})]
            if node.op in _CONDS or any(self._has_conds(other, seen) for other in [node.op, *called]):
                return True
        return False

    def _take_branch(self, node: Any, function: str) -> None:
        data = [item for item in node.input if not is_control(item)]
        if node.name in self._live.sure and can_inline(self._draft, function):
            inline(self._draft, node, function, data[1:])
            self.inlined.add(node.name)
            return
        changed = self._draft.change(node.name)
        changed.op = "PartitionedCall" if node.op.startswith("Stateless") else "StatefulPartitionedCall"
        waits = [] if self._is_sure(data[0]) else [self._waiting_for(data[0])]
        changed.input[:] = [*data[1:], *control_inputs(node), *waits]
        for key in [key for key in changed.attr if key not in ("Tin", "Tout")]:
            del changed.attr[key]
        changed.attr["f"].func.name = function
        self.inlined.add(node.name)

    def _dead(self, item: str) -> bool:
        return self._live.is_dead(parse_tensor_name(item))

    def _live_op(self, item: str) -> str:
        node = self._draft.nodes.get(node_of(item))
        return str(node.op) if node is not None else ""

    def _drop_dead(self) -> None:
        """Delete dead nodes, and nodes the fetches do not need that take anything of them."""
        gone = set(self._live.dead)
        for name in gone:
            del self._draft.nodes[name]
        waiting = list(gone)
        users = self._draft.consumers()
        needed = set(self._live.order)
        waiting += [name for name in {*self._live.taken, *self._made_anew} if name not in gone]
        while waiting:
            source = waiting.pop()
            for user, position in users.get(source, ()):
                lost = source in gone or source in self._made_anew or self._dead(user.input[position])
                if lost and user.name not in needed and user.name in self._draft.nodes:
                    del self._draft.nodes[user.name]
                    gone.add(user.name)
                    waiting.append(user.name)
        for name, node in list(self._draft.nodes.items()):
            if any(is_control(item) and node_of(item) in gone for item in node.input):  # a ControlTrigger
                kept = [item for item in node.input if not (is_control(item) and node_of(item) in gone)]
                self._draft.change(name).input[:] = kept

    def _move_inputs(self) -> None:
        for name, node in list(self._draft.nodes.items()):
            if any(item in self._moved for item in node.input):
                self._draft.change(name).input[:] = [self._moved.get(item, item) for item in node.input]

    def _forget_settled(self) -> None:
        """Nothing has to wait for a Const that itself waits for nothing."""
        for name in self._live.order:
            node = self._draft.nodes.get(name)
            if node is None or not any(is_control(item) for item in node.input):
                continue
            kept = [item for item in node.input if not (is_control(item) and self._is_free(node_of(item)))]
            if len(kept) < len(node.input):
                self._draft.change(name).input[:] = kept

    def _is_free(self, name: str) -> bool:
        node = self._draft.nodes[name]
        return name in self.settled | self._given and node.op == "Const" and not node.input


def _branch(op: str, value: np.ndarray[Any, Any], count: int) -> int:
    """The position of the branch taken among those of an If (then, else) or Case."""
    if op in _IFS:
        return 0 if _is_true(value) else 1
    index = int(value)
    return index if 0 <= index < count else count - 1


def _is_true(value: np.ndarray[Any, Any]) -> bool:
    """As If takes it: a scalar by its value, another tensor by having any elements."""
    if value.shape != ():
        return bool(value.size)
    return bool(len(value.item())) if value.dtype == object else bool(value.item())
