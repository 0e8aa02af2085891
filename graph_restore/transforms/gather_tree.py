"""GatherTree (tf.contrib.seq2seq) written with ops that TensorFlow still has.

The op follows beams back through their parents (beam_search_ops.cc of TensorFlow 1.4 and 1.15): from the last step of a
sequence backwards each beam takes the token of the beam it came from. What follows the first end token of a beam, and
what is past its sequence, is the end token (1.4's form with three inputs: -1 past the sequence, nothing replaced).

Here that is one StatelessWhile from the last step to the first; its two functions hold no state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graph_restore.dtypes import DataType
from graph_restore.ops import op_table
from graph_restore.protos import AttrValue, FunctionDef, NodeDef
from graph_restore.transforms.composing import Composer

CONDITION, BODY = "graph_restore_gather_tree_condition", "graph_restore_gather_tree_body"
_INT, _BOOL = DataType.DT_INT32, DataType.DT_BOOL
_ARGUMENTS = ("level", "parent", "beams", "step_ids", "parent_ids", "last", "end")


def gather_tree(make: Composer) -> list[Any]:
    """Compose the node; returns the functions that the graph's library must have."""
    old = len(make.inputs) == 3
    step_ids, parent_ids, lengths = make.inputs[:3]
    end = make.constant(-1) if old else make.inputs[3]
    zero, one = make.constant(0), make.constant(1)
    shape = make("Shape", step_ids, T=_INT, out_type=_INT)
    steps = make("GatherV2", shape, zero, zero, Tparams=_INT, Tindices=_INT, Taxis=_INT)
    last = make("Sub", make("Minimum", lengths, steps, T=_INT), one, T=_INT)
    if not old:
        last = make("ExpandDims", last, one, T=_INT, Tdim=_INT)
    beams = make("Fill", shape, end, T=_INT, index_type=_INT)
    of_a_step = make("GatherV2", shape, make.constant([1, 2]), zero, Tparams=_INT, Tindices=_INT, Taxis=_INT)
    parent = make("Fill", of_a_step, zero, T=_INT, index_type=_INT)
    level = make("Sub", steps, one, T=_INT)
    loop = make(
        "StatelessWhile", level, parent, beams, step_ids, parent_ids, last, end,
        T=[_INT] * len(_ARGUMENTS), cond=_function(CONDITION), body=_function(BODY),
    )  # fmt: skip
    found = make.output(loop, _ARGUMENTS.index("beams"))
    if old:
        make.last("Identity", found, T=_INT)
        return [_condition(), _body()]
    ends = make("Cast", make("Equal", found, end, T=_INT), SrcT=_BOOL, DstT=_INT)
    before = make("Cumsum", ends, zero, T=_INT, Tidx=_INT, exclusive=True)
    make.last("SelectV2", make("Greater", before, zero, T=_INT), end, found, T=_INT)
    return [_condition(), _body()]


def _function(name: str) -> Any:
    attr = AttrValue()
    attr.func.name = name
    return attr


def _condition() -> Any:
    return _define(CONDITION, [("more", _BOOL)], lambda make: [make("GreaterEqual", "level", make.constant(0), T=_INT)])


def _body() -> Any:
    return _define(BODY, [(f"next_{name}", _INT) for name in _ARGUMENTS], _step_back)


def _step_back(make: Composer) -> list[str]:
    """One step: for sequences that end here the step itself, before their end what the parents say."""
    zero, one, none = make.constant(0), make.constant(1), make.constant(-1)

    def gather(params: str, indices: str, axis: str, batch_dims: int = 0) -> str:
        return make("GatherV2", params, indices, axis, Tparams=_INT, Tindices=_INT, Taxis=_INT, batch_dims=batch_dims)

    def select(condition: str, yes: str, no: str) -> str:
        return make("SelectV2", condition, yes, no, T=_INT)

    step, parents = gather("step_ids", "level", zero), gather("parent_ids", "level", zero)
    width = gather(make("Shape", step, T=_INT, out_type=_INT), one, zero)
    at_end, before_end = make("Equal", "level", "last", T=_INT), make("Less", "level", "last", T=_INT)
    is_beam = make(
        "LogicalAnd", make("GreaterEqual", "parent", zero, T=_INT), make("Less", "parent", width, T=_INT)
    )  # fmt: skip
    beam = make("Maximum", make("Minimum", "parent", make("Sub", width, one, T=_INT), T=_INT), zero, T=_INT)
    token = select(is_beam, gather(step, beam, one, 1), none)
    origin = select(is_beam, gather(parents, beam, one, 1), none)
    tokens = select(at_end, step, select(before_end, token, "end"))
    parent = select(at_end, parents, select(before_end, origin, "parent"))
    place = make("Reshape", "level", make.constant([1, 1]), T=_INT, Tshape=_INT)
    rows = make("ExpandDims", tokens, zero, T=_INT, Tdim=_INT)
    beams = make("TensorScatterUpdate", "beams", place, rows, T=_INT, Tindices=_INT)
    level = make("Sub", "level", one, T=_INT)
    return [level, parent, beams, *_ARGUMENTS[3:]]


def _define(name: str, outputs: Sequence[tuple[str, DataType]], compose: Callable[[Composer], list[str]]) -> Any:
    """A FunctionDef over `_ARGUMENTS` whose body `compose` makes."""
    make = Composer(NodeDef(name="step"), lambda wanted: wanted, op_table(), function=True)
    results = compose(make)
    function = FunctionDef()
    function.signature.name = name
    for argument in _ARGUMENTS:
        function.signature.input_arg.add(name=argument, type=_INT)
    for (output, dtype), result in zip(outputs, results):
        function.signature.output_arg.add(name=output, type=dtype)
        function.ret[output] = result
    function.node_def.extend(make.nodes)
    return function
