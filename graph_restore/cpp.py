"""C++ for a model: the lines that feed and fetch it, and the header that says which ops and kernels it needs.

The header is the `ops_to_register.h` of TensorFlow's selective registration: built with it, and with
-DSELECTIVE_REGISTRATION, the library holds only what the graph runs. The macros are those that
tensorflow/core/framework/selective_registration.h asks for; the code is C++11, as TensorFlow 1 was built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graph_restore.graph import Graph
from graph_restore.model import Model
from graph_restore.names import parse_tensor_name
from graph_restore.summary import describe_tensor, placeholders

_ALWAYS = {"NoOp": ("NoOp",), "_Send": ("SendOp",), "_Recv": ("RecvOp",)}  # every session adds them
_CPP_TYPES = {
    "float32": "float", "float64": "double", "string": "tensorflow::tstring", "bool": "bool", "float16": "Eigen::half",
    "bfloat16": "tensorflow::bfloat16", "complex64": "tensorflow::complex64", "complex128": "tensorflow::complex128",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
# What no variable can be called: the keywords of C++20 and g++, spellings of operators, what the lines use themselves,
# and macros of the headers they need; names in capitals are taken for macros too.
_TAKEN_NAMES = """
    alignas alignof asm auto bool break case catch char char8_t char16_t char32_t class concept const consteval
    constexpr constinit const_cast continue co_await co_return co_yield decltype default delete do double dynamic_cast
    else enum explicit export extern false float for friend goto if import inline int long module mutable namespace new
    noexcept nullptr operator private protected public register reinterpret_cast requires return short signed sizeof
    static static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename
    typeof union unsigned using virtual void volatile wchar_t while
    and and_eq bitand bitor compl not not_eq or or_eq xor xor_eq
    int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t std absl tensorflow Eigen
    session status fetched checkpoint
    alloca assert errno i386 linux mutex_lock offsetof stderr stdin stdout tf_shared_lock unix
"""
_TAKEN = frozenset(_TAKEN_NAMES.split())
_MACRO = re.compile("[A-Z][A-Z0-9_]+")
_HEADER = """\
// The ops and kernels of one model, for a TensorFlow built with -DSELECTIVE_REGISTRATION.
{about}
#ifndef OPS_TO_REGISTER
#define OPS_TO_REGISTER

namespace graph_restore {{

// Whether two names are the same but for blanks, which differ in the text that macros make of a type.
constexpr bool same(const char* one, const char* two) {{
  return *one == ' '   ? same(one + 1, two)
         : *two == ' ' ? same(one, two + 1)
         : *one != *two ? false
                        : *one == '\\0' || same(one + 1, two + 1);
}}

constexpr bool is_needed_op(const char* name) {{
  return {ops};
}}

constexpr bool is_needed_kernel(const char* name) {{
  return {kernels};
}}

}}  // namespace graph_restore

#define SHOULD_REGISTER_OP(op) graph_restore::is_needed_op(op)
#define SHOULD_REGISTER_OP_KERNEL(clz) graph_restore::is_needed_kernel(clz)
#define SHOULD_REGISTER_OP_GRADIENT {gradient}

