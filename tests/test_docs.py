"""Runs every block of code in docs/, and takes the dumps in docs/formats apart with nothing but struct."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import case
from snippets import ROOT, Snippet, dead_links, run, run_command, snippets

from graph_restore import protos
from graph_restore.checkpoint import load_tensors, write_tensors
from graph_restore.formats.graph_def import scan
from graph_restore.storage.snappy import decompress
from graph_restore.storage.source import BytesSource

PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
BLOCKS = [snippet for page in PAGES for snippet in snippets(page)]
PYTHON = [snippet for snippet in BLOCKS if snippet.language == "python"]
CONSOLE = [snippet for snippet in BLOCKS if snippet.language == "console"]
FIRST = "import graph_restore as gr\n"


def marked(snippet: Snippet) -> Any:
    marks = [pytest.mark.tensorflow] if snippet.needs_tensorflow else []
    return pytest.param(snippet, marks=marks, id=snippet.id)


@pytest.mark.parametrize("snippet", [marked(snippet) for snippet in PYTHON])
@pytest.mark.filterwarnings("ignore::graph_restore.GraphRestoreWarning")
def test_python_does_what_the_page_says(
    snippet: Snippet, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert snippet.checks_something, f"{snippet.id} neither asserts nor shows what it prints"
    if snippet.needs_tensorflow:
        printed = run(["-c", FIRST + snippet.text], place)
    else:
        monkeypatch.chdir(place)
        exec(compile(FIRST + snippet.text, snippet.id, "exec"), {"__name__": "__main__"})
        printed = capsys.readouterr().out
    assert printed == snippet.printed


@pytest.mark.parametrize("snippet", [marked(snippet) for snippet in CONSOLE])
def test_commands_print_what_the_page_shows(snippet: Snippet, place: Path) -> None:
    for command, shown in snippet.commands():
        run_command(command, shown, place)


def test_no_page_is_lost_and_every_link_leads_somewhere() -> None:
    assert len(PAGES) >= 8 and len(PYTHON) > 35 and len(CONSOLE) > 5
    assert {page: dead_links(page) for page in PAGES} == {page: [] for page in PAGES}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES) + readme
    assert [page for page in PAGES if Path(page).name not in linked] == []


def test_the_messages_that_are_explained_are_in_the_source() -> None:
    page = (ROOT / "docs" / "freezing.md").read_text(encoding="utf-8").split("## Errors")[1]
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "graph_restore").rglob("*.py")))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    messages = re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)
    assert len(messages) > 5
    assert [part for one in messages for part in one.split(" ... ") if part not in source] == []


# --- the dumps -------------------------------------------------------------------------------------------------------

LINE = re.compile(r"([0-9a-f]{2,4})  ((?:[0-9a-f]{2}(?:\*\d+)?(?: |$))+)")
SAYS = re.compile(r"`(legacy_models/\S+)`, (\d+) bytes")
DUMP = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def dumps() -> list[Any]:
    """(file, its size, words before the dump, dump) for every dump that is said to be of a file."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for match in DUMP.finditer(text):
            section = text[text.rfind("\n## ", 0, match.start()) : match.start()]
            said = SAYS.findall(section)
            if said:
                words = section[section.rfind("```") + 3 :]
                found.append(pytest.param(*said[-1], words, match[1], id=f"{Path(page).stem}-{len(found)}"))
    return found


def parse_dump(text: str, rest: bytes = b"") -> tuple[int, bytes]:
    """(offset of the first byte, bytes) of a dump; `rest` stands for a line that ends in "and so on"."""
    start, data = None, b""
    for line in text.splitlines():
        match = LINE.match(line)
        assert match is not None, line
        start = int(match[1], 16) if start is None else start
        assert int(match[1], 16) == start + len(data), line
        listed = b"".join(
            bytes.fromhex(byte) * int(count or 1)
            for byte, _, count in (item.partition("*") for item in match[2].split())
        )
        data += rest if "and so on" in line else listed
        assert data.endswith(listed) or rest.startswith(listed)
    assert start is not None
    return start, data


def dump_of(page: str, words: str) -> str:
    """The first dump of a page after these words."""
    text = (ROOT / "docs" / "formats" / page).read_text(encoding="utf-8")
    match = DUMP.search(text, text.index(words))
    assert match is not None
    return match[1]


@pytest.mark.parametrize(("path", "size", "words", "text"), dumps())
def test_a_dump_is_the_genuine_file(path: str, size: str, words: str, text: str) -> None:
    start, data = parse_dump(text)
    whole = (ROOT / path).read_bytes()
    assert len(whole) == int(size)
    assert data == whole[start : start + len(data)]
    assert start == 0 or "ends with" in words
    assert start + len(data) == len(whole) or "begins" in words


