"""Updates in functions that stay calls: conds, loops and calls under them give the updated value out.

1. A call (If, Case, While, PartitionedCall, a function used as an op) of functions that update a variable takes the
   variable's value, read when the call may begin, and gives out what the variable holds at its end; functions are made
   anew for that (see `carried_functions`). The updated value is assigned after the call, and what waits for the call
   waits for that: what is left are reads and updates in the graph itself, which `updates` settles.
2. A value that nothing sees afterwards is not given out, and the function's update is dropped where its result is not
   used either.
3. Where TensorFlow may run parts of a call before or after the rest of it, a wrong order must not become a right one:
   what takes an output that comes before the update is not after it, and a loop whose next turn may begin before this
   turn's update is done has no certain result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graph_restore.dtypes import DataType
from graph_restore.names import input_name, is_control, node_of, parse_tensor_name
from graph_restore.protos import NodeDef
from graph_restore.transforms.aliases import find_aliases
from graph_restore.transforms.carried_functions import Carried, CarriedFunctions, Carrying, function_name
from graph_restore.transforms.constants import constant_node
from graph_restore.transforms.contexts import SWITCHES
from graph_restore.transforms.draft import Draft, Tensor, control_inputs
from graph_restore.transforms.returned import Returned, argument_of, is_call
from graph_restore.transforms.specialise import BRANCHES, LOOPS, called_functions
from graph_restore.transforms.updates import Problems, Updates, Words
from graph_restore.variables import Variable


@dataclass(frozen=True)
class _Call:
    """A call and, by input position, the variables its functions update and what does that."""

    name: str
    variables: dict[int, Variable]
    words: dict[int, str]


def carry_updates(
    draft: Draft, variables: Iterable[Variable], fetches: Iterable[Tensor], functions: CarriedFunctions | None = None
) -> Carrying:
    """The draft as one in which no call updates `variables`; `fetches`: what is taken of it."""
    handles = [variable for variable in variables if variable.kind == "resource" and variable.name in draft.nodes]
    targets, functions = list(fetches), functions or CarriedFunctions(carry_updates)
    calls = _updating_calls(draft, handles, functions) if draft.graph.functions else []
    wanted: set[tuple[str, int]] = set()  # call and input position whose updated value is seen
    while calls:
        turning = _Turning(draft, handles, calls, wanted, functions, targets)
        result = turning.result()
        seen = Updates(result, find_aliases(result, handles), targets, handles).that_matter()
        more = {turning.updates[name] for name in seen & turning.updates.keys()} - wanted
        if not more:
            updates = {update: call for update, (call, _) in turning.updates.items()}
            return Carrying(result, turning.problems, updates, turning.unsure, turning.unseen, turning.words)
        wanted |= more
    return Carrying(draft)


def _updating_calls(draft: Draft, variables: list[Variable], functions: CarriedFunctions) -> list[_Call]:
    named = {variable.name: variable for variable in variables}
    aliases = find_aliases(draft, variables)
    found: dict[str, _Call] = {}
    for access in aliases.accesses:
        node = draft.nodes[access.node]
        if access.variable in aliases.merged or not is_call(node, draft.graph.functions):
            continue
        for item in called_functions(node, draft.graph.functions):
            words = functions.updated(draft, function_name(item)).get(argument_of(node, access.position))
            if words is not None:
                call = found.setdefault(node.name, _Call(node.name, {}, {}))
                call.variables[access.position] = named[access.variable]
                call.words.setdefault(access.position, words)
    return [found[name] for name in draft.nodes if name in found]


@dataclass(frozen=True)
class _Waits:
    """The updates of a call: the nodes that assign the values, by input position, and the functions made for it."""

    node: Any
    assigned: Mapping[int, str]
    made: list[Carried]

    def of(self, index: int) -> list[str]:
        """What to wait for to be after the updates that are done when output `index` comes; -1: when the call is."""
        arguments = {argument_of(self.node, position): update for position, update in self.assigned.items()}
        done = [all(self._is_done(carried, argument, index) for carried in self.made) for argument in arguments]
        return [f"^{update}" for update, is_done in zip(arguments.values(), done) if is_done]

    def _is_done(self, carried: Carried, argument: int, index: int) -> bool:
        loop = self.node.op in LOOPS  # which is over when the last turn is
        return argument in carried.sure or (index >= 0 and (loop or index not in carried.late[argument]))


class _Turning:
    """A draft in which the calls carry values. `updates`: the node that assigns a value after a call, to that call and
    the input position of the variable; `unsure`, `problems`: as in Carrying."""

    def __init__(
        self,
        draft: Draft,
        variables: list[Variable],
        calls: list[_Call],
        wanted: set[tuple[str, int]],
        functions: CarriedFunctions,
        targets: list[Tensor],
    ) -> None:
        self._draft = Draft(draft.finish())
        self._draft.notes = draft.notes
        self._variables = variables
        self._calls = calls
        self._wanted = wanted
        self._functions = functions
        self._targets = targets
        self._aliases = find_aliases(self._draft, variables)
        self._names = {call.name for call in calls}
        self.updates: dict[str, tuple[str, int]] = {}
        self.unsure: set[str] = set()
        self.unseen: dict[str, str] = {}
        self.words: Words = {}
        self.problems: Problems = {}

    def result(self) -> Draft:
        for call in self._calls:
            self._turn(call)
        return self._draft.with_functions()

    def _problem(self, call: _Call, position: int, text: str) -> None:
        variable = call.variables[position].name
        named = self._named(call, position)
        self.problems.setdefault(variable, (f"{named} updates {variable}: {text}", call.name))

    def _named(self, call: _Call, position: int) -> str:
        return f"{call.name} ({self._draft.nodes[call.name].op}: {call.words[position]})"

    def _check(
        self, node: Any, call: _Call, made: list[Carried], wanted: frozenset[int], taken: frozenset[int]
    ) -> None:
        """Problems of functions, of a variable taken twice, of updates that need not run or may run too late."""
        for position, variable in call.variables.items():
            argument = argument_of(node, position)
            for carried in made:
                if argument in carried.problems:
                    inner = re.escape(self._function(carried).signature.input_arg[argument].name)
                    text = carried.problems[argument][0]
                    self._problem(call, position, variable.name.join(re.split(rf"(?<![\w/]){inner}(?![\w/])", text)))
            if argument not in wanted.union(*(carried.reads for carried in made)):
                continue
            own = [item for item in self._aliases.accesses if item.variable == variable.name]
            if sum(item.node == call.name for item in own) > 1:
                self._problem(call, position, "it takes the variable twice")
            bodies = made[1:] if node.op in LOOPS else made
            loose = [outputs for carried in bodies for outputs in carried.runs[argument]]
            if argument in wanted and any(not taken & outputs for outputs in loose):
                self._problem(call, position, "nothing that is taken needs it, and it may not run")
            if any(argument not in carried.sure for carried in bodies):
                self.unsure.add(variable.name)
                if any(item.node != call.name and (item.updates or item.node in self._names) for item in own):
                    self._problem(call, position, "that may come later than the call, and others update it as well")
            if node.op in LOOPS:
                self._check_turns(node, call, position, *made)

    def _turn(self, call: _Call) -> None:
        draft, node = self._draft, self._draft.change(call.name)
        users = [(user.name, position) for user, position in draft.consumers().get(call.name, ())]
        returned = Returned(draft.graph.functions)
        handles = {index: position for position in call.variables for index in returned.outputs(node, position)}
        count = len(self._function(self._items(node)[-1]).signature.output_arg)
        taken = {index for name, index in self._targets if name == call.name}
        taken |= {parse_tensor_name(draft.nodes[name].input[position])[1] for name, position in users} - {-1}
        made, wanted = self._make(node, call, frozenset(taken))
        for item, carried in zip(self._items(node), made):
            if item is node:
                item.op = carried.name
            else:
                item.name = carried.name
        sources = {position: node.input[position] for position in call.variables}
        outputs = self._give_out(node, call, wanted, count, handles)
        assigned: dict[int, str] = {}
        for position, variable in call.variables.items():
            argument, source = argument_of(node, position), sources[position]
            read = self._add_read(node, variable, source)
            is_read = any(argument in carried.reads for carried in made)
            node.input[position] = read if is_read else self._add_nothing(node, variable, source)
            assigned[position] = self._add_update(node, variable, source, outputs.get(argument, read))
            words = self._named(call, position)
            self.words |= {read: (call.name, call.name), assigned[position]: (call.name, words)}
            if argument not in outputs:
                self.unseen[assigned[position]] = read
            self.updates[assigned[position]] = (call.name, position)
        waits = _Waits(node, assigned, made[1:] if node.op in LOOPS else made)
        self._lead_users(node, users, waits, {index: sources[handles[index]] for index in handles})

    def _items(self, node: Any) -> list[Any]:
        return called_functions(node, self._draft.graph.functions)

    def _function(self, item: Any) -> Any:
        return self._draft.function(function_name(item))

    def _make(self, node: Any, call: _Call, taken: frozenset[int]) -> tuple[list[Carried], frozenset[int]]:
        """The functions of a call made anew, and the arguments whose last value they give; `taken`: outputs used."""
        types = {argument_of(node, position): variable.data_type for position, variable in call.variables.items()}
        wanted = frozenset(argument_of(node, position) for name, position in self._wanted if name == call.name)
        loop = node.op in LOOPS
        while True:
            made = []
            for number, item in enumerate(self._items(node)):
                inner = loop and number > 0
                given = wanted if inner or not loop else frozenset()
                made.append(self._functions.carried(self._draft, function_name(item), types, given, inner))
            reads = frozenset().union(*(carried.reads for carried in made))
            if not loop or reads <= wanted:
                break
            wanted |= reads  # the next turn reads what this one has made of it
        self._draft.functions.update(self._functions.made)
        self._draft.payloads.update(self._functions.payloads)
        self._check(node, call, made, wanted, taken | made[0].needs if loop else taken)
        return made, wanted

    def _check_turns(self, node: Any, call: _Call, position: int, condition: Carried, body: Carried) -> None:
        """A problem where the condition updates a variable, or a turn may begin before the one before is done."""
        name = function_name(self._items(self._draft.graph.nodes[node.name])[0])
        argument = argument_of(node, position)
        if argument in self._functions.updated(self._draft, name):
            self._problem(call, position, "the condition of a loop does that")
        waits = argument not in condition.reads and bool(condition.needs - body.late[argument])
        if argument not in body.sure and not waits:
            self._problem(call, position, "the next turn may begin before this one has done that")

    def _give_out(
        self, node: Any, call: _Call, wanted: frozenset[int], count: int, handles: Mapping[int, int]
    ) -> dict[int, str]:
        """State the call's new types; gives argument to the output that is the variable's last value."""
        types = {argument_of(node, position): variable.data_type for position, variable in call.variables.items()}
        for key in ("Tin", "T"):
            listed: Any = node.attr[key].list.type if key in node.attr else ()
            for argument in [argument for argument in types if argument < len(listed)]:
                listed[argument] = types[argument]
        shapes: Any = node.attr["output_shapes"].list.shape if "output_shapes" in node.attr else ()
        for index, position in handles.items():
            if "Tout" in node.attr:
                node.attr["Tout"].list.type[index] = call.variables[position].data_type
            if index < len(shapes):
                shapes[index].Clear()
                shapes[index].unknown_rank = True
        if node.op in LOOPS:
            return {argument: input_name(node.name, argument) for argument in wanted}
        given = sorted(wanted)
        if "Tout" in node.attr:
            node.attr["Tout"].list.type.extend(types[argument] for argument in given)
        if len(shapes):
            for _ in given:
                shapes.add(unknown_rank=True)
        return {argument: input_name(node.name, count + number) for number, argument in enumerate(given)}

    def _add_read(self, node: Any, variable: Variable, handle: str) -> str:
        """A read of what the variable holds when the call may begin."""
        waits = dict.fromkeys(control_inputs(node))
        data = [item for item in node.input if not is_control(item)]
        if node.op in BRANCHES or node.op in LOOPS:
            data = data[:1] if node.op in BRANCHES else []  # the other inputs may come later
        for item in data:
            name = node_of(item)
            if name in self._draft.nodes and self._draft.nodes[name].op not in SWITCHES:
                waits[f"^{name}"] = None
        waits.pop(f"^{node_of(handle)}", None)
        return self._add(f"{node.name}/read_{_last(variable)}", "ReadVariableOp", [handle, *waits], variable)

    def _add_nothing(self, node: Any, variable: Variable, handle: str) -> str:
        """A value for an argument that is not used any more."""
        source = node_of(handle)
        controls = [f"^{source}"] if source != variable.name else control_inputs(node)[:1]
        value: Any = b"" if variable.data_type == DataType.DT_STRING else 0
        name = self._draft.free_name(f"{node.name}/unused_{_last(variable)}")
        return str(self._draft.add(constant_node(name, variable.data_type, value, controls)).name)

    def _add_update(self, node: Any, variable: Variable, handle: str, value: str) -> str:
        inputs = [handle, value, f"^{node.name}"]
        return self._add(f"{node.name}/update_{_last(variable)}", "AssignVariableOp", inputs, variable)

    def _add(self, name: str, op: str, inputs: list[str], variable: Variable) -> str:
        node = NodeDef(name=self._draft.free_name(name), op=op, input=inputs)
        node.attr["dtype"].type = variable.data_type
        return str(self._draft.add(node).name)

    def _lead_users(self, node: Any, users: list[tuple[str, int]], waits: _Waits, handles: Mapping[int, str]) -> None:
        """What waits for the call waits for its updates too."""
        after: dict[int, str] = {}
        for name, position in users:
            user = self._draft.change(name)
            item = user.input[position]
            if is_control(item):
                user.input.extend(waits.of(-1))
                continue
            index = parse_tensor_name(item)[1]
            if index not in after:
                after[index] = self._add_passer(node, index, handles.get(index), waits.of(index))
            user.input[position] = after[index]

    def _add_passer(self, node: Any, index: int, handle: str | None, waits: list[str]) -> str:
        item = handle if handle is not None else input_name(node.name, index)
        passer = NodeDef(name=self._draft.free_name(f"{node.name}/output_{index}"), op="Identity", input=[item, *waits])
        if handle is not None:
            passer.input.append(f"^{node.name}")
            passer.attr["T"].type = DataType.DT_RESOURCE
        else:
            passer.attr["T"].type = self._function(self._items(node)[-1]).signature.output_arg[index].type
        return str(self._draft.add(passer).name)


def _last(variable: Variable) -> str:
    return variable.name.rpartition("/")[2]
