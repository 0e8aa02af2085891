"""C and C++: the programs in examples/cpp run what was written, the snippet compiles, the header is right."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from corpus import CORPUS, Case, case
from snippets import ROOT

import graph_restore as gr
from graph_restore.cli.main import main
from graph_restore.cpp import cpp_snippet, needed_ops, ops_header

EXAMPLES = ROOT / "examples" / "cpp"
COMPILER = shutil.which("c++") or shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (c++ or g++) is installed")
needs_cmake = pytest.mark.skipif(
    COMPILER is None or shutil.which("cmake") is None, reason="cmake and a C++ compiler are not both installed"
)
quiet = pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")


def _frozen(one: Case) -> gr.Model:
    run = one.oracle["runs"][0]
    return gr.freeze(gr.restore(gr.load(one.graph_pb), one.prefix), list(run["outputs"]), list(run["feeds"]))


# the programs


@functools.cache
def _program(name: str) -> Path:
    """The path of `run_<name>`, built by its own CMakeLists.txt; once for all tests."""
    build = Path(tempfile.mkdtemp(prefix="graph-restore-"))
    for command in (
        ["cmake", "-S", EXAMPLES / name, "-B", build, f"-DPython3_EXECUTABLE={sys.executable}"],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / f"run_{name}"


def _run(name: str, path: Path, fetch: str, feeds: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    arguments: list[str] = []
    for feed, value in feeds.items():
        arguments += [feed, _listed(value.shape), _listed(repr(float(number)) for number in value.ravel())]
    done = subprocess.run([_program(name), path, fetch, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    shape, values = done.stdout.splitlines()
    found = np.array([float(number) for number in values.split(",")], np.float32)
    return found.reshape([int(size) for size in shape.split(",") if size])


def _listed(values: Any) -> str:
    return ",".join(map(str, values))


CASES = ["linear/tf0.12.1-v1", "mlp/tf1.4.1-v2", "lstm_static/tf1.15.5-v2", "while_loop/tf1.4.1-v2"]


@pytest.fixture(scope="module", autouse=True)
def _remove_programs() -> Any:
    yield
    for name in ("frozen", "memmapped"):
        if _program.cache_info().currsize and (EXAMPLES / name).exists():
            shutil.rmtree(_program(name).parent, ignore_errors=True)


@quiet
@needs_cmake
@pytest.mark.tensorflow
@pytest.mark.parametrize("identity", CASES)
@pytest.mark.parametrize("name", ["frozen", "memmapped"])
def test_a_program_gives_the_oracles_answers(name: str, identity: str, tmp_path: Path) -> None:
    one = case(identity)
    run = one.oracle["runs"][0]
    feeds = {feed: value for feed, value in run["feeds"].items() if value.dtype == np.float32}
    constants = {feed: value for feed, value in run["feeds"].items() if feed not in feeds}
    restored = gr.restore(gr.load(one.graph_pb), one.prefix)
    frozen = gr.freeze(restored, list(run["outputs"]), list(feeds), constants=constants)
    path = tmp_path / ("x.pb" if name == "frozen" else "x.pbmm")
    gr.export(frozen, path, **({} if name == "frozen" else {"min_bytes": 1}))
    assert (b"ImmutableConst" in path.read_bytes()) == (name == "memmapped")
    for fetch, expected in run["outputs"].items():
        if expected.dtype == np.float32:
            np.testing.assert_allclose(_run(name, path, fetch, feeds), expected, rtol=1e-5, atol=1e-6)


@needs_cmake
@pytest.mark.tensorflow
def test_tensorflows_own_package_runs_and_so_does_ours_of_it(tmp_path: Path) -> None:
    genuine = CORPUS / "packages" / "matmul-tf2.21.0.pbmm"
    gr.export(gr.load(genuine), tmp_path / "ours.pbmm", min_bytes=1)
    for path in (genuine, tmp_path / "ours.pbmm"):
        found = _run("memmapped", path, "y:0", {"x:0": np.array([[1, 2, 3], [4, 5, 6]], np.float32)})
        assert found.tolist() == [[14.0], [32.0]]


@needs_cmake
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["frozen", "memmapped"])
def test_programs_say_what_is_wrong(name: str, tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(b"not a graph at all" * 9)
    done = subprocess.run([_program(name), tmp_path / "damaged", "y:0"], capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout and done.stderr
    assert subprocess.run([_program(name)], capture_output=True).returncode == 2
    model = tmp_path / ("x.pb" if name == "frozen" else "x.pbmm")
    one = case("linear/tf0.12.1-v1")
    frozen = gr.freeze(gr.restore(gr.load(one.graph_pb), one.prefix), "y")
    gr.export(frozen, model)
    for shape in ("-1,4", "1,-4", "-1,-4", "99999999999,99999999999", "1,1,1,1,1,1,1,1,1,1,-1"):
        done = subprocess.run([_program(name), model, "y:0", "x:0", shape, "1,2,3,4"], capture_output=True, text=True)
        assert done.returncode == 1 and not done.stdout and "SHAPE" in done.stderr, (shape, done)


# the snippet


def _compiles(source: str, *flags: str) -> str:
    """What the compiler has to say against a source, "" when nothing."""
    assert COMPILER is not None
    command = [COMPILER, "-fsyntax-only", "-x", "c++", *flags, "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True).stderr


@quiet
def test_the_snippet_feeds_and_fetches() -> None:
    text = cpp_snippet(_frozen(case("linear/tf1.15.5-v2")))
    assert (
        "// x:0, float32 [?, 4]\ntensorflow::Tensor x(tensorflow::DT_FLOAT, tensorflow::TensorShape({1, 4}));" in text
    )
    assert 'status = session->Run({{"x:0", x}}, {"y:0"}, {}, &fetched);' in text


# names that placeholders have had, and that C++ or the headers of TensorFlow use
NAMES = """
    default switch this template auto while signed true false and or not xor compl bitand operator std absl tensorflow
    Eigen session status fetched checkpoint int32_t uint8_t class new delete try catch enum struct union short void
    static register namespace using typename sizeof nullptr private public protected virtual volatile extern inline
    explicit export import module co_await co_yield requires concept consteval constinit char8_t thread_local alignas
    goto typeid asm typeof wchar_t static_assert NULL LOG CHECK EOF M_PI INFINITY assert errno stdin stdout linux unix
    VLOG DEBUG INPUT