def test_every_page_of_formats_has_dumps() -> None:
    pages = {Path(page).stem for page in PAGES if page.startswith("docs/formats/")}
    checkpoints = {"tables", "checkpoint_v1", "checkpoint_v2", "object_graphs", "weights"}
    assert pages == checkpoints | {"event_files", "graphs", "memmapped"}
    assert {one.id.split("-")[0] for one in dumps()} == pages


# --- the formats, read as the pages tell it -------------------------------------------------------------------------


def masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            value, at = varint(data, at)
            yield tag >> 3, value
        else:
            length, at = varint(data, at) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], at)
            yield tag >> 3, data[at : at + length]
            at += length


def block(data: bytes, offset: int, size: int) -> dict[bytes, bytes]:
    """The entries of a block, its checksum tested, and that every sixteenth is a restart."""
    content = data[offset : offset + size]
    assert data[offset + size] == 0
    assert struct.unpack_from("<I", data, offset + size + 1) == (masked_crc(data[offset : offset + size + 1]),)
    (count,) = struct.unpack("<I", content[-4:])
    restarts = struct.unpack(f"<{count}I", content[-4 - 4 * count : -4])
    entries, at, key, starts = {}, 0, b"", []
    while at < size - 4 - 4 * count:
        starts.append(at)
        shared, at = varint(content, at)
        new, at = varint(content, at)
        length, at = varint(content, at)
        key = key[:shared] + content[at : at + new]
        entries[key] = content[at + new : at + new + length]
        at += new + length
    assert list(restarts) == (starts[::16] or [0])
    return entries


def table(path: Path) -> dict[bytes, bytes]:
    data = path.read_bytes()
    assert data[-8:] == bytes.fromhex("57fb808b247547db")
    handles, at = [], len(data) - 48
    for _ in range(4):
        value, at = varint(data, at)
        handles.append(value)
    assert not any(data[at:-8]) and block(data, *handles[:2]) == {}
    entries: dict[bytes, bytes] = {}
    for last, handle in block(data, *handles[2:]).items():
        offset, at = varint(handle, 0)
        entries.update(block(data, offset, varint(handle, at)[0]))
        assert max(entries) <= last
    assert list(entries) == sorted(entries)
    return entries


def shape(data: bytes) -> list[int]:
    return [dict(fields(dim)).get(1, 0) for number, dim in fields(data) if number == 2]


def signed(data: bytes, at: int) -> tuple[int, int]:
    """(number, position after it), as checkpoint_v1.md tells it: leading 1 bits count bytes; inverted below zero."""
    negative = data[at] < 0x80
    raw = bytes(byte ^ 0xFF for byte in data[at : at + 10]) if negative else data[at : at + 10]
    bits = "".join(f"{byte:08b}" for byte in raw)
    size = bits.index("0")
    value = int(bits[size + 1 : 8 * size], 2)
    return (~value if negative else value), at + size


def test_a_table_by_hand() -> None:
    entries = table(case("custom_savers/tf1.15.5-v2").directory / "scoped" / "model.ckpt.index")
    assert list(entries) == [b"", b"net/b", b"net/w"]
    assert [len(value) for value in entries.values()] == [6, 15, 21]


def test_a_packed_block_by_hand() -> None:
    _, data = parse_dump(dump_of("tables.md", "packed:"))
    length, at = varint(data, 0)
    made = b""
    while at < len(data):
        tag = data[at]
        if tag & 3 == 0:
            made += data[at + 1 : at + 2 + (tag >> 2)]
            at += 2 + (tag >> 2)
        else:
            assert tag & 3 == 1
            for _ in range((tag >> 2 & 7) + 4):
                made += made[-((tag >> 5 << 8) + data[at + 1]) :][:1]
            at += 2
    assert made == b"ab" * 6 and len(made) == length
    assert decompress(data) == made


def test_version_2_by_hand() -> None:
    linear = case("linear/tf1.15.5-v2")
    entries = table(Path(f"{linear.prefix}.index"))
    content = Path(f"{linear.prefix}.data-00000-of-00001").read_bytes()
    assert dict(fields(entries.pop(b""))) == {1: 1, 3: b"\x08\x01"}
    for key, value in entries.items():
        entry = dict(fields(value))
        data = content[entry.get(4, 0) :][: entry[5]]
        assert struct.unpack("<I", entry[6]) == (masked_crc(data),)
        found = np.frombuffer(data, "<f4").reshape(shape(entry[2]))
        np.testing.assert_array_equal(found, linear.oracle["checkpoint"][""][key.decode()])


