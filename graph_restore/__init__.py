"""Brings TensorFlow 1 models back: reads their graphs and checkpoints, restores and freezes them.

Reading, restoring, freezing and exporting never import TensorFlow; the live part does, on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from graph_restore.api import export as export
    from graph_restore.api import load as load
    from graph_restore.checkpoint import Checkpoint as Checkpoint
    from graph_restore.checkpoint import latest_checkpoint as latest_checkpoint
    from graph_restore.checkpoint import load_checkpoint as load_checkpoint
    from graph_restore.errors import CheckpointNotFoundError as CheckpointNotFoundError
    from graph_restore.errors import CorruptionError as CorruptionError
    from graph_restore.errors import FormatError as FormatError
    from graph_restore.errors import FreezeError as FreezeError
    from graph_restore.errors import GraphRestoreError as GraphRestoreError
    from graph_restore.errors import GraphRestoreWarning as GraphRestoreWarning
    from graph_restore.errors import NodeNotFoundError as NodeNotFoundError
    from graph_restore.errors import RestoreError as RestoreError
    from graph_restore.errors import TensorFlowRequiredError as TensorFlowRequiredError
    from graph_restore.errors import TensorNotFoundError as TensorNotFoundError
    from graph_restore.errors import UnsupportedFormatError as UnsupportedFormatError
    from graph_restore.errors import UpgradeError as UpgradeError
    from graph_restore.events import write_events as write_events
    from graph_restore.graph import Graph as Graph
    from graph_restore.model import Model as Model
    from graph_restore.runtime.keras_layer import as_keras_layer as as_keras_layer
    from graph_restore.runtime.module import as_module as as_module
    from graph_restore.runtime.restore_graph import restore_graph as restore_graph
    from graph_restore.runtime.session import Session as Session
    from graph_restore.runtime.transfer import transfer as transfer
    from graph_restore.runtime.variables import RestoredVariable as RestoredVariable
    from graph_restore.runtime.verify import verify as verify
    from graph_restore.script import migration_script as migration_script
    from graph_restore.tensors import LazyTensor as LazyTensor
    from graph_restore.transforms.freeze import freeze as freeze
    from graph_restore.transforms.initialize import initialize as initialize
    from graph_restore.transforms.modernize import modernize as modernize
    from graph_restore.transforms.resources import upgrade_variables as upgrade_variables
    from graph_restore.transforms.restore import restore as restore
    from graph_restore.transforms.saver import build_saver as build_saver
    from graph_restore.transforms.simplify import simplify as simplify
    from graph_restore.transforms.unfreeze import unfreeze as unfreeze
    from graph_restore.variables import Variable as Variable

# public name -> module; imported on first use, so that `import graph_restore` costs next to nothing
_MODULES = {
    "export": "api", "load": "api",
    "load_checkpoint": "checkpoint", "latest_checkpoint": "checkpoint", "Checkpoint": "checkpoint",
    "restore": "transforms.restore",
    "initialize": "transforms.initialize", "freeze": "transforms.freeze",
    "build_saver": "transforms.saver", "unfreeze": "transforms.unfreeze", "simplify": "transforms.simplify",
    "restore_graph": "runtime.restore_graph", "RestoredVariable": "runtime.variables",
    "verify": "runtime.verify", "Session": "runtime.session", "as_module": "runtime.module",
    "as_keras_layer": "runtime.keras_layer", "transfer": "runtime.transfer",
    "write_events": "events", "migration_script": "script",
    "modernize": "transforms.modernize",
    "Graph": "graph", "LazyTensor": "tensors", "Model": "model", "Variable": "variables",
    "GraphRestoreError": "errors", "FormatError": "errors", "CorruptionError": "errors",
    "UnsupportedFormatError": "errors", "CheckpointNotFoundError": "errors", "TensorNotFoundError": "errors",
    "NodeNotFoundError": "errors", "RestoreError": "errors", "FreezeError": "errors",
    "UpgradeError": "errors", "upgrade_variables": "transforms.resources",
    "TensorFlowRequiredError": "errors", "GraphRestoreWarning": "errors",
}  # fmt: skip

__all__ = sorted(_MODULES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
