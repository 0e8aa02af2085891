"""From what people type to the files of a checkpoint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from corpus import CORPUS, case

from graph_restore.checkpoint import find_checkpoint, latest_checkpoint, load_checkpoint
from graph_restore.checkpoint.sniff import describe_file
from graph_restore.errors import CheckpointNotFoundError, FormatError, GraphRestoreWarning

V1, V2 = case("linear/tf0.12.1-v1").directory, case("linear/tf0.12.1-v2").directory
SHARDED_V1, SHARDED_V2 = case("sharded/tf0.12.1-v1").directory, case("sharded/tf0.12.1-v2").directory


def put_v2(directory: Path, prefix: str) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copyfile(V2 / f"model.ckpt{suffix}", directory / f"{prefix}{suffix}")
    return str(directory / prefix)


def put_v1(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(V1 / "model.ckpt", path)
    return str(path)


def put_state(directory: Path, *paths: str) -> str:
    lines = [f'model_checkpoint_path: "{paths[-1]}"'] + [f'all_model_checkpoint_paths: "{path}"' for path in paths]
    (directory / "checkpoint").write_text("\n".join(lines) + "\n")
    return str(directory / "checkpoint")


SPELLINGS = [
    (V2, "model.ckpt", 2, "model.ckpt"),
    (V2, "model.ckpt.index", 2, "model.ckpt"),
    (V2, "model.ckpt.data-00000-of-00001", 2, "model.ckpt"),
    (V2, "model.ckpt.meta", 2, "model.ckpt"),
    (V2, "checkpoint", 2, "model.ckpt"),
    (V2, "", 2, "model.ckpt"),
    (V1, "model.ckpt", 1, "model.ckpt"),
    (V1, "model.ckpt.meta", 1, "model.ckpt"),
    (V1, "", 1, "model.ckpt"),
    (SHARDED_V2, "model.ckpt", 2, "model.ckpt"),
    (SHARDED_V2, "model.ckpt.data-00001-of-00002", 2, "model.ckpt"),
    (SHARDED_V1, "model.ckpt", 1, "model.ckpt-?????-of-00002"),
    (SHARDED_V1, "model.ckpt.meta", 1, "model.ckpt-?????-of-00002"),
    (SHARDED_V1, "model.ckpt-?????-of-00002", 1, "model.ckpt-?????-of-00002"),
    (SHARDED_V1, "", 1, "model.ckpt-?????-of-00002"),
    (CORPUS / "nameless_prefix/tf0.12.1-v2/export", "", 2, ""),
    (CORPUS / "nameless_prefix/tf0.12.1-v2/export", ".index", 2, ""),
    (CORPUS / "nameless_prefix/tf0.12.1-v2/export", ".meta", 2, ""),
    (CORPUS / "nameless_prefix/tf0.12.1-v2/export", "checkpoint", 2, ""),
    (CORPUS / "session_bundle/tf0.12.1-v1/bundle/00000007", "", 1, "export-00000-of-00001"),
    (CORPUS / "session_bundle/tf0.12.1-v1/bundle/00000007", "export", 1, "export-00000-of-00001"),
    (CORPUS / "session_bundle/tf0.12.1-v1/bundle/00000007", "export-00000-of-00001", 1, "export-00000-of-00001"),
    (CORPUS / "session_bundle/tf1.4.1-v2/bundle/00000007", "", 2, "export"),
    (CORPUS / "moved/tf0.12.1-v1", "", 1, "model.ckpt-20"),
    (CORPUS / "moved/tf1.15.5-v2", "", 2, "model.ckpt-20"),
]


@pytest.mark.parametrize(("directory", "given", "version", "prefix"), SPELLINGS)
def test_spellings(directory: Path, given: str, version: int, prefix: str) -> None:
    found = find_checkpoint(os.path.join(directory, given))
    assert (found.version, found.prefix) == (version, os.path.join(directory, prefix))
    assert len(load_checkpoint(os.path.join(directory, given))) > 0


def test_path_objects_and_relative_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_checkpoint(V2 / "model.ckpt").prefix == str(V2 / "model.ckpt")
    monkeypatch.chdir(V2)
    assert find_checkpoint("model.ckpt.index").prefix == "model.ckpt"
    assert find_checkpoint(".").prefix == os.path.join(".", "model.ckpt")
    monkeypatch.chdir(CORPUS / "nameless_prefix/tf0.12.1-v2/export")
    assert len(load_checkpoint(".index")) > 0


def test_saved_model_directory(tmp_path: Path) -> None:
    prefix = put_v2(tmp_path / "variables", "variables")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert find_checkpoint(tmp_path).prefix == prefix
    assert find_checkpoint(tmp_path / "variables").prefix == prefix
    assert latest_checkpoint(tmp_path) == prefix


def test_a_directory_beside_a_prefix_of_its_name(tmp_path: Path) -> None:
    prefix = put_v2(tmp_path, "model")
    inner = put_v2(tmp_path / "model", "inner")
    assert find_checkpoint(prefix).prefix == prefix
    assert find_checkpoint(prefix + "/").prefix == inner


def test_one_v1_shard_is_read_alone_and_that_is_told() -> None:
    path = SHARDED_V1 / "model.ckpt-00001-of-00002"
    with pytest.warns(GraphRestoreWarning, match="one of 2 shards"):
        shard = load_checkpoint(path)
    whole = load_checkpoint(SHARDED_V1 / "model.ckpt")
    assert 0 < len(shard) < len(whole)
    assert set(shard) < set(whole)
    assert shard.files == [str(path)]


def test_v2_wins_over_v1_and_that_is_told() -> None:
    prefix = case("both_versions/tf0.12.1-v2").prefix
    with pytest.warns(GraphRestoreWarning, match="took V2, as TensorFlow does"):
        checkpoint = load_checkpoint(prefix)
    assert checkpoint.version == 2
    assert "took V2" in checkpoint.notes[0]


@pytest.mark.parametrize("missing", ["model.ckpt-00000-of-00002", "model.ckpt-00001-of-00002"])
@pytest.mark.parametrize("given", ["model.ckpt", "model.ckpt-?????-of-00002", "model.ckpt.meta"])
def test_missing_v1_shard_is_named(tmp_path: Path, missing: str, given: str) -> None:
    for path in SHARDED_V1.glob("model.ckpt-*"):
        shutil.copyfile(path, tmp_path / path.name)
    (tmp_path / missing).unlink()
    with pytest.raises(CheckpointNotFoundError, match=f"of 2 shards these are missing: .*{missing}"):
        load_checkpoint(tmp_path / given)


def test_missing_v2_shard_is_named(tmp_path: Path) -> None:
    for path in SHARDED_V2.glob("model.ckpt.*"):
        shutil.copyfile(path, tmp_path / path.name)
    (tmp_path / "model.ckpt.data-00001-of-00002").unlink()
    with pytest.raises(CheckpointNotFoundError, match="model.ckpt.data-00001-of-00002"):
        load_checkpoint(tmp_path)


def test_two_sets_of_shards(tmp_path: Path) -> None:
    for path in SHARDED_V1.glob("model.ckpt-*"):
        shutil.copyfile(path, tmp_path / path.name)
    put_v1(tmp_path / "model.ckpt-00000-of-00003")
    with pytest.warns(GraphRestoreWarning, match="took the newest complete one, of 2"):
        assert len(load_checkpoint(tmp_path / "model.ckpt").files) == 2


class TestStateFile:
    def test_absolute_path_that_lives(self, tmp_path: Path) -> None:
        prefix = put_v2(tmp_path / "elsewhere", "model.ckpt-5")
        put_v2(tmp_path / "run", "model.ckpt-5")
        put_state(tmp_path / "run", prefix)
        assert find_checkpoint(tmp_path / "run").prefix == prefix == latest_checkpoint(tmp_path / "run")

    def test_moved_directory_is_noted_without_a_warning(self, tmp_path: Path) -> None:
        prefix = put_v2(tmp_path, "model.ckpt-5")
        put_v2(tmp_path, "model.ckpt-9")
        state = put_state(tmp_path, "/gone/run/model.ckpt-5")
        for given in (str(tmp_path), state):
            checkpoint = load_checkpoint(given)
            assert checkpoint.prefix == prefix
            assert "/gone/run/model.ckpt-5" in checkpoint.notes[0]

    @pytest.mark.parametrize(
        "recorded", ["/gone/run/best/model.ckpt-5", r"C:\\gone\\best\\model.ckpt-5", "best/model.ckpt-5"]
    )
    def test_levels_below_the_directory_are_kept(self, tmp_path: Path, recorded: str) -> None:
        prefix = put_v2(tmp_path / "best", "model.ckpt-5")
        put_state(tmp_path, recorded)
        assert find_checkpoint(tmp_path).prefix == prefix

    def test_no_way_out_of_the_directory_is_followed(self, tmp_path: Path) -> None:
        put_v2(tmp_path, "model.ckpt-5")
        (tmp_path / "run" / "sub").mkdir(parents=True)
        put_state(tmp_path / "run", "/gone/sub/../../model.ckpt-5")
        with pytest.raises(CheckpointNotFoundError, match=r"names /gone/sub/../../model.ckpt-5"):
            find_checkpoint(tmp_path / "run")

    def test_dead_path_gives_the_newest_and_a_warning(self, tmp_path: Path) -> None:
        put_v2(tmp_path, "model.ckpt-5")
        newest = put_v2(tmp_path, "model.ckpt-40")
        put_state(tmp_path, "/gone/run/model.ckpt-50")
        with pytest.warns(GraphRestoreWarning, match="took the newest checkpoint beside it"):
            assert load_checkpoint(tmp_path).prefix == newest

    def test_pattern_of_v1_shards(self, tmp_path: Path) -> None:
        for path in SHARDED_V1.glob("model.ckpt-*"):
            shutil.copyfile(path, tmp_path / path.name)
        put_state(tmp_path, "/gone/model.ckpt-?????-of-00002")
        assert find_checkpoint(tmp_path).prefix == str(tmp_path / "model.ckpt-?????-of-00002")

    def test_escaped_names(self, tmp_path: Path) -> None:
        prefix = put_v2(tmp_path, 'modèle "a"')
        (tmp_path / "checkpoint").write_text("# made by hand\nmodel_checkpoint_path: 'mod\\303\\250le \\\"a\\\"'\n")
        assert find_checkpoint(tmp_path).prefix == prefix

    def test_without_a_path(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoint").write_text('model_checkpoint_path: ""\n')
        with pytest.raises(FormatError, match="names no checkpoint"):
            find_checkpoint(tmp_path / "checkpoint")
        put_v2(tmp_path, "model.ckpt")
        with pytest.warns(GraphRestoreWarning, match="names no checkpoint"):
            load_checkpoint(tmp_path)


class TestDirectoryWithoutState:
    def test_newest_by_step(self, tmp_path: Path) -> None:
        newest = put_v2(tmp_path, "model.ckpt-100")
        put_v2(tmp_path, "model.ckpt-20")
        put_v1(tmp_path / "model.ckpt-30")
        (tmp_path / "model.ckpt-400.meta").write_bytes(b"")
        assert latest_checkpoint(tmp_path) == newest
        assert "newest of 3" in load_checkpoint(tmp_path).notes[0]

    def test_newest_by_time(self, tmp_path: Path) -> None:
        for name, time in (("a", 300), ("b", 100), ("c", 200)):
            os.utime(put_v1(tmp_path / name), (time, time))
        assert latest_checkpoint(tmp_path) == str(tmp_path / "a")

    def test_nothing(self, tmp_path: Path) -> None:
        assert latest_checkpoint(tmp_path) is None
        assert latest_checkpoint(tmp_path / "no") is None
        (tmp_path / "graph.pb").write_bytes(b"abc")
        with pytest.raises(CheckpointNotFoundError, match=r"looked for a 'checkpoint' state file.*it holds graph.pb"):
            load_checkpoint(tmp_path)


def test_not_found_tells_what_lies_there(tmp_path: Path) -> None:
    put_v2(tmp_path, "model.ckpt-1000")
    put_v1(tmp_path / "old.ckpt")
    with pytest.raises(CheckpointNotFoundError) as caught:
        load_checkpoint(tmp_path / "model.ckpt")
    text = str(caught.value)
    assert f"looked for {tmp_path}/model.ckpt.index (V2), {tmp_path}/model.ckpt (V1)" in text
    assert "holds the checkpoints model.ckpt-1000, old.ckpt" in text
    assert "near names: model.ckpt-1000" in text
    assert isinstance(caught.value, FileNotFoundError)


def test_paths_of_bytes_and_empty_ones() -> None:
    assert list(load_checkpoint(os.fsencode(V2 / "model.ckpt"))) == ["b", "w"]  # type: ignore[arg-type]
    with pytest.raises(CheckpointNotFoundError, match="an empty path; give a checkpoint's prefix"):
        load_checkpoint("")


def test_not_found_in_no_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="there is no directory"):
        load_checkpoint(tmp_path / "no" / "model.ckpt")


def test_data_without_an_index(tmp_path: Path) -> None:
    put_v2(tmp_path, "m")
    (tmp_path / "m.index").unlink()
    for given in ("m", "m.data-00000-of-00001", "m.index"):
        with pytest.raises(CheckpointNotFoundError, match="m.index is missing, .* in its data .m.data-00000-of-00001."):
            load_checkpoint(tmp_path / given)
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint in .*: m.index is missing.*m.data-00000-of-00001"):
        load_checkpoint(tmp_path)


MODELS = {
    "graph.pb": "a GraphDef, which is a model",
    "graph.pbtxt": "a GraphDef in text form, which is a model",
    "model.ckpt.meta": "a MetaGraphDef, which is a model",
    "saved_model.pb": "a SavedModel, which is a model",
    "events": "an event file, which is a model",
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_in_place_of_a_checkpoint(name: str, tmp_path: Path) -> None:
    found = case("saved_model/tf1.4.1-v2").directory / "saved_model" / "saved_model.pb"
    if name == "graph.pbtxt":
        (tmp_path / name).write_text('node { name: "x" op: "NoOp" }', encoding="utf-8")
    elif name == "events":
        (tmp_path / name).write_bytes(next(CORPUS.glob("events/*/**/events.out.*")).read_bytes())
    else:
        (tmp_path / name).write_bytes((found if name == "saved_model.pb" else V1 / name).read_bytes())
    path = tmp_path / "graph"  # not a name that tells anything, nor one that means the checkpoint beside it
    (tmp_path / name).rename(path)
    with pytest.raises(FormatError, match=f"this is no checkpoint, but {MODELS[name]}.*goes first") as caught:
        load_checkpoint(path)
    assert caught.value.path == str(path)


OTHERS = [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
    (b"\n<!DOCTYPE html><html><body>404</body></html>" + b" " * 100, "HTML page"),
    (b"<html><head></head></html>", "HTML page"),
    (b"", "an empty file"),
    (b"\x1f\x8b\x08" + bytes(60), "gzip"),
    (b"PK\x03\x04" + bytes(60), "zip"),
    (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
    (b"\x93NUMPY" + bytes(60), "numpy"),
    (b"\x80\x02}q\x00." + bytes(60), "pickle"),
    (bytes(257) + b"ustar\x0000" + bytes(300), "tar archive"),
]


@pytest.mark.parametrize(("content", "what"), OTHERS, ids=[what for _, what in OTHERS])
@pytest.mark.parametrize("name", ["m", "m.index", "m-00000-of-00001"])
def test_something_else_under_a_checkpoints_name(tmp_path: Path, content: bytes, what: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=what) as caught:
        load_checkpoint(tmp_path / "m")
    assert caught.value.path == str(tmp_path / name)


def test_cut_table_is_damage(tmp_path: Path) -> None:
    data = (V1 / "model.ckpt").read_bytes()
    (tmp_path / "m").write_bytes(data[:-5])
    assert describe_file(str(tmp_path / "m")) is None
    with pytest.raises(FormatError, match="does not end as a table does"):
        load_checkpoint(tmp_path / "m")