def test_a_string_of_version_2_by_hand() -> None:
    scalars = case("scalars_and_empty/tf1.15.5-v2")
    entry = dict(fields(table(Path(f"{scalars.prefix}.index"))[b"word"]))
    data = Path(f"{scalars.prefix}.data-00000-of-00001").read_bytes()[entry[4] :][: entry[5]]
    length, checksum, word = data[0], data[1:5], data[5:]
    assert word == scalars.oracle["checkpoint"][""]["word"].item() == b"a word" and length == len(word)
    assert struct.unpack("<I", checksum) == (masked_crc(struct.pack("<I", length)),)
    assert struct.unpack("<I", entry[6]) == (masked_crc(struct.pack("<I", length) + checksum + word),)


def test_the_slice_key_by_hand() -> None:
    _, key = parse_dump(dump_of("checkpoint_v2.md", "rows 4 to 6"))
    entries = table(Path(f"{case('partitioned/tf1.15.5-v2').prefix}.index"))
    assert shape(dict(fields(entries[key]))[2]) == [3, 4]
    numbers, at = [], key.index(b"\x00\x01\x01\x02") + 4
    while at < len(key):
        number, at = signed(key, at)
        numbers.append(number)
    assert numbers == [4, 3, 0, 4]


def test_the_signed_numbers_of_the_page() -> None:
    page = (ROOT / "docs" / "formats" / "checkpoint_v1.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (-?\d+) \| `([0-9a-f ]+)` \| ([01* ]+) \|$", page, re.MULTILINE)
    assert len(rows) == 5
    for number, code, bits in rows:
        data = bytes.fromhex(code)
        assert signed(data, 0) == (int(number), len(data))
        assert bits.replace("*", "").split() == [f"{byte:08b}" for byte in data]
    keys = table(Path(f"{case('wide_table/tf1.15.5-v2').prefix}.index"))
    assert any(bytes.fromhex("e03416 da0b") in key for key in keys)


def test_version_1_by_hand() -> None:
    linear = case("linear/tf0.12.1-v1")
    entries = table(Path(linear.prefix))
    metadata = dict(fields(entries.pop(b"")))[1]
    shapes = {}
    for number, value in fields(metadata):
        tensor = dict(fields(value))
        if number == 1:
            shapes[tensor[1]] = shape(tensor[2])
            assert tensor[3] == 1
    assert list(entries) == [b"\x00b\x00\x01\x01\x01\x80\x7f", b"\x00w\x00\x01\x01\x02\x80\x7f\x80\x7f"]
    for value in entries.values():
        saved = dict(fields(dict(fields(value))[2]))
        found = np.frombuffer(dict(fields(saved[3]))[5], "<f4").reshape(shapes[saved[1]])
        np.testing.assert_array_equal(found, linear.oracle["checkpoint"][""][saved[1].decode()])


def test_an_object_graph_by_hand() -> None:
    """Every variable is found from the root by the names that objects hold each other under."""
    one = case("object_checkpoint/tf1.15.5-v2")
    prefix = one.other_prefixes["objects"]
    entry = dict(fields(table(Path(f"{prefix}.index"))[b"_CHECKPOINTABLE_OBJECT_GRAPH"]))
    data = Path(f"{prefix}.data-0000{entry[3]}-of-00002").read_bytes()[entry[4] :][: entry[5]]
    length, at = varint(data, 0)
    assert at + 4 + length == len(data)
    objects = [list(fields(value)) for _, value in fields(data[at + 4 :])]

    def held(number: int) -> dict[bytes, int]:
        return {dict(fields(value))[2]: dict(fields(value))[1] for kind, value in objects[number] if kind == 1}

    tensors = {number: dict(fields(value)) for number, own in enumerate(objects) for kind, value in own if kind == 2}
    first = held(held(held(0)[b"layers"])[b"first"])[b"w"]
    assert tensors[first] == {1: b"VARIABLE_VALUE", 2: b"net/w", 3: b"layers/first/w/.ATTRIBUTES/VARIABLE_VALUE"}
    slots = [dict(fields(value)) for kind, value in objects[held(0)[b"optimizer"]] if kind == 3]
    assert slots[0] == {1: first, 2: b"momentum", 3: 8} and tensors[8][2] == b"net/w/Momentum"
    assert {tensor[3].decode() for tensor in tensors.values()} <= one.oracle["checkpoint"]["objects"].keys()


def test_an_npz_file_by_hand() -> None:
    """What the two dumps of weights.md tell: a member's header, and the array's within it."""
    linear = case("linear/tf1.15.5-v2")
    data = (linear.directory / "oracle.npz").read_bytes()
    _, start = parse_dump(dump_of("weights.md", "begins with the local header"))
    packed, unpacked, name, extra = struct.unpack_from("<II2H", start, 18)
    assert start[30 : 30 + name] == b"var|w:0.npy" and len(start) == 30 + name + extra
    assert (packed, unpacked) == struct.unpack_from("<II", data, 18)
    member = zlib.decompress(data[len(start) :][:packed], -15)
    _, head = parse_dump(dump_of("weights.md", "unpacked"))
    assert member.startswith(head) and len(member) == unpacked
    length = int.from_bytes(head[8:10], "little")
    values = np.frombuffer(member[10 + length :], "<f4").reshape(4, 3)
    np.testing.assert_array_equal(values, linear.oracle["variables"]["w:0"])


