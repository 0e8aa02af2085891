"""The two commands: what they print, their exit status, what they refuse to overwrite."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from corpus import CORPUS, Case, all_cases, case, cases, hub_module

import graph_restore as gr
from graph_restore.cli import progress as progress_module
from graph_restore.cli.main import VERBS, main

LINEAR = CORPUS / "linear" / "tf0.12.1-v1"
META = str(LINEAR / "model.ckpt.meta")
WITH_META = [one for one in cases() if one.meta is not None]


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def call_json(*arguments: str) -> dict[str, Any]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# usage and bad files


USAGE = {
    "no such verb": ["thaw"],
    "no path": ["inspect"],
    "no output": ["freeze", META],
    "unknown option": ["check", META, "--deep"],
    "unknown choice": ["freeze", META, "-o", "x.pb", "--on-update", "later"],
    "half a new name": ["check", META, "--rename", "tower"],
    "empty name": ["freeze", META, "-o", "x.pb", "--fetches", "a,,b"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr and not result.stdout


BAD_FILES = {
    "nothing there": (["inspect", "nowhere.pb"], "nowhere.pb: no such file"),
    "no model": (["inspect", __file__], "plain text"),
    "no checkpoint": (["check", META, "nowhere/model.ckpt"], "no checkpoint at nowhere/model.ckpt"),
    "bare graph": (["check", str(LINEAR / "graph.pb")], "pass the checkpoint's prefix"),
    "tags of no SavedModel": (["inspect", META, "--tags", "serve"], "tags choose"),
    "no such fetch": (["freeze", META, "-o", "never.pb", "--fetches", "yy"], "near names: y"),
    "unwritable": (["freeze", META, "-o", "no/such/folder/x.pb", "--fetches", "y"], "there is no directory"),
    "a directory to be": (["freeze", META, "-o", "never/", "--fetches", "y"], "never/ is a directory"),
    "no name": (["freeze", META, "-o", "", "--fetches", "y"], "the name of the output is empty"),
    "no model's name": (["inspect", ""], "the empty path: no such file"),
    "values without a graph": (
        ["inspect", str(LINEAR / "oracle.npz")],
        "an .npz file, which holds values and no graph",
    ),
    "header over a model": (["freeze", META, "-o", "never.pb", "--ops-header", META], "is no header of ops"),
    "header over the output": (["freeze", META, "-o", "never.pb", "--ops-header", "./never.pb"], "frozen model's own"),
    "feeds that are not there": (
        ["freeze", META, "-o", "never.pb", "--verify-feeds", "no.npz"],
        "no.npz: No such file",
    ),
    "kept variable": (["freeze", META, "-o", "never.pb", "--keep-variables", "nix"], "--keep-variables: the graph has"),
    "left out": (["freeze", META, "-o", "never.pb", "--exclude", "b"], "b: left out, by --include or --exclude"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_1_with_a_short_message(arguments: list[str], words: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and words in result.stderr
    assert "Traceback" not in result.stderr and not result.stdout
    assert not Path("never.pb").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frieze"], "no verb 'frieze'; near names: freeze"),
        (["checkpoint", "foo"], "no verb 'foo'; the verbs are ls, cat, diff, convert, edit, verify, paths"),
    ],
)
def test_a_verb_that_there_is_not(arguments: list[str], words: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and words in result.stderr


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "model.pb").symlink_to("gone.pb")
    result = call("inspect", str(tmp_path / "model.pb"))
    assert result.exit_code == 1 and "a link to gone.pb, which is not there" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", META, "--format", "saved_model", "--fetches", "y", "-o"],
        ["export", META, "--format", "checkpoint", "-o"],
        ["freeze", META, "--fetches", "y", "-o"],
        ["checkpoint", "convert", str(LINEAR), "-o"],
    ],
)
def test_what_cannot_be_written_is_named_as_it_was_given(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(made: Any) -> Any:
        def make(path: Any, *rest: Any, **more: Any) -> Any:
            if ".tmp" in os.path.basename(path):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return made(path, *rest, **more)

        return make

    monkeypatch.setattr(os, "open", refusing(os.open))
    monkeypatch.setattr(os, "mkdir", refusing(os.mkdir))
    result = call(*arguments, str(tmp_path / "out"))
    assert result.exit_code == 1 and not list(tmp_path.iterdir())
    assert result.stderr.startswith(f"Error: {tmp_path / 'out'}: Permission denied; look at the permissions")


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "graph_restore", "inspect", "nowhere"], capture_output=True, text=True, cwd=CORPUS.parent
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: nowhere: no such file") and "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_one_screen_and_has_an_example(verb: str) -> None:
    text = call(verb, "--help").stdout
    assert f"Example: graph-restore {verb} " in text
    assert text.count("\n") <= 40
    assert max(map(len, text.splitlines())) <= 100


def test_version_is_the_one_setup_reads() -> None:
    text = (CORPUS.parent / "graph_restore" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert version is not None
    assert call("--version").stdout == f"graph-restore, version {version[1]}\n"


# inspect


@pytest.mark.parametrize("case", WITH_META, ids=lambda case: case.id)
def test_inspect_tells_the_variables_of_a_model(case: Case) -> None:
    found = call_json("inspect", str(case.meta))
    variables = {f"{variable['name']}:0": variable for variable in found["variables"]}
    for name, facts in case.facts["variables"].items():
        assert variables[name]["dtype"] == facts["dtype"]
        if facts["shape"] is not None and variables[name]["shape"] is not None:
            assert variables[name]["shape"] == [None if size == -1 else size for size in facts["shape"]]
    assert found["tensorflow_version"] == case.facts["tensorflow"]
    assert sorted(found["gone_ops"]) == case.facts.get("unknown_ops", [])


# the prefix of `nameless_prefix` is a directory's name, and a directory means the model in it
@pytest.mark.parametrize(
    "case", [one for one in all_cases()[::5] if one.model != "nameless_prefix"], ids=lambda case: case.id
)
def test_inspect_tells_the_tensors_of_a_checkpoint(case: Case) -> None:
    saver = case.facts["savers"].get("") or case.facts["other_checkpoints"][""]
    found = call_json("inspect", f"{case.directory}/{saver['prefix']}")
    tensors = {tensor["name"]: (tensor["dtype"], tensor["shape"]) for tensor in found["tensors"]}
    expected = {key: (facts["dtype"], facts["shape"]) for key, facts in saver["keys"].items()}
    assert (found["kind"], f"v{found['version']}") == ("checkpoint", case.facts["checkpoint_version"])
    assert tensors == expected


FORMATS = {
    "graph_def": LINEAR / "graph.pb",
    "graph_def_text": LINEAR / "graph.pbtxt",
    "meta_graph": LINEAR / "model.ckpt.meta",
    "event_file": CORPUS / "event_start/tf1.4.1-v2/events",
    "saved_model": CORPUS / "saved_model/tf1.4.1-v2/saved_model",
    "session_bundle": CORPUS / "session_bundle/tf1.4.1-v2/bundle/00000007",
}


@pytest.mark.parametrize(("name", "path"), FORMATS.items(), ids=FORMATS)
def test_inspect_tells_the_format(name: str, path: Path) -> None:
    assert call_json("inspect", str(path))["format"] == name
    text = call("inspect", str(path)).stdout
    assert f"\n  {name}" in text


def test_inspect_looks_into_archives(tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "run"), "zip", LINEAR)
    found = call_json("inspect", str(tmp_path / "run.zip" / "model.ckpt.meta"))
    assert (found["kind"], found["format"]) == ("model", "meta_graph")
    assert call_json("inspect", str(tmp_path / "run.zip" / "graph.pb"))["kind"] == "model"
    assert call_json("inspect", str(tmp_path / "run.zip" / "model.ckpt"))["kind"] == "checkpoint"


def test_inspect_tells_signatures_and_assets() -> None:
    folder = CORPUS / "saved_model_assets" / "tf1.4.1-v2" / "saved_model"
    facts = case("saved_model_assets/tf1.4.1-v2").facts["saved_model"]["meta_graphs"][0]
    found = call_json("inspect", str(folder))
    told = found["signatures"]["serving_default"]
    for side in ("inputs", "outputs"):
        names = {key: tensor["name"] for key, tensor in told[side].items()}
        assert names == facts["signatures"]["serving_default"][side]
    assert found["tags"] == facts["tags"]
    assert [Path(path).name for path in found["assets"].values()] == ["vocabulary.txt"]
    assert found["checkpoint"]["tensors"] == len(case("saved_model_assets/tf1.4.1-v2").facts["savers"][""]["keys"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.ckpt", "checkpoint"),
        ("model.ckpt.index", "checkpoint"),
        ("model.ckpt.data-00000-of-00001", "checkpoint"),
        ("checkpoint", "checkpoint"),
        ("model.ckpt.meta", "model"),
        ("", "model"),
    ],
)
def test_a_prefix_means_the_checkpoint_and_a_directory_the_model(name: str, kind: str) -> None:
    assert call_json("inspect", str(CORPUS / "linear" / "tf1.15.5-v2" / name))["kind"] == kind


def test_a_directory_without_a_graph_means_its_checkpoint(tmp_path: Path) -> None:
    for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        shutil.copy(CORPUS / "linear" / "tf1.15.5-v2" / name, tmp_path)
    found = call_json("inspect", str(tmp_path))
    assert (found["kind"], found["shards"], found["bytes"]) == ("checkpoint", 1, 4 * 3 * 4 + 3 * 4)


def test_inspect_takes_tags() -> None:
    folder = str(CORPUS / "saved_model_two_tags" / "tf1.4.1-v2" / "saved_model")
    assert [tensor["name"] for tensor in call_json("inspect", folder, "--tags", "gpu,serve")["outputs"]] == [
        "softmax:0"
    ]
    assert [tensor["name"] for tensor in call_json("inspect", folder, "--tags", "train")["outputs"]] == ["y:0"]
    refused = call("inspect", folder)
    assert refused.exit_code == 1 and "train; gpu,serve" in refused.stderr


def test_an_empty_list_of_tags_chooses_the_graph_without_tags(tmp_path: Path) -> None:
    folder = str(hub_module(tmp_path))
    refused = call("inspect", folder)
    assert refused.exit_code == 1 and ", --tags '' for the one without tags" in refused.stderr
    assert [tensor["name"] for tensor in call_json("inspect", folder, "--tags", "")["outputs"]] == ["softmax:0"]
    assert call("check", folder, "--tags", "").exit_code == 0
    for arguments in (
        ["freeze", folder, "--fetches", "softmax", "-o"],
        ["export", folder, "--format", "saved_model", "-o"],
    ):
        written = str(tmp_path / arguments[0])
        done = call(*arguments, written, "--tags=")
        assert done.exit_code == 0, done.stderr
        assert gr.load(written).graph.node("softmax")
    assert "gr.load(MODEL, tags=[])" in call("script", folder, "--tags", "").stdout
    assert "an empty name" in call("inspect", folder, "--tags", "serve,").stderr


def test_inspect_lists_every_graph_of_an_event_file() -> None:
    found = call_json("inspect", str(CORPUS / "event_start" / "tf1.4.1-v2" / "events"))
    assert {graph["kind"] for graph in found["graphs"]} <= {"GraphDef", "MetaGraphDef"}
    assert found["graphs"] and all(graph["nodes"] for graph in found["graphs"])


def test_inspect_does_not_take_the_savers_file_name_for_an_input() -> None:
    found = call_json("inspect", str(CORPUS / "linear" / "tf1.15.5-v2" / "graph.pb"))
    assert [(tensor["name"], tensor["dtype"], tensor["shape"]) for tensor in found["inputs"]] == [
        ("x:0", "float32", [None, 4])
    ]


def test_inspect_in_words() -> None:
    text = call("inspect", str(CORPUS / "contrib_op" / "tf1.15.5-v2" / "model.ckpt.meta")).stdout
    assert re.search(r"Resampler +1 node +last in 1\.15\.5 +tensorflow\.contrib\.resampler", text)
    assert re.search(r"kernel +ref +float32 +\[2, 2, 1, 1\]", text)


# check


@pytest.mark.parametrize(
    ("tag", "strict", "status", "words"),
    [
        ("extra", False, 0, "unused     momentum float32 [2]"),
        ("missing", False, 0, "missing    b float32 [2]"),
        ("missing", True, 1, "1 of 2 variables fit"),
        ("shape", False, 1, "graph float32 [3, 2], checkpoint w float32 [3, 5]"),
        ("reshaped", False, 1, "graph float32 [3, 2], checkpoint w float32 [2, 3]"),
        ("dtype", False, 1, "graph float32 [2], checkpoint b float64 [2]"),
        ("renamed", False, 1, "missing    w float32 [3, 2]; near: tower/w"),
    ],
)
def test_check_tells_what_does_not_fit(tag: str, strict: bool, status: int, words: str) -> None:
    stranger = case("mismatch/tf1.4.1-v2")
    options = ["--strict"] if strict else []
    result = call("check", str(stranger.meta), stranger.other_prefixes[tag], *options)
    assert result.exit_code == status
    assert words in result.stdout
    as_json = json.loads(call("check", str(stranger.meta), stranger.other_prefixes[tag], "--json").stdout)
    assert as_json["fits"] is (status == 0 or strict)
    assert ("guess      all 2 missing names match" in result.stdout) is (tag == "renamed")


@pytest.mark.parametrize(
    "rename", [["auto"], ["tower/=", "--strict"], ["tower/w=w", "--rename", "tower/b=b", "--strict"]]
)
def test_check_with_other_names(rename: list[str]) -> None:
    stranger = case("mismatch/tf1.4.1-v2")
    result = call("check", str(stranger.meta), stranger.other_prefixes["renamed"], "--rename", *rename)
    assert result.exit_code == 0
    assert "2 of 2 variables fit" in result.stdout


@pytest.mark.parametrize("case", WITH_META, ids=lambda case: case.id)
def test_check_of_a_model_with_its_own_checkpoint(case: Case) -> None:
    found = call("check", str(case.meta))
    saved = {part["variable"] for saver in case.facts["savers"].values() for key in saver["keys"].values()
             for part in key["parts"]}  # fmt: skip
    restored = json.loads(call("check", str(case.meta), "--json").stdout)["restored"]
    assert found.exit_code == 0
    assert {f"{name}:0" for name in restored} <= saved
    assert restored


# freeze


def test_freeze_writes_a_graph_without_variables(tmp_path: Path) -> None:
    output = tmp_path / "frozen.pb"
    result = call("freeze", META, "--fetches", "y:0", "--feeds", "x", "-o", str(output))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].startswith(f"wrote      {output}, {output.stat().st_size:,} bytes, ")
    assert "\nfetches    y:0\n" in result.stdout
    assert "\nvariables  2 frozen, 0 not needed\n" in result.stdout
    frozen = gr.load(output)
    values = case("linear/tf0.12.1-v1").oracle["variables"]
    assert len(frozen.variables) == 0
    for name, expected in values.items():
        found = frozen.graph.constant(name)
        assert found is not None
        np.testing.assert_array_equal(found, expected)


def test_freeze_keeps_variables_and_writes_them_beside(tmp_path: Path) -> None:
    one = case("linear/tf1.4.1-v2")
    output = str(tmp_path / "frozen.pb")
    arguments = ["freeze", str(one.meta), "--fetches", "y", "--keep-variables", "b", "-o", output]
    done = call(*arguments, "--precision", "bfloat16")
    assert done.exit_code == 0 and "variables   1 frozen, 1 kept, 0 not needed" in done.stdout
    assert gr.load(output).graph.node("w").op == "Cast" and gr.load(output).variables.names() == ["b"]
    assert list(gr.load_checkpoint(tmp_path / "frozen")) == ["b"]
    again = call(*arguments[:-1], str(tmp_path / "second.pb"), "--kept-checkpoint", str(tmp_path / "frozen"))
    assert again.exit_code == 1 and "give another --kept-checkpoint, or pass --force" in again.stderr
    assert not (tmp_path / "second.pb").exists()
    assert call(*arguments).exit_code == 1 and call(*arguments, "--force").exit_code == 0


def test_freeze_with_a_checkpoint_given(tmp_path: Path) -> None:
    moved = case("moved/tf1.15.5-v2")
    output = tmp_path / "frozen.pb"
    prefix = moved.other_prefixes["latest"]
    assert call("freeze", str(moved.graph_pb), prefix, "--fetches", "y", "-o", str(output)).exit_code == 0
    for key, expected in moved.oracle["checkpoint"]["latest"].items():
        found = gr.load(output).graph.constant(key)
        assert found is not None
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("fetches", [["--fetches", "y,again"], ["--fetches", "y:0", "--fetches", " again "]])
def test_names_are_repeated_or_hold_commas(fetches: list[str], tmp_path: Path) -> None:
    model = case("key_value_table/tf1.15.5-v2")
    result = call("freeze", str(model.meta), *fetches, "-o", str(tmp_path / "frozen.pb"))
    assert "\nfetches    y:0, again:0\n" in result.stdout


def test_freeze_says_what_it_cut_once_and_on_stderr(tmp_path: Path) -> None:
    model = case("queue_input/tf1.4.1-v2")
    result = call("freeze", str(model.meta), "--fetches", "y", "-o", str(tmp_path / "frozen.pb"))
    assert result.exit_code == 0
    notes = [line for line in result.stderr.splitlines() if "batch" in line]
    assert len(notes) == 1 and notes[0].startswith("note: ") and "feed batch:0" in notes[0]
    assert "note" not in result.stdout


def test_moving_averages_are_taken_on_request(tmp_path: Path) -> None:
    model = next(one for one in cases() if any("ExponentialMovingAverage" in name for name in one.facts["variables"]))
    result = call(
        "freeze",
        str(model.meta),
        "--moving-averages",
        "--fetches",
        model.facts["fetches"][0],
        "-o",
        str(tmp_path / "f.pb"),
    )
    assert result.exit_code == 0, result.stderr
    assert "takes its moving average" in result.stderr


def test_first_values_on_request(tmp_path: Path) -> None:
    model, output = case("metrics_local/tf1.15.5-v2"), tmp_path / "frozen.pb"
    arguments = ["freeze", str(model.meta), "--fetches", "accuracy_now", "-o", str(output)]
    refused = call(*arguments)
    assert refused.exit_code == 1 and "accuracy/total" in refused.stderr
    assert call(*arguments, "--initialize").exit_code == 0
    total = gr.load(output).graph.constant("accuracy/total")
    assert total is not None and total.tolist() == 0  # the oracle's session had run its initializer


def test_updates_are_refused_unless_told(tmp_path: Path) -> None:
    model, output = case("update_unordered/tf1.15.5-v2"), tmp_path / "frozen.pb"
    arguments = ["freeze", str(model.meta), "--fetches", "y", "-o", str(output)]
    refused = call(*arguments)
    assert refused.exit_code == 1
    assert "raise_gain" in refused.stderr and "pass --on-update initial" in refused.stderr
    assert not output.exists()
    assert call(*arguments, "--on-update", "initial").exit_code == 0
    assert output.exists()


def test_models_built_for_training_are_made_for_use(tmp_path: Path) -> None:
    model, output = case("convnet/tf1.15.5-v2"), tmp_path / "frozen.pb"
    arguments = ["freeze", str(model.meta), "--fetches", "scores/out", "-o", str(output)]
    assert call(*arguments, "--set", "is_training=false", "--set", "keep_prob:0=1").exit_code == 0
    assert [node.name for node in gr.load(output).graph.nodes.values() if node.op == "Placeholder"] == ["images"]
    made_for_use = ["--set", "is_training=false", "--inference", "--simplify"]
    done = call(*arguments, *made_for_use)
    assert done.exit_code == 0 and "1 dropouts are taken out: dropout/mul_1" in done.stderr
    ops = {node.op for node in gr.load(output).graph.nodes.values()}
    assert ops == {
        "Placeholder", "Const", "Conv2D", "BiasAdd", "Relu", "MaxPool", "Reshape", "MatMul", "Identity",
    }  # fmt: skip
    half = call(*arguments[:-1], str(tmp_path / "half.pb"), *made_for_use, "--precision", "float16")
    assert half.exit_code == 0 and "1 batch norms are folded into weights" in half.stderr
    found = gr.load(tmp_path / "half.pb").graph
    assert {node.op for node in found.nodes.values()} == {*ops, "Cast"}
    assert found.value(found.node("scores/weights/float16")).dtype.name == "float16"
    assert call(*arguments, "--set", "is_training").exit_code == 2
    refused = call(*arguments, "--set", "is_training=perhaps")
    assert refused.exit_code == 1 and "cannot be 'perhaps'" in refused.stderr


# outputs


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return shutil.copytree(LINEAR, tmp_path / "model")


@pytest.mark.parametrize("name", ["model.ckpt", "model.ckpt.meta", "checkpoint", "graph.pb"])
def test_checkpoints_and_the_model_itself_are_not_overwritten(name: str, model_folder: Path) -> None:
    before = (model_folder / name).read_bytes()
    arguments = ["freeze", str(model_folder / "graph.pb"), str(model_folder / "model.ckpt"), "--fetches", "y", "-o"]
    refused = call(*arguments, str(model_folder / name))
    assert refused.exit_code == 1 and "--force" in refused.stderr
    assert (model_folder / name).read_bytes() == before
    assert call(*arguments, str(model_folder / name), "--force").exit_code == 0
    assert len(gr.load(model_folder / name).variables) == 0


@pytest.mark.parametrize("name", ["saved_model.pb", "assets/vocabulary.txt", "variables/variables.index"])
def test_what_a_saved_model_is_made_of_is_not_replaced(name: str, tmp_path: Path) -> None:
    saved = shutil.copytree(CORPUS / "saved_model_assets" / "tf1.4.1-v2" / "saved_model", tmp_path / "saved_model")
    before = (saved / name).read_bytes()
    arguments = ["freeze", str(saved), "-o", str(saved / name)]
    result = call(*arguments)
    assert result.exit_code == 1 and "write somewhere else, or pass --force" in result.stderr
    assert (saved / name).read_bytes() == before
    assert call(*arguments, "--force").exit_code == 0
    assert len(gr.load(saved / name).variables) == 0


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link.pb").symlink_to(tmp_path / "frozen.pb")
    assert call("freeze", META, "--fetches", "y", "-o", str(tmp_path / "link.pb")).exit_code == 0
    assert (tmp_path / "link.pb").is_symlink() and (tmp_path / "frozen.pb").stat().st_size > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["freeze", META, "--fetches", "y"],
        ["freeze", META, "--fetches", "y", "--format", "memmapped"],
        ["freeze", META, "--fetches", "y", "--format", "graph_def_text"],
        ["export", META, "--format", "graph_def"],
    ],
)
def test_one_file_is_written_into_a_pipe(arguments: list[str], tmp_path: Path) -> None:
    """As cp would: the pipe stays a pipe, what is read from it is the file, and nothing else goes to stdout."""
    pipe, frozen = tmp_path / "pipe", tmp_path / "frozen.pb"
    os.mkfifo(pipe)
    assert call(*arguments, "-o", str(frozen)).exit_code == 0
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        result = call(*arguments, "-o", str(pipe))
        assert result.exit_code == 0 and not result.stdout and "wrote" in result.stderr
        assert reader.communicate()[0] == frozen.read_bytes()
    assert pipe.is_fifo() and {path.name for path in tmp_path.iterdir()} == {"pipe", "frozen.pb"}


def test_dev_null_takes_one_file_and_stays_what_it_is() -> None:
    before = set(os.listdir("/dev"))
    result = call("freeze", META, "--fetches", "y", "-o", "/dev/null")
    assert result.exit_code == 0 and "wrote      /dev/null, 7 nodes" in result.stderr
    result = call("freeze", META, "--fetches", "y", "-o", "/dev/null", "--verify")
    assert result.exit_code == 1 and "/dev/null keeps nothing that could be verified" in result.stderr
    assert Path("/dev/null").is_char_device() and set(os.listdir("/dev")) == before


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["export", META, "--format", "checkpoint", "--force"], "a checkpoint is several files"),
        (["export", META, "--format", "meta_graph", "--force"], "a MetaGraph and its checkpoint are several files"),
        (["export", META, "--format", "saved_model", "--fetches", "y", "--force"], "a SavedModel is a directory"),
        (["freeze", META, "--format", "saved_model", "--fetches", "y", "--force"], "a SavedModel is a directory"),
        (["checkpoint", "convert", str(LINEAR / "model.ckpt"), "--force"], "a checkpoint is several files"),
    ],
)
def test_several_files_are_not_made_beside_a_pipe(arguments: list[str], what: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    result = call(*arguments, "-o", str(pipe))
    assert result.exit_code == 1 and f"{pipe} is a device or a pipe, and {what}: give a name" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"] and pipe.is_fifo()


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", META, META, "--feeds", "no.npz"],
        ["verify", META, "no.pb"],
        ["verify", META, META, "--fetches", "nonsense"],
        ["freeze", META, "--fetches", "y", "-o", "never.pb", "--verify-feeds", "no.npz"],
        ["freeze", META, "--fetches", "nonsense", "-o", "never.pb", "--verify"],
    ],
)
def test_what_is_wrong_is_said_before_tensorflow_is_imported(arguments: list[str]) -> None:
    code = "import sys; sys.modules['tensorflow'] = None; from graph_restore.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and re.search("no.npz|no.pb|nonsense", done.stderr), done.stderr
    assert "TensorFlow" not in done.stderr and not Path("never.pb").exists()


def test_a_directory_is_never_overwritten(tmp_path: Path) -> None:
    for options in ([], ["--force"]):
        refused = call("freeze", META, "--fetches", "y", "-o", str(tmp_path), *options)
        assert refused.exit_code == 1 and "irectory" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_plain_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    output = tmp_path / "frozen.pb"
    output.write_bytes(b"old")
    assert call("freeze", META, "--fetches", "nonsense", "-o", str(output)).exit_code == 1
    assert output.read_bytes() == b"old"
    assert call("freeze", META, "--fetches", "y", "-o", str(output)).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["frozen.pb"]
    assert len(gr.load(output).graph.nodes) > 0


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("terminal", "limit", "shown"), [(True, 1, True), (True, 50 << 20, False), (False, 1, False)])
def test_a_bar_is_shown_on_a_terminal_when_there_is_much_to_write(
    terminal: bool, limit: int, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = _Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(progress_module, "LARGE", limit)
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress_module.progress(gr.load(META)) as advance:
        if advance is not None:
            advance(1)
    assert (advance is not None) is shown
    assert bool(stderr.getvalue()) is shown


# files that run


@pytest.mark.tensorflow
def test_a_file_from_the_command_line_runs_in_tensorflow(tmp_path: Path) -> None:
    import tensorflow as tf

    model, output = case("convnet/tf1.4.1-v2"), tmp_path / "frozen.pb"
    assert call("freeze", str(model.meta), "--fetches", "scores/out", "-o", str(output)).exit_code == 0
    graph_def = tf.compat.v1.GraphDef.FromString(output.read_bytes())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        found = session.run("scores/out:0", model.oracle["feeds"])
    np.testing.assert_allclose(found, model.oracle["outputs"]["scores/out:0"], rtol=1e-5, atol=1e-6)


# other formats


def test_freeze_writes_packages_and_saved_models(tmp_path: Path) -> None:
    for output, form in ((tmp_path / "x.pbmm", []), (tmp_path / "served", ["--format", "saved_model"])):
        done = call("freeze", META, "--fetches", "y", "-o", str(output), *form)
        assert done.exit_code == 0 and f"wrote      {output}, " in done.stdout
        assert gr.load(output).source.format == (form[-1] if form else "memmapped")
    refused = call("freeze", META, "--fetches", "y", "-o", str(tmp_path / "served"), "--format", "saved_model")
    assert refused.exit_code == 1 and "--force" in refused.stderr
    again = call("freeze", META, "--fetches", "y", "-o", str(tmp_path / "served"), "--format", "saved_model", "--force")
    assert again.exit_code == 0


EXPORTS = {
    "saved_model": (["served", "--format", "saved_model", "--fetches", "y"], {"served/saved_model.pb"}),
    "meta_graph": (["m", "--format", "meta_graph"], {"m.meta", "m.index"}),
    "meta_graph by suffix": (["new/m.meta"], {"new/m.meta", "new/m.index"}),
    "checkpoint": (["m", "--format", "checkpoint"], {"m.index", "m.data-00000-of-00001"}),
    "graph_def": (["graph.pb"], {"graph.pb"}),
}


@pytest.mark.parametrize(("arguments", "files"), EXPORTS.values(), ids=EXPORTS)
def test_export_writes(arguments: list[str], files: set[str], tmp_path: Path) -> None:
    output, *options = arguments
    done = call("export", META, "-o", str(tmp_path / output), *options)
    assert done.exit_code == 0 and f"wrote {tmp_path / output}" in done.stdout
    assert files <= {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    if output != "graph.pb":
        refused = call("export", META, "-o", str(tmp_path / output), *options)
        assert refused.exit_code == 1 and "--force" in refused.stderr
        assert call("export", META, "-o", str(tmp_path / output), *options, "--force").exit_code == 0


def test_export_cuts_saved_models_only(tmp_path: Path) -> None:
    done = call("export", META, "-o", str(tmp_path / "x.pb"), "--fetches", "y")
    assert done.exit_code == 2 and "--format saved_model" in done.stderr and not list(tmp_path.iterdir())


SWAPPED = {
    "an index": (
        "linear/tf1.4.1-v2",
        "model.ckpt.index",
        2,
        "graph.pb is a model: MODEL comes first, CHECKPOINT second",
    ),
    "a V1 file": (
        "linear/tf0.12.1-v1",
        "model.ckpt",
        1,
        "graph.pb: this is no checkpoint, but a GraphDef, which is a model",
    ),
    "a directory": ("mismatch/tf1.4.1-v2", "renamed", 2, "only the checkpoint model.ckpt, which goes second; pass"),
    "a shard": ("sharded/tf1.15.5-v1", "model.ckpt-00000-of-00002", 2, "graph.pb is a model: MODEL comes first"),
}


@pytest.mark.parametrize("verb", ["check", "freeze", "export"])
@pytest.mark.parametrize("name", SWAPPED)
def test_model_and_checkpoint_the_wrong_way_round(verb: str, name: str, tmp_path: Path) -> None:
    identity, file, status, words = SWAPPED[name]
    folder = case(identity).directory
    output = [] if verb == "check" else ["-o", str(tmp_path / "x.pb")]
    result = call(verb, str(folder / file), str(folder / "graph.pb"), *output)
    assert result.exit_code == status and words in result.stderr, result.stderr
    assert "byte " not in result.stderr and list(tmp_path.iterdir()) == []


MESSAGES = {
    "mismatch": (["freeze", "graph.pb", "reshaped"], "pass --on-mismatch skip, --cast, --rename or --exclude to"),
    "a guess": (["freeze", "graph.pb", "renamed"], "pass --rename tower/=, or --rename auto"),
    "of check": (["check", "graph.pb", "renamed"], "pass --rename tower/=, or --rename auto"),
    "after a rename": (
        ["check", "graph.pb", "renamed", "--rename", "=x/"],
        "pass --rename =x/ --rename 're:^x/tower/='",
    ),
    "after an expression": (
        ["check", "graph.pb", "renamed", "--rename", "re:^tow=x"],
        "pass --rename 're:^tow=x' --rename 're:^xer/='",
    ),
    "an expression": (
        ["check", "graph.pb", "renamed", "--include", "re:("],
        "Invalid value for '--include': '(' is no regular",
    ),
    "another": (
        ["check", "graph.pb", "renamed", "--rename", "re:(=x"],
        "Invalid value for '--rename': '(' is no regular",
    ),
    "a replacement": (["check", "graph.pb", "renamed", "--rename", r"re:^t=\9"], r"'\\9' is no replacement for '^t'"),
    "no replacement": (["check", "graph.pb", "renamed", "--rename", "re:^t"], "re:PATTERN=NEW, where NEW may be empty"),
    "another format": (
        ["export", "graph.pb", "renamed", "-o", "x.onnx"],
        "x.onnx: no .onnx files are written here; freeze",
    ),
    "swapped, alone": (
        ["checkpoint", "ls", "graph.pb"],
        "which is a model; a model goes first, as in graph-restore check",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_speak_of_options(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, words = MESSAGES[name]
    monkeypatch.chdir(case("mismatch/tf1.4.1-v2").directory)
    result = call(*arguments, *(["-o", str(tmp_path / "x.pb")] if arguments[0] == "freeze" else []))
    assert result.exit_code in (1, 2) and words in result.output, result.output
    assert "on_mismatch" not in result.output and "rename=" not in result.output


@pytest.mark.parametrize(
    "options",
    [["--rename", "re:^tower/(.)=" r"\1"], ["--rename", "tower/=x/", "--rename", "re:^x/="], ["--rename", "tower/="]],
)
def test_expressions_rename_and_choose(options: list[str]) -> None:
    folder = case("mismatch/tf1.4.1-v2").directory
    found = call_json("check", str(folder / "graph.pb"), str(folder / "renamed"), *options, "--json")
    assert found["restored"] == {"w": "tower/w", "b": "tower/b"}
    chosen = call_json(
        "check", str(folder / "graph.pb"), str(folder / "renamed"), *options, "--include", "re:^b,?$", "--json"
    )
    assert chosen["restored"] == {"b": "tower/b"}


def test_what_disagrees_is_skipped_on_request(tmp_path: Path) -> None:
    folder = case("mismatch/tf1.4.1-v2").directory
    arguments = [str(folder / "graph.pb"), str(folder / "reshaped"), "--on-mismatch", "skip"]
    assert call("check", *arguments[:2]).exit_code == 1
    assert call("check", *arguments).exit_code == 0
    assert "w: no value" in call("freeze", *arguments, "-o", str(tmp_path / "a.pb"), "--fetches", "y").stderr
    written = call("export", *arguments, "--format", "checkpoint", "--include", "b", "-o", str(tmp_path / "m"))
    assert "w" in written.output  # which has no value still, and is named


def test_local_variables_are_told_with_what_gives_them_values(tmp_path: Path) -> None:
    model = str(case("metrics_local/tf1.4.1-v2").meta)
    words = "local variables are in no checkpoint: accuracy/total, accuracy/count; --initialize gives them first values"
    assert f"note: {words}" in call("check", model).stderr
    arguments = ["freeze", model, "--fetches", "accuracy/value", "-o", str(tmp_path / "a.pb")]
    failed = call(*arguments)
    assert (
        failed.exit_code == 1 and "2 of them are local variables, which Savers leave out; --initialize" in failed.stderr
    )
    assert call(*arguments, "--initialize").exit_code == 0
