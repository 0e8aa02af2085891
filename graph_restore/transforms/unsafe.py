"""Ops that do more than compute when a graph runs: they read or write files, run code, reach over the network.

A graph is a program. Comparing two graphs means running them, and running a stranger's graph can do any of this; so
what is needed for the outputs is looked through first, function bodies too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graph_restore.graph import Graph
from graph_restore.names import parse_tensor_name
from graph_restore.transforms.draft import Tensor
from graph_restore.transforms.functions import reachable_functions

_READS, _WRITES = "reads files that the graph names", "writes files that the graph names"
_CODE, _NETWORK = "runs code that is not in the graph", "opens network connections that the graph names"
_ENDS = "ends the process"
# Registered in tensorflow/core/ops: io_ops.cc, dataset_ops.cc, experimental_dataset_ops.cc, summary_ops.cc,
# debug_ops.cc, script_ops.cc (what these call was registered by a program), rpc_ops.cc; the rest in tf.contrib.
_OPS = {
    _READS: """
        DTensorRestoreV2 LoadAndRemapMatrix MatchingFiles ReadFile Restore RestoreSlice RestoreV2 BigQueryReader
        FixedLengthRecordReader FixedLengthRecordReaderV2 LMDBReader TFRecordReader TFRecordReaderV2 TextLineReader
        TextLineReaderV2 WholeFileReader WholeFileReaderV2 ReaderRead ReaderReadUpTo ReaderReadUpToV2 ReaderReadV2
        ImmutableConst InitializeTableFromTextFile InitializeTableFromTextFileV2 RecordInput CSVDataset CSVDatasetV2
        ExperimentalCSVDataset ExperimentalLMDBDataset ExperimentalMatchingFilesDataset ExperimentalSqlDataset
        FixedLengthRecordDataset FixedLengthRecordDatasetV2 LMDBDataset MatchingFilesDataset SqlDataset
        TFRecordDataset TFRecordDatasetV2 TextLineDataset LoadDataset SequenceFileDataset ListSnapshotChunksDataset
        SnapshotChunkDataset SnapshotDatasetReader SnapshotNestedDatasetReader
    """,
    _WRITES: """
        DistributedSave DumpTensor MergeV2Checkpoints PrintV2 Save SaveSlices SaveV2 WriteFile CacheDataset
        CacheDatasetV2 SaveDataset SaveDatasetV2 SnapshotDataset SnapshotDatasetV2 DatasetToTFRecord
        ExperimentalDatasetToTFRecord CreateSummaryDbWriter CreateSummaryFileWriter StatsAggregatorSetSummaryWriter
        WriteAudioSummary WriteGraphSummary WriteHistogramSummary WriteImageSummary WriteRawProtoSummary
        WriteScalarSummary WriteSummary DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount
        DebugNumericSummary DebugNumericSummaryV2
    """,
    _CODE: """
        EagerPyFunc PyFunc PyFuncStateless RemoteFusedGraphExecute XlaCustomCall XlaCustomCallV2 DecodeAudio
        DecodeAudioV2 DecodeVideo EncodeAudio EncodeAudioV2 TRTEngineOp
    """,
    _NETWORK: """
        DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 RemoteCall Rpc RpcCall
        RpcClient RpcServer RpcServerStart TryRpc BigtableClient BigtableLookupDataset BigtablePrefixKeyDataset
        BigtableRangeKeyDataset BigtableSampleKeyPairsDataset BigtableSampleKeysDataset BigtableScanDataset
        BigtableTable DatasetToBigtable IgniteDataset KafkaDataset KinesisDataset FileSystemSetConfiguration
        GcsConfigureBlockCache GcsConfigureCredentials
    """,
    _ENDS: """
        Abort
    """,
}
_REASONS = {op: reason for reason, ops in _OPS.items() for op in ops.split()}


def danger(op: str) -> str:
    """What an op may do besides computing, "" for an op that only computes."""
    return _REASONS.get(op, "")


def unsafe_nodes(graph: Graph, wanted: Iterable[Tensor], fed: Iterable[Tensor] = ()) -> dict[str, str]:
    """Node to what it may do, of the nodes that run when `wanted` are fetched and `fed` are fed.

    Nodes in function bodies are called `function/node`."""
    running = running_nodes(graph, wanted, fed)
    bodies = reachable_functions(graph.replaced(running, {})).graph_def.library.function
    named = [(node.name, node) for node in running]
    named += [(f"{body.signature.name}/{node.name}", node) for body in bodies for node in body.node_def]
    return {name: f"{node.op} {danger(node.op)}" for name, node in named if danger(node.op)}


def running_nodes(graph: Graph, wanted: Iterable[Tensor], fed: Iterable[Tensor] = ()) -> list[Any]:
    """Every node that runs when `wanted` are fetched, once: not those all of whose needed outputs are fed."""
    waiting, seen = list(wanted), set(fed)
    ran: dict[str, Any] = {}
    while waiting:
        tensor = waiting.pop()
        node = graph.nodes.get(tensor[0])
        if tensor in seen or node is None:
            continue
        seen.add(tensor)
        if node.name not in ran:
            ran[node.name] = node
            waiting.extend(parse_tensor_name(item) for item in node.input)
    return list(ran.values())
