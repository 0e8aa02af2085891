"""Functions that update variables, made anew without updates: they take the values and give the new ones back.

1. A handle argument whose variable the function updates becomes an argument of the variable's type. The updates in the
   body are settled as those of a graph are (see `updates`), calls within are turned first (see `carried_updates`).
2. What the variable holds when all that the function runs is done becomes one more output, where it is wanted; the body
   of a While gives it back in the argument's place.
3. What a function states to run (`control_ret`) is done before the call is. Anything else runs as soon as it can, and
   only where an output that is taken needs it: TensorFlow puts bodies in the place of calls. For which arguments there
   is nothing else is kept in `sure`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graph_restore.dtypes import DataType
from graph_restore.errors import FreezeError
from graph_restore.protos import FunctionDef, NodeDef
from graph_restore.tensors import LazyTensor
from graph_restore.transforms.aliases import Aliases, find_aliases
from graph_restore.transforms.bodies import Body
from graph_restore.transforms.contexts import Context, Contexts
from graph_restore.transforms.draft import Draft, Tensor
from graph_restore.transforms.open_calls import updates_variables
from graph_restore.transforms.order import Order
from graph_restore.transforms.returned import argument_of, is_call
from graph_restore.transforms.specialise import called_functions
from graph_restore.transforms.updates import Problems, Words
from graph_restore.transforms.values import settle_updates, turn_readers
from graph_restore.variables import Variable

Types = Mapping[int, DataType]  # argument to the type of its variable


@dataclass(frozen=True)
class Carrying:
    """A draft whose calls update nothing.

    `problems`: the variables without a certain value. `updates`: the node that takes the place of a call's update, to
    that call. `unsure`: the variables that some call may not be done with when it is. `unseen`: updates that nothing
    sees, to what they take in place of a value. `words`: of the nodes that were added.
    """

    draft: Draft
    problems: Problems = field(default_factory=dict)
    updates: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    unseen: dict[str, str] = field(default_factory=dict)
    words: Words = field(default_factory=dict)

    def check(self, settled: Draft) -> None:
        """Make sure that in this draft, its updates settled, no update stands for a value that no call gives."""
        wrong = [name for name, stand_in in self.unseen.items()
                 if name in settled.nodes and settled.nodes[name].input[0] == stand_in]  # fmt: skip
        if wrong:
            raise FreezeError(
                f"{', '.join(wrong)} would be used, and was taken to be seen by nothing; this is a defect, please "
                "report it with the model",
                nodes=dict.fromkeys(wrong, "an update that was left out"),
            )


@dataclass(frozen=True)
class Carried:
    """A function made anew: its name, the arguments whose values it uses, those that have no certain value (and why).

    `sure`: arguments all of whose reads and updates are done when a call is. For the others, `late` has the outputs
    that may come before some of them, and `runs` for each update the outputs that need it. `needs`: the arguments that
    anything in it needs.
    """

    name: str
    reads: frozenset[int]
    problems: dict[int, tuple[str, str]]
    sure: frozenset[int]
    late: dict[int, frozenset[int]]
    runs: dict[int, list[frozenset[int]]]
    needs: frozenset[int]


CarryUpdates = Callable[..., Carrying]


@dataclass
class CarriedFunctions:
    """The functions of one library that are made anew, each once for the same arguments."""

    carry: CarryUpdates
    made: dict[str, Any] = field(default_factory=dict)
    payloads: dict[tuple[str, str], LazyTensor] = field(default_factory=dict)
    _known: dict[Any, Carried] = field(default_factory=dict)
    _updated: dict[str, dict[int, str]] = field(default_factory=dict)
    _updating: dict[str, bool] = field(default_factory=dict)

    def updated(self, draft: Draft, name: str) -> dict[int, str]:
        """Argument to what updates it, for those of function `name` that it, or what it calls, updates."""
        if name not in self._updated:
            self._updated[name] = {}  # of a function that calls itself
            if updates_variables(draft, name, self._updating):
                self._updated[name] = self._find_updated(draft, name)
        return self._updated[name]

    def _find_updated(self, draft: Draft, name: str) -> dict[int, str]:
        body = Body(draft, name)
        numbers = {argument: number for number, argument in enumerate(body.arguments)}
        handles = [_variable(argument.name, DataType.DT_FLOAT) for argument in body.function.signature.input_arg
                   if argument.type == DataType.DT_RESOURCE]  # fmt: skip
        found: dict[int, str] = {}
        for access in find_aliases(body.draft, handles).accesses:
            node = body.draft.nodes[access.node]
            if access.updates:
                found.setdefault(numbers[access.variable], f"{node.name} ({node.op}) of function {name}")
            elif is_call(node, draft.graph.functions):
                for item in called_functions(node, draft.graph.functions):
                    inner = self.updated(draft, function_name(item))
                    if (argument := argument_of(node, access.position)) in inner:
                        found.setdefault(numbers[access.variable], inner[argument])
        return found

    def carried(self, draft: Draft, name: str, types: Types, wanted: frozenset[int], loop: bool) -> Carried:
        """Function `name` with the values of the arguments `types`, giving back those of `wanted`."""
        key = (name, tuple(sorted(types.items())), wanted, loop)
        if key not in self._known:
            self._known[key] = _Making(self, draft, name, types, wanted, loop).result()
        return self._known[key]

    def free_name(self, draft: Draft, name: str) -> str:
        number = 1
        while f"{name}_carried_{number}" in {**draft.graph.functions, **draft.functions, **self.made}:
            number += 1
        return f"{name}_carried_{number}"


def function_name(item: Any) -> str:
    """The function that a NameAttrList, or a node whose op is a function, names."""
    return str(item.op if hasattr(item, "op") else item.name)


def _variable(name: str, data_type: DataType) -> Variable:
    return Variable(name, "resource", data_type, None)


class _Making:
    """One function, on its way."""

    def __init__(
        self, library: CarriedFunctions, draft: Draft, name: str, types: Types, wanted: frozenset[int], loop: bool
    ) -> None:
        self._library, self._outer, self._name = library, draft, name
        self._types, self._wanted, self._loop = types, wanted, loop
        self._body = Body(draft, name)
        self._body.function = FunctionDef.FromString(self._body.function.SerializeToString())  # outputs are added to it
        self._variables = [_variable(self._body.arguments[number], types[number]) for number in types]

    def result(self) -> Carried:
        body = self._body
        handles = find_aliases(body.draft, self._variables).tensors
        given_back = {position: handles[item] for position, item in enumerate(body.returned) if item in handles}
        plain = [item for item in body.returned if item not in handles]
        finals = self._add_finals(find_aliases(body.draft, self._variables))
        targets = [*plain, *finals.values()]
        inner = self._library.carry(body.draft, self._variables, targets, self._library)
        body.draft, problems = inner.draft, dict(inner.problems)
        problems |= {
            name: ("a call within may run it later, or not at all", name) for name in inner.unsure - problems.keys()
        }
        aliases = find_aliases(body.draft, self._variables)
        timing = self._timing(aliases, inner.updates, {name for name, _ in finals.values()})
        own = {access.node for access in aliases.accesses}
        body.runs -= {name for name in own if not is_call(body.draft.nodes[name], body.draft.graph.functions)}
        roots = body.runs | {name for name, _ in targets}
        body.draft.keep(body.draft.ancestors(roots))
        present = [variable for variable in self._variables if variable.name in body.draft.nodes]
        aliases = settle_updates(body.draft, present, targets, roots, "initial", problems, inner.words, told=False)
        inner.check(body.draft)
        self._turn_readers(aliases)
        used = body.draft.ancestors(roots)
        for position, argument in given_back.items():
            value = finals.get(argument) if self._loop else None
            body.returned[position] = value or (argument, 0)
        numbers = {argument: number for number, argument in enumerate(body.arguments)}
        return Carried(
            self._finish(given_back, finals),
            frozenset(number for number in self._types if body.arguments[number] in used),
            {numbers[variable]: problem for variable, problem in problems.items()},
            *timing,
            frozenset(number for number, argument in enumerate(body.arguments) if argument in used),
        )

    def _turn_readers(self, aliases: Aliases) -> None:
        """Turn what reads the values; functions made for calls within get names that no other function has."""
        body, library = self._body, self._library
        body.draft.functions.update(library.made)
        body.draft = body.draft.with_functions()
        body.draft.payloads.update(library.payloads)
        turn_readers(body.draft, aliases, {variable.name: variable for variable in self._variables})
        library.made.update(body.draft.functions)
        body.draft = body.draft.with_functions()

    def _timing(
        self, aliases: Aliases, calls: Mapping[str, str], finals: set[str]
    ) -> tuple[frozenset[int], dict[int, frozenset[int]], dict[int, list[frozenset[int]]]]:
        """What Carried says as `sure`, `late` and `runs`; `calls`: an update to the call it belongs to."""
        draft, returned = self._body.draft, [name for name, _ in self._body.returned]
        done = draft.ancestors(self._body.function.control_ret.values())
        order = Order(draft, Contexts(draft.nodes))
        sure: set[int] = set()
        late: dict[int, frozenset[int]] = {}
        runs: dict[int, list[frozenset[int]]] = {}
        for number in self._types:
            own = [access for access in aliases.accesses if access.variable == self._body.arguments[number]]
            loose = [access for access in own if calls.get(access.node, access.node) not in done | finals]
            outputs = {
                access.node: frozenset(
                    position
                    for position, name in enumerate(returned)
                    if access.node == name or order.before(access.node, name)
                )
                for access in loose
            }
            sure |= set() if loose else {number}
            in_time = frozenset.intersection(frozenset(range(len(returned))), *outputs.values())
            late[number] = frozenset(range(len(returned))) - in_time
            runs[number] = [outputs[access.node] for access in loose if access.updates]
        return frozenset(sure), late, runs

    def _add_finals(self, aliases: Aliases) -> dict[str, Tensor]:
        """Argument to a read of it that comes when all is done."""
        draft = self._body.draft
        contexts = Contexts(draft.nodes)
        waits = self._body.runs | {access.node for access in aliases.accesses if access.updates}
        controls = [f"^{name}" for name in draft.nodes if name in waits and contexts.of(name) == Context()]
        finals: dict[str, Tensor] = {}
        for number in sorted(self._wanted):
            argument = self._body.arguments[number]
            read = NodeDef(name=draft.free_name(f"{argument}/final"), op="ReadVariableOp", input=[argument, *controls])
            read.attr["dtype"].type = self._types[number]
            finals[argument] = (str(draft.add(read).name), 0)
        return finals

    def _finish(self, given_back: Mapping[int, str], finals: Mapping[str, Tensor]) -> str:
        body, name = self._body, self._library.free_name(self._outer, self._name)
        types = {body.arguments[number]: data_type for number, data_type in self._types.items()}
        if not self._loop:
            body.returned += finals.values()
            for argument in finals:
                body.function.signature.output_arg.add(name=f"{argument}_final", type=types[argument])
        function = body.finish(name, range(len(body.arguments)))
        for number, data_type in self._types.items():
            _become_value(function.signature.input_arg[number], data_type)
            function.arg_attr.pop(number, None)
            function.resource_arg_unique_id.pop(number, None)
        for position, argument in given_back.items():
            _become_value(function.signature.output_arg[position], types[argument])
        self._library.made[name] = function
        for (owner, node), value in body.draft.payloads.items():
            self._library.payloads[owner or name, node] = value
        return name


def _become_value(argument: Any, data_type: DataType) -> None:
    argument.type = data_type
    argument.ClearField("handle_data")