def test_a_safetensors_file_by_hand(tmp_path: Path) -> None:
    _, data = parse_dump(dump_of("weights.md", "An int64 `n`"))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    values = {name: data[8 + length :][slice(*one["data_offsets"])] for name, one in header.items()}
    assert values == {"n": struct.pack("<q", 7), "b": struct.pack("<2f", 1, 2)}
    (tmp_path / "x.safetensors").write_bytes(data)
    found = load_tensors(tmp_path / "x.safetensors")
    assert found["n"].read() == 7 and found["b"].read().tolist() == [1, 2]
    write_tensors(found, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == data


def test_an_event_file_by_hand() -> None:
    (path,) = (case("event_start/tf1.15.5-v2").directory / "events").iterdir()
    data, at, events = path.read_bytes(), 0, []
    while at < len(data):
        length, crc = struct.unpack_from("<QI", data, at)
        assert crc == masked_crc(data[at : at + 8])
        record = data[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length) == (masked_crc(record),)
        events.append(dict(fields(record)))
        at += length + 16
    assert [sorted(event) for event in events] == [[1, 3], [1, 4], [1, 9], [1, 2, 5]]
    assert events[0][3] == b"brain.Event:2" and struct.unpack("<d", events[0][1]) == (1795261279.0,)
    assert len(events[1][4]) == 2713 and events[3][2] == 1
    value = dict(fields(dict(fields(events[3][5]))[1]))
    assert value[1] == b"loss" and struct.unpack("<f", value[2]) == (0.5,)


def test_a_package_by_hand() -> None:
    data = (ROOT / "legacy_models" / "packages" / "matmul-tf2.21.0.pbmm").read_bytes()
    (start,) = struct.unpack("<Q", data[-8:])
    regions = {}
    for number, element in fields(data[start:-8]):
        found = dict(fields(element))
        regions[found[2]] = data[found.get(1, 0) :][: found[3]]
        assert number == 1
    assert list(regions) == [b"memmapped_package://w", b"memmapped_package://."]
    assert struct.unpack("<3f", regions[b"memmapped_package://w"]) == (1.0, 2.0, 3.0)
    nodes = [dict(fields(value)) for number, value in fields(regions[b"memmapped_package://."]) if number == 1]
    assert [(node[1], node[2]) for node in nodes] == [
        (b"x", b"Placeholder"),
        (b"w", b"ImmutableConst"),
        (b"y", b"MatMul"),
    ]


CONSTANT = np.arange(1, 2049, dtype="<f4").tobytes()


def test_a_large_constant_is_left_in_the_file() -> None:
    _, data = parse_dump(dump_of("graphs.md", "a GraphDef of one node"), CONSTANT)
    _, small = parse_dump(dump_of("graphs.md", "go to protobuf"))
    assert len(data) == 8251 and len(small) == 0x2F + 5
    scanned = scan(BytesSource(data), "GraphDef")
    assert scanned.message == protos.GraphDef.FromString(small)
    ((_, tensor),) = scanned.payloads.items()
    assert tensor.read().tobytes() == CONSTANT


@pytest.mark.tensorflow
def test_tensorflow_reads_both_dumps_of_the_constant() -> None:
    import tensorflow as tf

    for words, rest in (("a GraphDef of one node", CONSTANT), ("go to protobuf", b"")):
        _, data = parse_dump(dump_of("graphs.md", words), rest)
        graph = tf.compat.v1.GraphDef.FromString(data)
        (node,) = graph.node
        assert (node.name, node.op, graph.versions.producer) == ("w", "Const", 134)
        assert node.attr["value"].tensor.tensor_content == rest
        assert [dim.size for dim in node.attr["value"].tensor.tensor_shape.dim] == [2048]


def test_a_graph_by_hand() -> None:
    data = case("linear/tf1.15.5-v2").graph_pb.read_bytes()
    found = list(fields(data))
    node = dict(fields(found[0][1]))
    assert (node[1], node[2]) == (b"x", b"Placeholder")
    attr = dict(fields(node[5]))
    dims = [dict(fields(dim))[1] for _, dim in fields(dict(fields(attr[2]))[7])]
    assert attr[1] == b"shape" and dims == [(1 << 64) - 1, 4]
    assert found[-1] == (4, b"\x08\x86\x01") and varint(b"\x86\x01", 0)[0] == 134
    assert {number for number, _ in found[:-1]} == {1}
