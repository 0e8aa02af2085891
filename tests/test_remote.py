"""Paths that lead to stores and into archives: found, read by ranges, and refused with what to do."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import CORPUS, case
from test_checkpoint_paths import SPELLINGS

import graph_restore as gr
from graph_restore.checkpoint import apply_relocation, convert, find_relocation, load_tensors, verify_checkpoint
from graph_restore.errors import CorruptionError, PackageRequiredError, UnsupportedFormatError
from graph_restore.storage import archive, files

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

V1, V2 = case("linear/tf0.12.1-v1"), case("linear/tf0.12.1-v2")
SHARDED_V1, SHARDED_V2 = case("sharded/tf0.12.1-v1"), case("sharded/tf0.12.1-v2")
ASSETS = case("saved_model_assets/tf1.15.5-v2")
LARGE = 64 << 20

Mount = Callable[[Path], str]


def in_memory(directory: Path, tmp_path: Path) -> str:
    root = f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").put(f"{directory}/", root, recursive=True)
    return root


def in_zip(directory: Path, tmp_path: Path, compression: int = zipfile.ZIP_DEFLATED) -> str:
    path = tmp_path / "run.zip"
    with zipfile.ZipFile(path, "w", compression) as file:
        for member in sorted(directory.rglob("*")):
            file.write(member, member.relative_to(directory))
    return str(path)


def in_stored_zip(directory: Path, tmp_path: Path) -> str:
    return in_zip(directory, tmp_path, zipfile.ZIP_STORED)


def in_tar(directory: Path, tmp_path: Path, suffix: str = "") -> str:
    path = tmp_path / f"run.tar{'.' if suffix else ''}{suffix}"
    with tarfile.open(path, f"w:{suffix}") as file:  # type: ignore[call-overload]
        file.add(directory, "./inside")
    return f"{path}/inside"


def in_tar_gz(directory: Path, tmp_path: Path) -> str:
    return in_tar(directory, tmp_path, "gz")


def in_tar_xz(directory: Path, tmp_path: Path) -> str:
    return in_tar(directory, tmp_path, "xz")


def zip_in_memory(directory: Path, tmp_path: Path) -> str:
    url = f"memory://{tmp_path.name}/run.zip"
    fsspec.filesystem("memory").put(in_zip(directory, tmp_path), url)
    return url


MOUNTS = [in_memory, in_zip, in_stored_zip, in_tar, in_tar_gz, in_tar_xz, zip_in_memory]


@pytest.fixture(autouse=True)
def _empty_memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]
    archive.open_archive.cache_clear()


@pytest.fixture(params=MOUNTS, ids=lambda mount: mount.__name__)
def mount(request: pytest.FixtureRequest, tmp_path: Path) -> Mount:
    return lambda directory: request.param(directory, tmp_path)


@pytest.mark.parametrize("directory, given, version, prefix", SPELLINGS)
def test_every_spelling_of_a_checkpoint(mount: Mount, directory: Path, given: str, version: int, prefix: str) -> None:
    root = mount(directory)
    path = os.path.join(root, given)
    found = gr.load_checkpoint(path)
    assert (found.version, found.prefix.rstrip("/")) == (version, os.path.join(root, prefix).rstrip("/"))
    there = gr.load_checkpoint(os.path.join(directory, given))
    assert list(found) == list(there)
    for name in there:
        np.testing.assert_array_equal(found[name].read(), there[name].read())


@pytest.mark.parametrize("one", [V1, V2, SHARDED_V1, SHARDED_V2], ids=lambda one: one.id)
def test_values_are_those_the_old_tensorflow_saw(mount: Mount, one: Any) -> None:
    found = gr.load_checkpoint(f"{mount(one.directory)}/model.ckpt")
    expected = one.oracle["checkpoint"][""]
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].read(), value)


@pytest.mark.parametrize("given", ["model.ckpt", "model.ckpt.meta", ""])
def test_a_model_is_loaded_restored_and_frozen(mount: Mount, tmp_path: Path, given: str) -> None:
    outputs = []
    for number, root in enumerate([str(V2.directory), mount(V2.directory)]):
        output = tmp_path / f"{number}.pb"
        gr.export(gr.freeze(gr.restore(gr.load(os.path.join(root, given))), ["y:0"]), output)
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1]


def test_a_saved_model_with_its_vocabulary(mount: Mount) -> None:
    root = mount(ASSETS.directory)
    model = gr.load(f"{root}/saved_model/")
    assert model.source.checkpoint is not None and model.source.checkpoint.startswith(root)
    local = gr.load(ASSETS.directory / "saved_model")
    fetches = [info.name for info in next(iter(local.signatures.values())).outputs.values()]
    frozen, expected = (gr.freeze(gr.restore(one), fetches).graph.materialize() for one in (model, local))
    assert frozen == expected


def test_weights_files(mount: Mount, tmp_path: Path) -> None:
    values = {name: tensor.read() for name, tensor in gr.load_checkpoint(V2.prefix).items()}
    for name in ("w.npz", "w.safetensors"):
        convert(V2.prefix, f"{tmp_path}/weights/{name}")
    root = mount(tmp_path / "weights")
    for name in ("w.npz", "w.safetensors"):
        found = load_tensors(f"{root}/{name}")
        assert {key: tensor.read().tobytes() for key, tensor in found.items()} == {
            key: value.tobytes() for key, value in values.items()
        }
        restored = gr.restore(gr.load(V2.graph_pb), f"{root}/{name}", strict=True)
        assert restored.restoration is not None and restored.restoration.checkpoint == f"{root}/{name}"
        with pytest.raises(FileNotFoundError):
            load_tensors(f"{root}/none-{name}")


@pytest.mark.parametrize("one", [SHARDED_V1, SHARDED_V2], ids=lambda one: one.id)
def test_checksums_of_a_store_are_verified(mount: Mount, one: Any) -> None:
    found = verify_checkpoint(f"{mount(one.directory)}/model.ckpt")
    assert found.ok and found.tensors == len(one.oracle["checkpoint"][""]) and found.bytes > 0


def test_the_state_file_of_a_store_is_shown_and_never_written(mount: Mount) -> None:
    relocation = find_relocation(mount(case("moved/tf1.15.5-v2").directory) + "/")
    assert [one.relative for one in relocation.all] == ["model.ckpt-10", "model.ckpt-20"] and relocation.changes
    with pytest.raises(UnsupportedFormatError, match="never written to"):
        apply_relocation(relocation)


@pytest.mark.parametrize("given", ["graph.pb", "graph.pbtxt"])
def test_a_bare_graph(mount: Mount, given: str) -> None:
    assert set(gr.load(f"{mount(V2.directory)}/{given}").graph.nodes) == set(gr.load(V2.graph_pb).graph.nodes)


def test_an_event_file_in_a_directory(mount: Mount) -> None:
    directory = next(path.parent for path in sorted(CORPUS.glob("event*/*/**/*tfevents*")))
    assert set(gr.load(f"{mount(directory)}/").graph.nodes) == set(gr.load(directory).graph.nodes)


@pytest.mark.parametrize(
    "given, plain",
    [
        ("zip://a/model.ckpt::run.zip", "run.zip/a/model.ckpt"),
        ("zip:///model.ckpt::gs://bucket/run.zip", "gs://bucket/run.zip/model.ckpt"),
        ("tar://model.ckpt::run.tar.gz", "run.tar.gz/model.ckpt"),
        ("zip://m::file:///data/run.zip", "/data/run.zip/m"),
        ("zip://::run.zip", "run.zip/"),
        ("file:///data/model.ckpt", "/data/model.ckpt"),
        ("s3://bucket/model.ckpt", "s3://bucket/model.ckpt"),
        ("run/model.ckpt", "run/model.ckpt"),
    ],
)
def test_paths_are_brought_to_one_form(given: str, plain: str) -> None:
    assert files.plain_path(given) == plain


def test_members_addressed_as_chained_urls(tmp_path: Path) -> None:
    root = in_zip(V2.directory, tmp_path)
    assert list(gr.load_checkpoint(f"zip://model.ckpt::{root}")) == list(gr.load_checkpoint(V2.prefix))
    assert gr.load(f"zip://model.ckpt.meta::{root}").source.checkpoint == f"{root}/model.ckpt"
    with pytest.raises(UnsupportedFormatError, match=r"rename it \(expected a \.zip"):
        gr.load("zip://model.ckpt.meta::run.bin")


def test_a_directory_named_like_an_archive_stays_a_directory(tmp_path: Path) -> None:
    shutil.copytree(V2.directory, tmp_path / "run.zip")
    assert gr.load_checkpoint(tmp_path / "run.zip").prefix == str(tmp_path / "run.zip" / "model.ckpt")


def test_an_archive_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    prefix = in_zip(V2.directory, tmp_path) + "/model.ckpt"
    assert gr.load_checkpoint(prefix).version == 2
    in_zip(V1.directory, tmp_path)
    assert gr.load_checkpoint(prefix).version == 1


def test_a_packed_tar_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = in_tar_gz(SHARDED_V2.directory, tmp_path)
    opened = []
    unpack = archive._UNPACKERS[b"\x1f\x8b"]
    monkeypatch.setitem(archive._UNPACKERS, b"\x1f\x8b", lambda file: opened.append(1) or unpack(file))
    found = gr.load_checkpoint(root)
    assert [tensor.read() is not None for tensor in found.values()] and opened == [1]


def test_links_in_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "run.tar"
    with tarfile.open(path, "w") as file:
        file.add(V1.directory / "model.ckpt", "step/model")
        for name, kind, target in [("hard", tarfile.LNKTYPE, "step/model"), ("step/soft", tarfile.SYMTYPE, "model")]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            file.addfile(info)
    for name in ("hard", "step/soft"):
        assert list(gr.load_checkpoint(path / name)) == list(gr.load_checkpoint(V1.prefix))


@pytest.mark.parametrize("make", [in_zip, in_stored_zip, in_tar, in_tar_gz, in_tar_xz])
def test_damaged_archives_raise_format_errors_only(make: Any, tmp_path: Path) -> None:
    root = make(V2.directory, tmp_path)
    path = Path(re.sub(r"/inside$", "", root))
    data = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for number in range(60):
        bad = bytearray(data)
        if number % 3 == 0:
            del bad[int(random.integers(len(bad))) :]
        else:
            for place in random.integers(len(bad) * 9 // 10 if number % 3 == 1 else 0, len(bad), 4):
                bad[place] ^= int(random.integers(1, 256))
        path.write_bytes(bad)
        try:
            found = gr.load_checkpoint(f"{root}/model.ckpt")
            for tensor in found.values():
                tensor.read()
        except (gr.FormatError, gr.CheckpointNotFoundError):
            refused += 1
    assert refused > 10


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    in_zip(V2.directory, tmp_path)
    data = path.read_bytes()
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # set "encrypted" in every header
        for match in re.finditer(re.escape(signature), data):
            data = data[: match.start() + flags] + b"\x01" + data[match.start() + flags + 1 :]
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match="encrypted|password"):
        gr.load(f"{path}/graph.pb")


def test_a_missing_shard_is_named(mount: Mount, tmp_path: Path) -> None:
    directory = tmp_path / "broken"
    shutil.copytree(SHARDED_V2.directory, directory)
    (directory / "model.ckpt.data-00001-of-00002").unlink()
    with pytest.raises(gr.CheckpointNotFoundError, match=r"missing: \S+model.ckpt.data-00001-of-00002"):
        gr.load_checkpoint(f"{mount(directory)}/model.ckpt")


def test_what_is_there_is_listed_when_nothing_is_found(mount: Mount) -> None:
    with pytest.raises(gr.CheckpointNotFoundError, match=r"model\.ckpt.*near names: model\.ckpt"):
        gr.load_checkpoint(f"{mount(V2.directory)}/modle.ckpt")
    with pytest.raises(FileNotFoundError):
        gr.load("memory://nowhere/graph.pb")


@pytest.mark.parametrize(
    "state, expected",
    [
        ("memory://{root}/other/model.ckpt", "memory://{root}/other/model.ckpt"),  # in the same store
        ("/tmp/{root}/model.ckpt", "memory://{root}/run/model.ckpt"),  # of the machine that wrote it
        ("gs://bucket/model.ckpt", "memory://{root}/run/model.ckpt"),  # another store is not asked
    ],
)
def test_state_files_stay_in_their_store(tmp_path: Path, state: str, expected: str) -> None:
    root = in_memory(V2.directory, tmp_path).removeprefix("memory://")
    memory = fsspec.filesystem("memory")
    for folder in ("run", "other"):
        memory.put(f"{V2.directory}/", f"memory://{root}/{folder}", recursive=True)
    memory.pipe(f"/{root}/run/checkpoint", f'model_checkpoint_path: "{state.format(root=root)}"'.encode())
    assert gr.load_checkpoint(f"memory://{root}/run").prefix == expected.format(root=root)


def test_a_state_file_on_disk_sends_nobody_to_a_store(tmp_path: Path) -> None:
    shutil.copytree(V2.directory, tmp_path, dirs_exist_ok=True)
    memory = fsspec.filesystem("memory")
    memory.put(f"{V1.directory}/", "memory://far", recursive=True)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "memory://far/model.ckpt"')
    assert gr.load_checkpoint(tmp_path).prefix == str(tmp_path / "model.ckpt")


class Server(ThreadingHTTPServer):
    """Serves a directory, with ranges or without, and counts what it gives."""

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.directory, self.ranges, self.refuses = directory, True, 0
        self.requests: list[tuple[str, str]] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.server.requests.append((self.command, self.path))
        path = self.server.directory / self.path.strip("/")
        if self.server.refuses or not path.is_file():
            self.send_response(self.server.refuses or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.server.ranges else None
        start, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            left = end - start if body else 0
            try:
                while left:
                    piece = file.read(min(left, 1 << 16))
                    self.wfile.write(piece)
                    self.server.sent += len(piece)
                    left -= len(piece)
            except OSError:
                self.close_connection = True  # the reader had enough

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    directory = tmp_path / "served"
    shutil.copytree(SHARDED_V2.directory, directory / "v2")
    shutil.copytree(SHARDED_V1.directory, directory / "v1")
    shutil.copytree(ASSETS.directory / "saved_model", directory / "saved_model")
    with Server(directory) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole"])
@pytest.mark.parametrize(
    "given",
    ["v2/model.ckpt", "v2/model.ckpt.meta", "v2/model.ckpt.index", "v2/checkpoint", "v2/", "v1/",
     "v1/model.ckpt-?????-of-00002"],
)  # fmt: skip
def test_checkpoints_over_http(server: Server, given: str, ranges: bool) -> None:
    server.ranges = ranges
    one = SHARDED_V2 if given.startswith("v2") else SHARDED_V1
    found = gr.load_checkpoint(f"{server.url}/{given}")
    for name, value in one.oracle["checkpoint"][""].items():
        np.testing.assert_array_equal(found[name].read(), value)


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole"])
def test_models_over_http(server: Server, ranges: bool) -> None:
    server.ranges = ranges
    for given, there in [
        ("v2/model.ckpt.meta", SHARDED_V2.directory / "model.ckpt.meta"),
        ("v2/graph.pb", SHARDED_V2.graph_pb),
        ("v2/", SHARDED_V2.directory),
        ("saved_model/", ASSETS.directory / "saved_model"),
    ]:
        model, expected = gr.load(f"{server.url}/{given}"), gr.load(there)
        assert set(model.graph.nodes) == set(expected.graph.nodes)
        if not given.endswith(".pb"):
            values = {variable.name: variable.value.read() for variable in gr.restore(expected).variables}
            assert values
            for variable in gr.restore(model).variables:
                np.testing.assert_array_equal(variable.value.read(), values.pop(variable.name))
            assert values == {}


def test_one_tensor_of_a_large_file_does_not_fetch_the_whole(server: Server) -> None:
    for path in (server.directory / "v2").glob("model.ckpt.data-*"):
        os.truncate(path, LARGE)  # what TensorFlow wrote, followed by zeros
    found = gr.load_checkpoint(f"{server.url}/v2/model.ckpt")
    name, value = next(iter(SHARDED_V2.oracle["checkpoint"][""].items()))
    assert not [path for command, path in server.requests if command == "GET" and ".data-" in path]
    before = server.sent
    np.testing.assert_array_equal(found[name].read(), value)
    assert value.nbytes <= server.sent - before < 1 << 20
    data = [path for command, path in server.requests if command == "GET" and ".data-" in path]
    assert len(data) == 1


def test_shards_are_found_by_their_number_and_nothing_is_listed(server: Server) -> None:
    gr.load_checkpoint(f"{server.url}/v2/model.ckpt")
    asked = {path for _, path in server.requests}
    assert {f"/v2/model.ckpt.data-0000{number}-of-00002" for number in (0, 1)} <= asked
    assert "/v2" not in asked and "/v2/" not in asked
    assert len(server.requests) < 25


def test_a_server_without_the_file_one_that_forbids_and_one_that_fails(server: Server) -> None:
    with pytest.raises(gr.CheckpointNotFoundError, match=r"cannot list.*-\?\?\?\?\?-of-"):
        gr.load_checkpoint(f"{server.url}/v1/model.ckpt")
    with pytest.raises(gr.CheckpointNotFoundError, match="cannot be listed"):
        gr.load_checkpoint(f"{server.url}/nothing/")
    server.refuses = 403
    with pytest.raises(FileNotFoundError):
        gr.load(f"{server.url}/v2/graph.pb")
    server.refuses = 500
    with pytest.raises(OSError, match="could not be read.*500.*try again"):
        gr.load(f"{server.url}/v2/graph.pb")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(OSError, match="could not be read.*reached"):
        gr.load_checkpoint(f"http://127.0.0.1:{port}/model.ckpt")


def test_a_read_that_fails_later_is_an_os_error(server: Server) -> None:
    found = gr.load_checkpoint(f"{server.url}/v2/model.ckpt")
    server.refuses = 503
    with pytest.raises(OSError, match="data-0000.*503|503.*try again"):
        for tensor in found.values():
            tensor.read()


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    for path, wanted in [("gs://b/model.ckpt", "gcsfs"), ("https://h/model.ckpt", "")]:
        with pytest.raises(
            PackageRequiredError, match=re.escape(f"pip install 'graph-restore[remote]' {wanted}".strip())
        ):
            gr.load_checkpoint(path)


def test_the_package_of_a_store_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("gcsfs", "s3fs"):
        monkeypatch.setitem(sys.modules, package, None)
    for path, wanted in [("gs://b/model.ckpt", "gcsfs"), ("s3://b/model.ckpt", "s3fs")]:
        with pytest.raises(PackageRequiredError, match=f"pip install {wanted} "):
            gr.load_checkpoint(path)
        with pytest.raises(ImportError, match=f"pip install {wanted} "):
            gr.load(f"{path}.meta")
    with pytest.raises(UnsupportedFormatError, match="no store of this kind"):
        gr.load("quux://b/graph.pb")


def test_local_paths_import_nothing_for_stores() -> None:
    code = f"""
import sys, graph_restore as gr
gr.restore(gr.load({V2.prefix + ".meta"!r}))
print(*sorted({{"fsspec", "aiohttp", "zipfile", "tarfile"}} & set(sys.modules) - {{"zipfile", "tarfile"}}))
print("graph_restore.storage.remote" in sys.modules, "graph_restore.storage.archive" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\nFalse False\n"


def test_reading_from_several_threads(tmp_path: Path) -> None:
    content = np.arange(1 << 18, dtype=np.uint32).tobytes()
    fsspec.filesystem("memory").pipe("/numbers", content)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("numbers", content)
    (tmp_path / "a.zip").write_bytes(buffer.getvalue())
    for path in ("memory://numbers", f"{tmp_path}/a.zip/numbers"):
        source = files.open_source(path)
        wrong: list[int] = []

        def check(start: int, source: Any = source, wrong: list[int] = wrong) -> None:
            for offset in range(start, len(content) - 4096, 40_000):
                if source.pread(offset, 4096) != content[offset : offset + 4096]:
                    wrong.append(offset)

        threads = [threading.Thread(target=check, args=(start,)) for start in range(0, 4000, 1000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
