"""Memory-mapped packages (.pbmm): a graph whose large constants lie in regions of their own, used where they lie.

    regions, each at a multiple of 64     the bytes of one constant, row-major and little-endian
    region memmapped_package://.          the GraphDef; its large Consts are ImmutableConsts that name their regions
    directory                             MemmappedFileSystemDirectory: name, offset and length of every region
    8 bytes                               the offset of the directory, little-endian

tensorflow/core/util/memmapped_file_system.h and .proto; read in C++ by MemmappedEnv. Only the graph is a message, so
protobuf's 2 GiB do not bound the package. There are no checksums in it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from graph_restore.dtypes import DataType, item_size
from graph_restore.errors import CorruptionError, FormatError, warn
from graph_restore.formats.graph_def import PAYLOAD_FROM, check_length, scan
from graph_restore.formats.meta_graph import from_graph
from graph_restore.formats.read_only import may_be_mapped
from graph_restore.graph import Graph
from graph_restore.model import Model, ModelSource
from graph_restore.protos import GraphDef, MemmappedFileSystemDirectory, TensorProto, TensorShapeProto
from graph_restore.storage.extent import Extent
from graph_restore.storage.output import AtomicFile, Progress
from graph_restore.storage.source import Source
from graph_restore.tensor_proto import encode_head
from graph_restore.tensors import ContentTensor, LazyTensor

PREFIX = "memmapped_package://"
GRAPH = PREFIX + "."
_ALIGNMENT = 64  # of tensors in TensorFlow's CPU kernels; less is refused when the graph runs
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_.]")  # in names of regions
_LONGEST_DIRECTORY = 1 << 28

Key = tuple[str, str]  # function or "", and node


def read_memmapped(source: Source, origin: ModelSource) -> Model:
    """The Model of a package, its ImmutableConsts as Consts whose values lie in the file.

    FormatError when the directory, or a region that a node names, is not as it must be.
    """
    regions = read_directory(source)
    if GRAPH not in regions:
        raise FormatError("the package has no graph", path=source.name, expected=GRAPH, found=", ".join(regions))
    offset, length = regions[GRAPH]
    scanned = scan(source, "GraphDef", offset, length)
    payloads = scanned.of_graph()
    for function, nodes in _bodies(scanned.message):
        for node in nodes:
            if node.op == "ImmutableConst":
                payloads[(function, node.name)] = _become_const(node, regions, source)
    return from_graph(Graph(scanned.message, payloads), origin, {})


def read_directory(source: Source) -> dict[str, tuple[int, int]]:
    """Name to (offset, length) of every region, in the order they lie in."""
    end = source.size - 8
    start = struct.unpack("<Q", source.pread(end, 8))[0] if end >= 0 else 0
    if not 0 <= start <= end or end - start > _LONGEST_DIRECTORY:
        raise CorruptionError(
            "no directory at the end of the package", path=source.name, offset=max(end, 0), found=start
        )
    try:
        directory = MemmappedFileSystemDirectory.FromString(source.pread(start, end - start))
    except DecodeError as error:
        raise CorruptionError(f"the package's directory is damaged: {error}", path=source.name, offset=start) from None
    regions: dict[str, tuple[int, int]] = {}
    following = start
    for element in reversed(directory.element):
        length = element.length or following - element.offset  # before TensorFlow 2 lengths were not written
        if element.offset + length > following or length < 0:
            raise CorruptionError(
                f"region {element.name} does not lie before the next", path=source.name, offset=element.offset
            )
        regions[element.name] = (element.offset, length)
        following = element.offset
    return dict(reversed(regions.items()))


def _bodies(graph_def: Any) -> Iterator[tuple[str, Any]]:
    yield "", graph_def.node
    for function in graph_def.library.function:
        yield function.signature.name, function.node_def


def _become_const(node: Any, regions: Mapping[str, tuple[int, int]], source: Source) -> LazyTensor:
    name = node.attr["memory_region_name"].s.decode("utf-8", "replace")
    if name not in regions:
        raise FormatError(
            f"node {node.name} names a region that the package does not have", path=source.name, found=repr(name)
        )
    offset, length = regions[name]
    number, shape = node.attr["dtype"].type, [dim.size for dim in node.attr["shape"].shape.dim]
    nbytes = LazyTensor(node.name, number, shape).size * item_size(DataType(number))
    if nbytes > length:
        raise CorruptionError(
            f"region {name} is too short for node {node.name}", path=source.name, offset=offset, expected=nbytes,
            found=length,
        )  # fmt: skip
    value = ContentTensor(node.name, number, shape, [Extent(source, offset, nbytes)])
    node.op = "Const"
    for key in ("shape", "memory_region_name"):
        del node.attr[key]
    node.attr["value"].tensor.CopyFrom(TensorProto.FromString(encode_head(value)))
    return value


def write_memmapped(
    graph: Graph, path: str, progress: Progress | None = None, *, min_bytes: int = PAYLOAD_FROM
) -> None:
    """Write a package; constants of at least `min_bytes` go to regions, strings and smaller ones stay in the graph.

    So do those that an op takes which might write into them (see `read_only`), and those of functions; a
    GraphRestoreWarning names the large ones. UnsupportedFormatError when what stays would pass protobuf's 2 GiB.
    """
    large = {key: value for key, value in graph.payloads.items() if _is_large(value, min_bytes)}
    moved = {key: value for key, value in large.items() if not key[0] and may_be_mapped(graph, key[1])}
    _warn_of([value for key, value in large.items() if key not in moved])
    names = _region_names(moved)
    small = _with_immutable(graph, names)
    encoded = small.encode()
    check_length(encoded, path)
    directory = MemmappedFileSystemDirectory()
    with AtomicFile(path, progress) as file:
        for key, value in moved.items():
            _region(file, directory, names[key], value.nbytes)
            start = file.size
            file.write_all(value.parts())
            if file.size - start != value.nbytes:
                raise CorruptionError(
                    f"tensor {value.name} has a wrong length", expected=value.nbytes, found=file.size - start
                )
        _region(file, directory, GRAPH, encoded.length)
        file.write_all(encoded.parts())
        end = file.size
        file.write(directory.SerializeToString(deterministic=True) + struct.pack("<Q", end))


def _is_large(value: LazyTensor, min_bytes: int) -> bool:
    return value.data_type is not DataType.DT_STRING and value.nbytes >= max(min_bytes, 1)


def _warn_of(staying: list[LazyTensor]) -> None:
    if staying:
        names = ", ".join(value.name for value in staying[:5])
        warn(
            f"{len(staying)} constants stay in the graph, {sum(value.nbytes for value in staying):,} bytes, since what "
            f"takes them might write into mapped memory: {names}{', ...' if len(staying) > 5 else ''}"
        )


def _region_names(keys: Mapping[Key, Any]) -> dict[Key, str]:
    """A name for each region: the node's, with a number where it is taken once other characters are replaced."""
    names: dict[Key, str] = {}
    taken = {GRAPH}
    for function, node in keys:
        base = name = PREFIX + _NOT_ALLOWED.sub("_", f"{function}.{node}" if function else node)
        number = 0
        while name in taken:
            number += 1
            name = f"{base}.{number}"
        taken.add(name)
        names[(function, node)] = name
    return names


def _region(file: AtomicFile, directory: Any, name: str, length: int) -> None:
    file.write(bytes(-file.size % _ALIGNMENT))
    directory.element.add(offset=file.size, name=name, length=length)


def _with_immutable(graph: Graph, names: Mapping[Key, str]) -> Graph:
    """The graph with ImmutableConsts in place of the Consts that get a region."""
    changed = GraphDef()
    changed.CopyFrom(graph.graph_def)
    for function, nodes in _bodies(changed):
        for node in nodes:
            if (function, node.name) in names:
                _become_immutable(node, graph.payloads[(function, node.name)], names[(function, node.name)])
    payloads = {key: value for key, value in graph.payloads.items() if key not in names}
    return Graph(changed, payloads, graph.op_list)


def _become_immutable(node: Any, value: LazyTensor, region: str) -> None:
    node.op = "ImmutableConst"
    del node.attr["value"]
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in value.shape])
    node.attr["shape"].shape.CopyFrom(shape)
    node.attr["memory_region_name"].s = region.encode()