"""
AS_THEY_ARE = "x X y1 input_ids input Placeholder main final override string vector float32"
TYPES = ("FLOAT", "INT32", "STRING", "BOOL", "HALF", "BFLOAT16", "COMPLEX64", "UINT8", "INT64", "DOUBLE")


def _taking(names: list[str]) -> gr.Model:
    """A frozen model with these placeholders, of every type in turn."""
    nodes = "".join(
        f'''node {{ name: "{name}" op: "Placeholder" attr {{ key: "dtype" value {{
                type: DT_{TYPES[number % len(TYPES)]} }} }} attr {{ key: "shape" value {{ shape {{ }} }} }} }}'''
        for number, name in enumerate(names)
    )
    from google.protobuf import text_format

    from graph_restore.protos import GraphDef

    return gr.freeze(gr.restore(gr.load(text_format.Parse(nodes, GraphDef())), {}), names)


def test_a_variable_of_the_snippet_is_called_as_its_placeholder_where_cpp_lets_it() -> None:
    names = [*NAMES.split(), *AS_THEY_ARE.split()]
    declared = re.findall(r"^tensorflow::Tensor (\w+)\(", cpp_snippet(_taking(names)), re.MULTILINE)
    assert declared == [*(f"{name}_" for name in NAMES.split()), *AS_THEY_ARE.split()]
    crowded = ["int", "int_", "int_1", "a/b", "a_b", "3d", "x.y", "x-y"]
    declared = re.findall(r"^tensorflow::Tensor (\w+)\(", cpp_snippet(_taking(crowded)), re.MULTILINE)
    assert len(set(declared)) == len(crowded) and all(name.isidentifier() for name in declared)


@quiet
def test_the_snippet_restores_what_was_kept(tmp_path: Path) -> None:
    one = case("linear/tf1.15.5-v2")
    arguments = ["freeze", str(one.meta), "--fetches", "y", "-o", str(tmp_path / "x.pb"), "--print-cpp"]
    assert "checkpoint" not in CliRunner().invoke(main, arguments).stdout
    kept = CliRunner().invoke(main, [*arguments, "--keep-variables", "w"]).stdout
    assert f'checkpoint.scalar<tensorflow::tstring>()() = "{tmp_path / "x"}";' in kept
    assert 'status = session->Run({{"save/Const:0", checkpoint}}, {}, {"save/restore_all"}, nullptr);' in kept


@quiet
@pytest.mark.parametrize("tables", ["inline", "init_op"])
def test_the_snippet_runs_the_init_op_where_tables_wait_for_it(tables: str, tmp_path: Path) -> None:
    words = case("vocabulary/tf1.4.1-v2")
    arguments = ["freeze", str(words.meta), "--fetches", "ids", "-o", str(tmp_path / "x.pb"), "--tables", tables]
    told = CliRunner().invoke(main, [*arguments, "--print-cpp"]).stdout
    assert ("need not be run" in told) == (tables == "inline")
    assert ('{"init_all_tables"}' in told) == (tables == "init_op")


@quiet
@needs_compiler
@pytest.mark.tensorflow
def test_snippets_compile() -> None:
    import tensorflow as tf

    identities = ["linear/tf0.12.1-v1", "convnet/tf1.4.1-v2", "vocabulary/tf1.15.5-v2", "feed_middle/tf1.4.1-v2"]
    models = [_frozen(case(identity)) for identity in identities]
    words = case("vocabulary/tf1.4.1-v2")
    models.append(gr.freeze(gr.restore(gr.load(words.meta), words.prefix), "ids", tables="init_op"))
    models.append(_taking([*NAMES.split(), *AS_THEY_ARE.split()]))
    linear = case("linear/tf1.15.5-v2")
    models.append(gr.freeze(gr.restore(gr.load(linear.graph_pb), linear.prefix), "y", keep_variables="w"))
    source = '#include "tensorflow/core/public/session.h"\n' + "".join(
        f"void run{number}(tensorflow::Session* session) {{\n{cpp_snippet(model)}}}\n"
        for number, model in enumerate(models)
    )
    flags = [f"-isystem{flag[2:]}" if flag.startswith("-I") else flag for flag in tf.sysconfig.get_compile_flags()]
    assert '{"init_all_tables"}' in source and "checkpoint.scalar" in source and _compiles(source, *flags) == ""


# the header


def _checked(header: str, needed: dict[str, bool], kernels: dict[str, bool]) -> str:
    """A source with the header in it that compiles only if it answers so for these ops and kernels."""
    tests = [
        f'static_assert(SHOULD_REGISTER_OP("{op}") == {str(is_in).lower()}, "{op}");' for op, is_in in needed.items()
    ]
    tests += [
        f'static_assert(SHOULD_REGISTER_OP_KERNEL("{name}") == {str(is_in).lower()}, "{name}");'
        for name, is_in in kernels.items()
    ]
    return header + "\n".join(tests) + '\nstatic_assert(!SHOULD_REGISTER_OP_GRADIENT, "");\n'


OPS = {
    "MatMul": True,
    "Add": True,
    "NoOp": True,
    "_Recv": True,
    "Mul": False,
    "MatMu": False,
    "Variable": False,
    "": False,
}


@needs_compiler
def test_the_header_chooses_ops() -> None:
    frozen = _frozen(case("linear/tf0.12.1-v1"))
    assert needed_ops(frozen.graph) == ["Add", "Const", "Identity", "MatMul", "Placeholder"]
    header = ops_header(frozen.graph)
    assert _compiles(_checked(header, OPS, {"AnyKernel": True}), "-std=c++11", "-pedantic") == ""
    kernels = {"Add": ["BinaryOp<CPUDevice, functor::add<float>>"]}
    expected = {"BinaryOp< CPUDevice,functor::add<float> >": True, "RecvOp": True, "AnyKernel": False}
    assert _compiles(_checked(ops_header(frozen.graph, kernels), OPS, expected), "-std=c++11", "-pedantic") == ""


@quiet
@pytest.mark.tensorflow
@pytest.mark.parametrize("identity", ["linear/tf0.12.1-v1", "convnet/tf1.15.5-v2", "defun/tf1.4.1-v2"])
def test_the_header_is_that_of_tensorflows_tool(identity: str, tmp_path: Path) -> None:
    from tensorflow.python.tools import selective_registration_header_lib

    one = case(identity)
    run = one.oracle["runs"][0]
    arguments = [
        "freeze",
        str(one.graph_pb),
        one.prefix,
        "-o",
        str(tmp_path / "x.pb"),
        "--fetches",
        ",".join(run["outputs"]),
    ]
    done = CliRunner().invoke(main, [*arguments, "--ops-header", str(tmp_path / "ops.h"), "--print-cpp"])
    assert done.exit_code == 0 and "session->Run(" in done.stdout, done.output
    genuine = selective_registration_header_lib.get_ops_and_kernels(
        "rawproto", [str(tmp_path / "x.pb")], "NoOp:NoOp,_Recv:RecvOp,_Send:SendOp"
    )
    text = (tmp_path / "ops.h").read_text()
    ops, kernels = text.split("is_needed_kernel(const")
    quoted = [set(part.split('same(name, "')[1:]) for part in (ops, kernels)]
    found_ops, found_kernels = ({item.split('")')[0] for item in part} for part in quoted)
    assert found_kernels == {kernel for _, kernel in genuine if kernel}
    assert found_ops >= {op for op, _ in genuine} and not found_ops & gr.load(tmp_path / "x.pb").graph.functions.keys()
