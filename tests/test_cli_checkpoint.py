"""`graph-restore checkpoint`: what is printed, exit status, what is refused. The work itself is tested elsewhere."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from corpus import CORPUS, all_cases, case

from graph_restore.checkpoint import load_checkpoint, save_checkpoint
from graph_restore.cli.checkpoint import VERBS, outputs
from graph_restore.cli.main import main

MLP = case("mlp/tf1.4.1-v2")
PARTITIONED = case("partitioned/tf0.12.1-v1")
STRANGER = case("mismatch/tf1.4.1-v2")
MOVED = case("moved/tf1.15.5-v2")


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["checkpoint", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def done(*arguments: str) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_one_screen_and_has_an_example(verb: str) -> None:
    text = done(verb, "--help")
    assert f"Example: graph-restore checkpoint {verb} " in text
    assert text.count("\n") <= 30
    assert max(map(len, text.splitlines())) <= 100


def test_help_names_every_verb() -> None:
    assert re.findall(r"^  (\w+) ", done("--help").split("Commands:")[1], re.MULTILINE) == list(VERBS)


USAGE = {
    "no such verb": ["freeze"],
    "no checkpoint": ["ls"],
    "one checkpoint": ["diff", MLP.prefix],
    "no output": ["convert", MLP.prefix],
    "negative tolerance": ["diff", MLP.prefix, MLP.prefix, "--atol", "-1"],
    "version": ["convert", MLP.prefix, "-o", "never", "--version", "3"],
    "size": ["convert", MLP.prefix, "-o", "never", "--shard-size", "much"],
    "no size": ["convert", MLP.prefix, "-o", "never", "--shard-size", "0MB"],
    "both": ["convert", MLP.prefix, "-o", "never", "--shards", "2", "--shard-size", "1GB"],
    "layout of a file": ["convert", MLP.prefix, "-o", "never.npz", "--shards", "2", "--keep-slices"],
    "layout of a directory": ["edit", MLP.prefix, "-o", "never/", "--state"],
    "rename": ["edit", MLP.prefix, "-o", "never", "--rename", "a"],
    "rename to nothing": ["edit", MLP.prefix, "-o", "never", "--rename", "a="],
    "cast": ["edit", MLP.prefix, "-o", "never", "--cast", "int8"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr and not result.stdout
    assert not Path("never").exists()


BAD_FILES = {
    "ls": (["ls", "nowhere/model"], "no checkpoint at nowhere/model"),
    "ls npz": (["ls", "nowhere.npz"], "nowhere.npz: No such file"),
    "pattern": (["ls", MLP.prefix, "conv*"], "no tensor fits 'conv*'"),
    "no such pattern": (["ls", MLP.prefix, "nix"], f"no tensor fits 'nix' in checkpoint {MLP.prefix}"),
    "a text": (["ls", __file__], "this is no checkpoint, but a text file that begins"),
    "cat": (
        ["cat", MLP.prefix, "hidden/weight"],
        f"no tensor 'hidden/weight' in checkpoint {MLP.prefix}; near names: hidden/weights",
    ),
    "index": (["cat", MLP.prefix, "hidden/weights[60]"], "outside the shape [6, 10]"),
    "diff": (["diff", MLP.prefix, "nowhere"], "no checkpoint at nowhere"),
    "suffix": (["convert", MLP.prefix, "-o", "never.h5"], "no .h5 files are written"),
    "part of a checkpoint": (["convert", MLP.prefix, "-o", "never.index"], "give its prefix, never"),
    "source": (["convert", MLP.prefix, "-o", MLP.prefix, "--force"], "is the source itself"),
    "drop": (["edit", MLP.prefix, "-o", "never", "--drop", "conv*"], "no tensor fits 'conv*'"),
    "verify": (["verify", "nowhere"], "no checkpoint at nowhere"),
    "paths": (["paths", str(CORPUS)], "no state file"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_1_with_a_short_message(arguments: list[str], words: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and words in result.stderr
    assert "Traceback" not in result.stderr and not result.stdout
    assert not Path("never").exists()


# ls


def test_ls_in_words() -> None:
    lines = done("ls", MLP.prefix).splitlines()
    assert lines[0] == f"{MLP.prefix}: V2, 2 files"
    assert [line.split()[0] for line in lines[1:-1]] == sorted(MLP.oracle["checkpoint"][""])
    (slot,) = [line for line in lines if "hidden/weights/Adam_1 " in line]
    assert re.fullmatch(r" +\S+ +float32 +\[6, 10\] +240 bytes +slot of hidden/weights", slot)
    size = sum(value.nbytes for value in MLP.oracle["checkpoint"][""].values())
    assert lines[-1].startswith(f"{len(lines) - 2} tensors, {size:,} bytes; ")
    assert "8 slots, 824 bytes; 4 moving averages, 412 bytes" in lines[-1]


def test_ls_with_statistics_and_a_pattern() -> None:
    lines = done("ls", MLP.prefix, "hidden/w*s", "--stats").splitlines()
    value = MLP.oracle["checkpoint"][""]["hidden/weights"]
    assert lines[1].split() == ["min", "mean", "max", "nan", "inf", "zeros"]
    numbers = [f"{number:.6g}" for number in (value.min(), value.mean(dtype=np.float64), value.max())]
    assert lines[2].split()[-6:] == [*numbers, "0", "0", "0"]
    assert lines[3] == "1 tensor, 240 bytes"


def test_ls_tells_slices() -> None:
    assert re.search(r"embedding/table +float32 +\[10, 4\] +160 bytes +in 3 slices", done("ls", PARTITIONED.prefix))


def test_ls_as_json(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m", {"x": np.float32([np.inf, np.nan]), "x/Adam": np.zeros(2, np.float32), "s": b"ab"})
    found = json.loads(done("ls", str(tmp_path / "m"), "--json", "--stats"))
    assert (found["path"], found["version"], len(found["files"])) == (str(tmp_path / "m"), 2, 2)
    string, x, slot = found["tensors"]
    assert x["statistics"] == {
        **dict.fromkeys(("minimum", "mean", "maximum"), "Infinity"), "nan": 1, "infinite": 1, "zeros": 0
    }  # fmt: skip
    assert (slot["role"], slot["of"]) == ("slot", "x") and "statistics" not in string and string["bytes"] == 2
    assert found["totals"]["slot"] == {"tensors": 1, "elements": 2, "bytes": 8}


@pytest.mark.parametrize("one", all_cases(), ids=lambda one: one.id)
def test_ls_takes_every_checkpoint(one: Any) -> None:
    assert {tensor["name"] for tensor in json.loads(done("ls", one.prefix, "--json"))["tensors"]} >= {
        *one.oracle["checkpoint"]["" if "" in one.oracle["checkpoint"] else "v2"]
    }


# cat


def test_cat_prints_values() -> None:
    value = MLP.oracle["checkpoint"][""]["hidden/weights"]
    first, *rest = done("cat", MLP.prefix, "hidden/weights[1:3,:2]").splitlines()
    assert first == "hidden/weights[1:3,:2] float32 [2, 2]"
    np.testing.assert_array_equal(np.array(json.loads("".join(rest)), np.float32), value[1:3, :2])
    found = json.loads(done("cat", MLP.prefix, "hidden/weights", "--json"))
    assert (found["dtype"], found["shape"]) == ("float32", [6, 10])
    np.testing.assert_array_equal(np.array(found["values"], np.float32), value)


@pytest.mark.parametrize("key", [key for key in case("dtypes/tf1.15.5-v2").oracle["checkpoint"][""]])
def test_cat_prints_every_type(key: str) -> None:
    one = case("dtypes/tf1.15.5-v2")
    value = one.oracle["checkpoint"][""][key]
    found = json.loads(done("cat", one.prefix, key, "--json"))["values"]
    if value.dtype == object:
        assert found == [item.decode("utf-8", "backslashreplace") for item in value.tolist()]
    else:
        numbers = np.array(found, object).astype(np.float64)
        expected = np.stack([value.real, value.imag], axis=-1) if value.dtype.kind == "c" else value
        assert np.array_equal(numbers, expected.astype(np.float64), equal_nan=True)
    assert done("cat", one.prefix, key).startswith(f"{key} ")


def test_cat_writes_npy(tmp_path: Path) -> None:
    output = str(tmp_path / "x.npy")
    value = PARTITIONED.oracle["checkpoint"][""]["projection/columns"]
    assert (
        done("cat", PARTITIONED.prefix, "projection/columns[1:]", "--npy", output)
        == f"wrote {output}, float32 [3, 6]\n"
    )
    np.testing.assert_array_equal(np.load(output), value[1:])
    refused = call("cat", PARTITIONED.prefix, "projection/columns", "--npy", output)
    assert refused.exit_code == 1 and "pass --force" in refused.stderr
    done("cat", PARTITIONED.prefix, "projection/columns", "--npy", output, "--force")
    np.testing.assert_array_equal(np.load(output), value)


def test_cat_never_replaces_the_source(tmp_path: Path) -> None:
    shutil.copyfile(PARTITIONED.prefix, tmp_path / "m")
    before = (tmp_path / "m").read_bytes()
    refused = call("cat", str(tmp_path / "m"), "projection/columns", "--npy", str(tmp_path / "m"), "--force")
    assert refused.exit_code == 1 and "source itself" in refused.stderr
    assert (tmp_path / "m").read_bytes() == before


def test_cat_prints_no_books(tmp_path: Path) -> None:
    prefix = save_checkpoint(tmp_path / "m", {"x": np.zeros(17 << 20, np.float32)})
    refused = call("cat", prefix, "x")
    assert refused.exit_code == 1 and "'x[:10]'" in refused.stderr
    assert "..." in done("cat", prefix, "x[:2000]")


# diff


def test_diff_of_equal_checkpoints(tmp_path: Path) -> None:
    done("convert", PARTITIONED.prefix, "-o", str(tmp_path / "m"), "--shards", "2")
    text = done("diff", PARTITIONED.prefix, str(tmp_path / "m"))
    assert text == "4 tensors equal, 0 different, 0 only in the first, 0 only in the second\n"


def test_diff_in_words() -> None:
    result = call("diff", STRANGER.other_prefixes["extra"], STRANGER.other_prefixes["shape"])
    values = STRANGER.oracle["checkpoint"]
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert lines[0].split("  ", 1) == ["only in first", "momentum"]
    assert re.fullmatch(r"shape +w: \[3, 2\] and \[3, 5\]", lines[-2])
    equal = np.array_equal(values["extra"]["b"], values["shape"]["b"])
    assert lines[-1].startswith(f"{1 if equal else 0} tensor{'' if equal else 's'} equal, ")


def test_diff_tolerance_and_json(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path / "a", {"x": np.float64([1.0, 100.0])})
    second = save_checkpoint(tmp_path / "b", {"x": np.float64([1.0, 101.0])})
    result = call("diff", first, second, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and (found["same"], found["max_difference"]) == (False, 1.0)
    assert found["changed"][0]["differing"] == 1
    assert "1 of 2 elements differs, by at most 1\n" in call("diff", first, second).stdout
    assert call("diff", first, second, "--rtol", "0.01").exit_code == 0
    assert call("diff", first, second, "--atol", "0.5").exit_code == 1


# convert, edit


@pytest.mark.parametrize("output", ["model", "o.npz", "o.safetensors", "o/"])
def test_convert_says_what_was_written(output: str, tmp_path: Path) -> None:
    output = f"{tmp_path}/{output}"
    size = sum(value.nbytes for value in MLP.oracle["checkpoint"][""].values())
    text = done("convert", MLP.prefix, "-o", output)
    assert text == f"wrote {output}, {len(MLP.oracle['checkpoint'][''])} tensors, {size:,} bytes\n"
    refused = call("convert", MLP.prefix, "-o", output)
    assert refused.exit_code == 1 and "pass --force to replace it" in refused.stderr
    done("convert", MLP.prefix, "-o", output, "--force")


def test_convert_lays_checkpoints_out(tmp_path: Path) -> None:
    done("convert", MLP.prefix, "-o", str(tmp_path / "m"), "--shard-size", "0.5kB", "--state")
    assert len(list(tmp_path.glob("m.data-*"))) == 4 and (tmp_path / "checkpoint").exists()
    done("convert", PARTITIONED.prefix, "-o", str(tmp_path / "k"), "--keep-slices", "--version", "2")
    assert len(load_checkpoint(tmp_path / "k").slices("embedding/table")) == 3
    done("convert", PARTITIONED.prefix, "-o", str(tmp_path / "one"), "--version", "1")
    assert load_checkpoint(tmp_path / "one").version == 1


def test_convert_tells_other_types_on_stderr(tmp_path: Path) -> None:
    result = call("convert", case("dtypes/tf1.15.5-v2").prefix, "-o", str(tmp_path / "o.npz"))
    assert result.exit_code == 0 and "note" not in result.stdout
    assert "of_bfloat16 (bfloat16 as float32)" in result.stderr and result.stderr.count("note: ") == 1


def test_messages_name_options(tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    save_checkpoint(other, {"w": np.zeros((3, 2), np.float32)})
    for arguments, words in [
        (["edit", STRANGER.prefix, "-o", "x", "--merge", other], "pass --prefer first or --prefer last"),
        (["edit", other, "-o", "x", "--drop-slots"], "name them in --drop"),
        (["edit", other, "-o", "x", "--prefer", "last"], "--prefer says which"),
        (["convert", other, "-o", other], "is the source itself"),
        (["convert", STRANGER.prefix, "-o", other], "pass --force to replace it"),
        (["convert", STRANGER.prefix, "-o", "gs://bucket/x"], "stores are read and never written to"),
        (["convert", STRANGER.prefix, "-o", ""], "the output has no name"),
    ]:
        failed = call(*arguments)
        assert failed.exit_code == 1 and words in failed.stderr, failed.stderr
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["other.data-00000-of-00001", "other.index"]


ZEROS = """
import numpy, sys
from graph_restore.checkpoint import save_checkpoint
save_checkpoint(sys.argv[1], {"zeros": numpy.zeros(40_000_000, numpy.float32)})
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("output", ["m", "o.npz", "o/"])
def test_nothing_is_left_when_writing_is_interrupted(output: str, name: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", ZEROS, str(tmp_path / "in")], check=True)
    folder = tmp_path / "out"
    folder.mkdir()
    command = [sys.executable, "-c", INTERRUPTIBLE, "checkpoint", "convert", str(tmp_path / "in"), "-o"]
    with subprocess.Popen([*command, f"{folder}/{output}"], stderr=subprocess.PIPE) as process:
        while not list(folder.iterdir()):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(getattr(signal, name))
        process.communicate()
        assert process.returncode == (143 if name == "SIGTERM" else 1)
    assert list(folder.iterdir()) == []


INTERRUPTIBLE = """
import signal
from graph_restore.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
main()
"""


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))" + INTERRUPTIBLE
    save_checkpoint(tmp_path / "in", {"w": np.zeros(3000)})
    output = str(tmp_path / "o.npz")
    command = [sys.executable, "-c", code, "checkpoint", "convert", str(tmp_path / "in"), "-o", output]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"Error: {output}: File too large\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.data-00000-of-00001", "in.index"]


