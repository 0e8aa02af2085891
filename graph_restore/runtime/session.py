"""Session: any model, run by the names of its tensors, in a graph and a TensorFlow session of its own.

Nothing of the program around it matters or is touched: it may execute eagerly, have other sessions, other threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from graph_restore.api import load
from graph_restore.errors import CheckpointNotFoundError, GraphRestoreError, NodeNotFoundError, did_you_mean
from graph_restore.model import Model
from graph_restore.names import parse_tensor_name, tensor_name
from graph_restore.runtime.building import Wanted, build
from graph_restore.runtime.guard import tensorflow
from graph_restore.runtime.importing import refuse_unknown_ops
from graph_restore.runtime.live import LiveModel
from graph_restore.runtime.queues import queue_runners
from graph_restore.transforms.modernize import modernize
from graph_restore.transforms.rerun import after_init_op
from graph_restore.transforms.restore import restore
from graph_restore.variables import RESOURCE_OPS

Arrays = Mapping[str, Any]


class Session:
    """A model that runs: `with Session(model) as session: session.run("softmax:0", {"images:0": x})`.

    `model`: a Model (as loaded, restored or frozen), or anything `graph_restore.load` takes. Variables have the
    model's values; those of `checkpoint`, if one is given; those of the checkpoint that belongs to the model's source,
    if it was not restored. Variables these do not hold are initialised unless `initialize_missing` is False; without
    any values at all variables are left for you to set, as by `run("init")`. Tables are filled.

    `queue_runners`: start what fills the graph's queues. `device`: where to place nodes ("/GPU:1"); those of the
    training machine are forgotten unless `clear_devices` is False, and ops that a device lacks run on the CPU unless
    `soft_placement` is False. `memory_growth`: take GPU memory as it is needed, instead of all. `threads`: how many
    one op may use and how many ops may run at a time, (0, 0) leaves that to TensorFlow. `asset_dir`: where vocabularies
    are that moved. `config`: a tf.compat.v1.ConfigProto to start from.

    Attributes: `model`; `graph` and `session`, TensorFlow's own; `signatures`, callables by name. `run` may be called
    by several threads. Raises what `load`, `restore` and `restore_graph` raise.
    """

    def __init__(
        self,
        model: Any,
        *,
        checkpoint: Any = None,
        queue_runners: bool = False,
        initialize_missing: bool = True,
        device: str | None = None,
        clear_devices: bool = True,
        soft_placement: bool = True,
        memory_growth: bool = True,
        threads: tuple[int, int] = (0, 0),
        asset_dir: str | os.PathLike[str] | None = None,
        config: Any = None,
    ) -> None:
        tf = tensorflow()
        self.model = modernize(after_init_op(with_values(load(model), checkpoint)))
        refuse_unknown_ops(self.model.graph)
        self.graph = tf.Graph()
        self._live = self._build(device, clear_devices, [os.fspath(asset_dir)] if asset_dir is not None else [])
        settings = _settings(config, soft_placement, memory_growth, threads)
        self.session = tf.compat.v1.Session(graph=self.graph, config=settings)
        self._coordinator: Any = None
        self._threads: list[Any] = []
        try:
            self._fill(initialize_missing)
            if queue_runners:
                self.start_queue_runners()
        except BaseException:
            self.close()
            raise

    def run(self, fetches: Any, feeds: Arrays | None = None) -> Any:
        """The values of `fetches`: a name, or lists, tuples and dicts of names, to arrays in the same structure.

        A node without outputs is run and gives None; the name of a resource variable gives its value. `feeds`: tensor
        name to what it is given, any tensor of the graph. Raises NodeNotFoundError for names that are not there,
        GraphRestoreError when a variable has no value yet, and TensorFlow's own errors.
        """
        given = {self._tensor(name): _array(value) for name, value in (feeds or {}).items()}
        try:
            return self.session.run(self._elements(fetches), given)
        except tensorflow().errors.FailedPreconditionError as error:
            if self.model.restoration is not None or not len(self.model.variables):
                raise
            raise GraphRestoreError(
                f"a variable of {self.model.source} has no value, and the model has not been restored. Restore it "
                "(graph_restore.restore(model, checkpoint)), pass checkpoint=, or run its own initializer\n"
                f"{error.message}"
            ) from error

    @property
    def signatures(self) -> Mapping[str, Callable[..., dict[str, Any]]]:
        """A function for each signature of the model: arrays by input name, to arrays by output name."""
        return {name: self._signature(name, definition) for name, definition in self.model.signatures.items()}

    def start_queue_runners(self) -> None:
        """Start the threads that fill the graph's queues; `close` ends them."""
        if self._coordinator is not None:
            return
        self._coordinator = tensorflow().train.Coordinator()
        with self.graph.as_default():
            runners = queue_runners(self.model, self._live.imported)
        for runner in runners:
            self._threads += runner.create_threads(self.session, self._coordinator, daemon=True, start=True)

    def close(self) -> None:
        """End the queue runners and release what TensorFlow holds."""
        if self._coordinator is not None:
            self._coordinator.request_stop()
        self.session.close()  # cancels what the runners wait for
        if self._coordinator is not None:
            self._coordinator.join(self._threads, stop_grace_period_secs=10, ignore_live_threads=True)
            self._coordinator = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _build(self, device: str | None, clear_devices: bool, folders: Sequence[str]) -> LiveModel:
        wanted = Wanted(self.graph, "", None, [], True, None, clear_devices)
        with self.graph.as_default(), self.graph.device(device):
            return build(self.model, self.model.variables, wanted, folders, {})[1]

    def _fill(self, initialize_missing: bool) -> None:
        live = self._live
        with self.graph.as_default():
            live.assign(self.session, self.model.variables)
            live.fill_own_tables(self.session)
            has_values = any(variable.value is not None for variable in self.model.variables)
            if initialize_missing and (has_values or not len(self.model.variables)):
                live.initialise(self.session, self.model)
            else:
                live.initialise_tables(self.session)

    def _tensor(self, name: str) -> Any:
        node, index = parse_tensor_name(name)
        operation = self._live.imported.operation(self.model.graph.node(node).name)
        if not 0 <= index < len(operation.outputs):
            raise NodeNotFoundError(f"node {node} ({operation.type}) has {len(operation.outputs)} outputs, not {name}")
        return operation.outputs[index]

    def _elements(self, fetches: Any) -> Any:
        if isinstance(fetches, str):
            node = self.model.graph.node(fetches)
            if node.op in RESOURCE_OPS and fetches in (node.name, tensor_name(node.name)):
                return self._live.variables[node.name]
            operation = self._live.imported.operation(node.name)
            return self._tensor(fetches) if operation.outputs else operation
        if isinstance(fetches, Mapping):
            return {key: self._elements(value) for key, value in fetches.items()}
        return type(fetches)(map(self._elements, fetches)) if isinstance(fetches, list | tuple) else fetches

    def _signature(self, name: str, definition: Any) -> Callable[..., dict[str, Any]]:
        inputs = {key: info.name for key, info in definition.inputs.items()}
        outputs = {key: info.name for key, info in definition.outputs.items() if info.name}

        def call(values: Arrays | None = None, **more: Any) -> dict[str, Any]:
            given = {**(values or {}), **more}
            for key in given:
                if key not in inputs:
                    raise NodeNotFoundError(
                        f"signature {name!r} has no input {key!r}, only {', '.join(sorted(inputs))}"
                        + did_you_mean(key, inputs)
                    )
            found: dict[str, Any] = self.run(outputs, {inputs[key]: value for key, value in given.items()})
            return found

        call.__name__ = name
        call.__doc__ = f"{', '.join(sorted(inputs))} -> {', '.join(sorted(outputs))}"
        return call


def with_values(model: Model, checkpoint: Any) -> Model:
    """The model with the values of a checkpoint, else as it was restored, else with those that belong to its source."""
    if checkpoint is not None:
        return restore(model, checkpoint)
    if model.restoration is not None or not any(variable.value is None for variable in model.variables):
        return model
    try:
        return restore(model)
    except CheckpointNotFoundError:
        return model


def _settings(config: Any, soft_placement: bool, memory_growth: bool, threads: tuple[int, int]) -> Any:
    settings = tensorflow().compat.v1.ConfigProto()
    if config is not None:
        settings.CopyFrom(config)
    settings.allow_soft_placement = settings.allow_soft_placement or soft_placement
    settings.gpu_options.allow_growth = settings.gpu_options.allow_growth or memory_growth
    if any(threads):
        settings.intra_op_parallelism_threads, settings.inter_op_parallelism_threads = threads
    return settings


def _array(value: Any) -> Any:
    """What TensorFlow takes for a feed; a tensor of the eager program around gives its value."""
    return value.numpy() if callable(getattr(value, "numpy", None)) else value