#endif  // OPS_TO_REGISTER
"""


def needed_ops(graph: Graph) -> list[str]:
    """The ops of a graph and of its functions, sorted; functions themselves are none."""
    bodies = [graph.graph_def.node, *(function.node_def for function in graph.library.function)]
    return sorted({node.op for body in bodies for node in body} - set(graph.functions))


def ops_header(graph: Graph, kernels: Mapping[str, Iterable[str]] | None = None) -> str:
    """The text of `ops_to_register.h`.

    `kernels`: op to the classes of its kernels, as `runtime.kernels.kernel_classes` finds them; without it the kernels
    of all ops are registered, which is right, and larger than need be.
    """
    ops = needed_ops(graph)
    classes = {name for names in (*(kernels or {}).values(), *_ALWAYS.values()) for name in names}
    about = f"// {len(ops)} ops"
    if kernels is None:
        about += "; kernels are not chosen, as no TensorFlow was there to name their classes"
    return _HEADER.format(
        about=about,
        ops=_any_of(sorted({*ops, *_ALWAYS})),
        kernels="true" if kernels is None else _any_of(sorted(classes)),
        gradient="true" if "SymbolicGradient" in ops else "false",
    )


def _any_of(names: Sequence[str]) -> str:
    return " ||\n         ".join(f'same(name, "{name}")' for name in names)


def cpp_snippet(model: Model, kept: str | None = None, *, run_init_op: bool = True) -> str:
    """Lines of C++ that feed a frozen model's placeholders, run it in `session` and name what is fetched.

    Sizes that the graph leaves open are 1; a shape it does not know is a scalar's. A comment says which. Variables that
    were kept are restored first, from the checkpoint `kept`. `run_init_op`: whether the tables wait for the init_op.
    """
    used: set[str] = set()
    fed = [_feed(tensor, _variable(tensor["name"], used)) for tensor in placeholders(model)]
    lines = [*_restoring(model, kept), *(line for feed in fed for line in feed[0])]
    if model.init_op is not None and run_init_op:
        lines += ["// Once, before the first run:", _once("", model.init_op)]
    feeds = ", ".join(feed[1] for feed in fed)
    fetches = ", ".join(f'"{name}"' for name in model.fetches)
    lines += ["std::vector<tensorflow::Tensor> fetched;"]
    lines += [f"status = session->Run({{{feeds}}}, {{{fetches}}}, {{}}, &fetched);"]
    for number, name in enumerate(model.fetches):
        found = describe_tensor(model.graph, name)
        kind = _CPP_TYPES.get(found["dtype"])
        lines.append(
            f"// fetched[{number}] is {_words(found)}" + (f": fetched[{number}].flat<{kind}>()" if kind else "")
        )
    return "absl::Status status;\n" + "\n".join(lines) + "\n"


def _restoring(model: Model, prefix: str | None) -> list[str]:
    """Lines that give variables their values, by the graph's own saver."""
    saver = model.saver_def
    if saver is None or not len(model.variables):
        return []
    literal = (prefix or "PREFIX OF THE CHECKPOINT").replace("\\", "\\\\").replace('"', '\\"')
    return [
        "// Once, before the first run: the values of the variables that were kept.",
        "tensorflow::Tensor checkpoint(tensorflow::DT_STRING, tensorflow::TensorShape({}));",
        f'checkpoint.scalar<tensorflow::tstring>()() = "{literal}";  // its prefix, where it lies when this runs',
        _once(f'{{"{saver.filename_tensor_name}", checkpoint}}', saver.restore_op_name),
    ]


def _once(feed: str, target: str) -> str:
    return f'status = session->Run({{{feed}}}, {{}}, {{"{target}"}}, nullptr);'


def _feed(tensor: Mapping[str, Any], variable: str) -> tuple[list[str], str]:
    sizes = ", ".join(str(1 if size is None else size) for size in tensor["shape"] or ())
    enum = f"tensorflow::DT_{tensor['dtype'].upper()}".replace("FLOAT32", "FLOAT").replace("FLOAT64", "DOUBLE")
    enum = enum.replace("FLOAT16", "HALF") if not enum.endswith("BFLOAT16") else enum
    kind = _CPP_TYPES.get(tensor["dtype"])
    lines = [f"// {_words(tensor)}", f"tensorflow::Tensor {variable}({enum}, tensorflow::TensorShape({{{sizes}}}));"]
    if kind:
        lines.append(f"{variable}.flat<{kind}>().setConstant({kind}());  // put your values here")
    return lines, f'{{"{tensor["name"]}", {variable}}}'


def _words(tensor: Mapping[str, Any]) -> str:
    shape = tensor["shape"]
    sizes = (
        "of unknown shape" if shape is None else f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
    )
    return f"{tensor['name']}, {tensor['dtype'] or 'of unknown type'} {sizes}"


def _variable(name: str, used: set[str]) -> str:
    """A C++ name for a tensor."""
    node, index = parse_tensor_name(name)
    base = re.sub(r"\W", "_", node) + (f"_{index}" if index else "")
    if base in _TAKEN or _MACRO.fullmatch(base):
        base += "_"
    elif base[:1].isdigit():
        base = f"_{base}"
    found, number = base, 0
    while found in used:
        number += 1
        found = f"{base}_{number}"
    used.add(found)
    return found