def test_edit_passes_every_change_on(tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", {"extra": np.float32([1e9]), "global_step": np.int32(7)})
    arguments = [
        "--merge",
        other,
        "--prefer",
        "last",
        "--averages",
        "--drop-slots",
        "--drop",
        "*/ExponentialMovingAverage",
    ]
    arguments += ["--rename", "hidden=first", "--rename", "extra=more", "--prefix", "top", "--cast", "float16"]
    result = call("edit", MLP.prefix, "-o", str(tmp_path / "m"), *arguments)
    assert result.exit_code == 0 and "1 of 1 values are too large for float16" in result.stderr
    found = load_checkpoint(tmp_path / "m")
    assert list(found) == [f"top/{name}" for name in ("first/biases", "first/weights", "global_step", "logits/biases",
                                                      "logits/weights", "more")]  # fmt: skip
    average = MLP.oracle["checkpoint"][""]["hidden/weights/ExponentialMovingAverage"]
    np.testing.assert_array_equal(found["top/first/weights"].read(), average.astype(np.float16))
    assert found["top/global_step"].read() == 7


def test_edit_averages_and_strips(tmp_path: Path) -> None:
    latest = MOVED.other_prefixes["latest"]
    done("edit", MOVED.prefix, "--prefix", "net", "-o", str(tmp_path / "a"))
    done("edit", latest, "--prefix", "net", "-o", str(tmp_path / "b"))
    done(
        "edit",
        str(tmp_path / "a"),
        "--average",
        str(tmp_path / "b"),
        "--strip-prefix",
        "net",
        "-o",
        str(tmp_path / "c"),
    )
    values = MOVED.oracle["checkpoint"]
    for name, value in values[""].items():
        mean = ((value.astype(np.float64) + values["latest"][name]) / 2).astype(value.dtype)
        np.testing.assert_array_equal(load_checkpoint(tmp_path / "c")[name].read(), mean)


def test_edit_never_replaces_what_it_reads(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path / "a", {"x": 1.0})
    second = save_checkpoint(tmp_path / "b", {"x": 2.0})
    refused = call("edit", first, "--average", second, "-o", second, "--force")
    assert refused.exit_code == 1 and "source itself" in refused.stderr
    assert load_checkpoint(second)["x"].read() == 2.0


# verify, paths


def test_verify_in_words_and_json(tmp_path: Path) -> None:
    shutil.copytree(MLP.directory, tmp_path / "run")
    prefix = tmp_path / "run" / Path(MLP.prefix).name
    assert re.search(r": V2, 19 tensors, 1,660 bytes read in \S+ s, \S+ [kMG]?B/s; all checksums are right\n$",
                     done("verify", str(prefix)))  # fmt: skip
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1] + b"\x00")
    result = call("verify", str(prefix))
    last = json.loads(call("verify", str(prefix), "--json").stdout)
    assert result.exit_code == 1 and list(last["damaged"]) == ["logits/weights/ExponentialMovingAverage"]
    assert result.stdout.startswith("damaged  logits/weights/ExponentialMovingAverage: ")
    assert result.stdout.endswith("; 1 damaged\n") and not result.stderr


def test_paths_shows_and_applies(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(MOVED.directory, run)
    before = (run / "checkpoint").read_bytes()
    text = done("paths", str(run))
    assert text.splitlines()[0] == "newest  /tmp/train/moved/model.ckpt-20 -> model.ckpt-20"
    assert text.endswith("pass --apply to write these\n") and (run / "checkpoint").read_bytes() == before
    found = json.loads(done("paths", str(run), "--json"))
    assert found["newest"]["relative"] == "model.ckpt-20" and found["changes"] and not found["applied"]
    assert done("paths", str(run), "--apply").endswith("repaired\n")
    assert done("paths", str(run)).endswith("nothing to repair\n")


def test_paths_of_a_checkpoint_that_is_nowhere(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/old/m-1"\n')
    result = call("paths", str(tmp_path), "--apply")
    assert result.exit_code == 1 and "/old/m-1: not there" in result.stdout


# as a program


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graph_restore", "checkpoint", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=CORPUS.parent)


def test_as_a_program(tmp_path: Path) -> None:
    assert program("convert", MLP.prefix, "-o", str(tmp_path / "o.npz")).returncode == 0
    with np.load(tmp_path / "o.npz") as found:
        np.testing.assert_array_equal(found["logits/biases"], MLP.oracle["checkpoint"][""]["logits/biases"])
    different = program("diff", MLP.prefix, MOVED.prefix)
    assert (different.returncode, different.stderr) == (1, "")
    bad = program("ls", "nowhere")
    assert (bad.returncode, bad.stdout) == (1, "") and bad.stderr.startswith("Error: no checkpoint at nowhere")


def test_tensorflow_stays_out() -> None:
    code = """
import sys
from click.testing import CliRunner
from graph_restore.cli.main import main
for verb in ("ls", "verify"):
    assert CliRunner().invoke(main, ["checkpoint", verb, sys.argv[1]]).exit_code == 0
print(sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "rich", "safetensors"}))
"""
    done = subprocess.run([sys.executable, "-c", code, MLP.prefix], capture_output=True, text=True, cwd=CORPUS.parent)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "size", "shown"), [(True, 1 << 30, True), (True, 1, False), (False, 1 << 30, False)]
)
def test_a_bar_is_shown_on_a_terminal_when_there_is_much_to_do(
    terminal: bool, size: int, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = _Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with outputs.bar(size) as advance:
        if advance is not None:
            advance(1)
    assert (advance is not None, bool(stderr.getvalue())) == (shown, shown)
