"""Plans of TensorRT: built of a strongly typed graph, and read back."""

from __future__ import annotations

import logging
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.engines import cuda
from qpde_perception.engines.errors import EngineError
from qpde_perception.engines.tensorrt_library import (
    LOGITS,
    NAME,
    PIXELS,
    SATURATION,
    Listener,
    accelerators,
    tensorrt_library,
    typed_network,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[str, int, int], None]
    """Told a phase of the build, the steps of it that are done, and how many it has."""

REBUILD = (
    "a plan serves the version of TensorRT and the GPU it was built with alone: build it again here"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a plan is built.

    Attributes:
        max_batch: Largest batch that it runs at once.
        dla: Number of the DLA core that takes what it can, the GPU taking the rest; None for the
            GPU alone. A DLA knows one size of batch: the largest.
        device: Number of the GPU to build on; None for the one the thread is at.
        workspace_bytes: Most memory for the kernels' scratch; None for all that is free.
        timing_cache: File of the kernels' times measured before, which makes a build shorter; read
            where it is there, and written. It changes no result's meaning, but maybe which kernel
            is taken.
    """

    max_batch: int = 8
    dla: int | None = None
    device: int | None = None
    workspace_bytes: int | None = None
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            msg = f"a largest batch of {self.max_batch}; it is 1 or more"
            raise EngineError(msg)
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            msg = f"a workspace of {self.workspace_bytes} bytes; it is 1 or more"
            raise EngineError(msg)


def build_plan(
    graph: bytes,
    options: PlanOptions,
    *,
    progress: Progress | None = None,
    library: Any = None,
) -> bytes:
    """Build a plan; minutes on a Jetson. It serves this GPU and this version of TensorRT alone.

    Args:
        graph: The strongly typed ONNX file of a bundle: `pixels` in, `logits` out.
        options: How to build.
        progress: Told how far it is, from whatever thread; what it raises ends the build.
        library: Bindings with TensorRT's interface; None for TensorRT.

    Raises:
        EngineError: If there is no TensorRT or no GPU, or it refuses the graph or the options.
    """
    library = library or tensorrt_library()
    if options.device is not None:
        cuda.call("cudaSetDevice", options.device)
    listener = Listener(library)
    builder = listener.made(library.Builder, listener.logger)
    network = typed_network(library, builder)
    _parse(library, network, listener, graph)
    config = builder.create_builder_config()
    _configure(library, builder, network, config, options)
    timings = None
    if options.timing_cache is not None:
        timings = _TimingCache(options.timing_cache)
        timings.attach(config)
    monitor = None
    if progress is not None:
        monitor = _monitor_class(library)(progress)
        config.progress_monitor = monitor
    listener.forget()
    plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.stopped_by is not None:
        raise monitor.stopped_by
    if plan is None:
        msg = (
            f"{NAME} {library.__version__} cannot build the graph for batches of up to "
            f"{options.max_batch}: {listener.reason('no reason given')}"
        )
        raise EngineError(msg)
    if timings is not None:
        timings.keep(config)
    return bytes(plan)


def read_plan(library: Any, plan: bytes, dla: int | None = None) -> Any:
    """Return the library's engine of a plan, whose inputs and outputs are those of a bundle.

    Args:
        library: The bindings of the library that built it.
        plan: What `build_plan` returned.
        dla: Number of the DLA core to run on.

    Raises:
        EngineError: If the plan is cut off, of another version, GPU or graph.
    """
    listener = Listener(library)
    runtime_of_plans = listener.made(library.Runtime, listener.logger)
    if dla is not None:
        cores = accelerators(runtime_of_plans)
        if not 0 <= dla < cores:
            msg = f"DLA core {dla} is not here; {NAME} finds {cores}: build for the GPU"
            raise EngineError(msg)
        runtime_of_plans.DLA_core = dla
    listener.forget()
    found = runtime_of_plans.deserialize_cuda_engine(plan)
    if found is None:
        reason = listener.reason("no reason given")
        msg = (
            f"{NAME} {library.__version__} refuses the plan of {len(plan)} bytes: {reason}; "
            f"{REBUILD}"
        )
        raise EngineError(msg)
    _check_interface(library, found)
    return found


def _check_interface(library: Any, plan: Any) -> None:
    kinds = {
        name: (
            plan.get_tensor_mode(name) == library.TensorIOMode.INPUT,
            np.dtype(library.nptype(plan.get_tensor_dtype(name))),
            len(tuple(plan.get_tensor_shape(name))),
        )
        for name in names_of(plan)
    }
    wanted = {
        PIXELS: (True, np.dtype(np.uint8), 4),
        LOGITS: (False, np.dtype(np.float32), 2),
        SATURATION: (False, np.dtype(np.float32), 2),
    }
    known = {name: kind for name, kind in wanted.items() if name != SATURATION or name in kinds}
    if kinds != known:
        msg = f"the plan is of another graph: it has {', '.join(kinds)}; {REBUILD}"
        raise EngineError(msg)


def names_of(plan: Any) -> list[str]:
    """Return the names of a plan's inputs and outputs."""
    return [str(plan.get_tensor_name(index)) for index in range(plan.num_io_tensors)]


def _parse(library: Any, network: Any, listener: Listener, graph: bytes) -> None:
    parser = library.OnnxParser(network, listener.logger)
    who = f"{NAME} {library.__version__} refuses the graph"
    if not parser.parse(graph):
        error = parser.get_error(0)
        # Only of errors within a node.
        node = f" at node {error.node_name()!r} ({error.node_operator()})" * bool(error.node_name())
        msg = f"{who}{node}: {' '.join(error.desc().split())}"
        raise EngineError(msg)
    inputs = [network.get_input(index).name for index in range(network.num_inputs)]
    outputs = [network.get_output(index).name for index in range(network.num_outputs)]
    if inputs != [PIXELS] or LOGITS not in outputs:
        msg = f"{who}: it takes {inputs} and gives {outputs}, not {PIXELS} and {LOGITS}"
        raise EngineError(msg)


def _configure(library: Any, builder: Any, network: Any, config: Any, options: PlanOptions) -> None:
    height_width_channels = tuple(network.get_input(0).shape)[1:]
    smallest = 1 if options.dla is None else options.max_batch
    shapes = [(n, *height_width_channels) for n in (smallest, smallest, options.max_batch)]
    profile = builder.create_optimization_profile()
    profile.set_shape(PIXELS, *shapes)
    config.add_optimization_profile(profile)
    # Sums that float32 holds exactly would be rounded to ten bits.
    config.clear_flag(library.BuilderFlag.TF32)
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.dla is not None:
        cores = accelerators(builder)
        if not 0 <= options.dla < cores:
            msg = f"DLA core {options.dla} is not here; {NAME} finds {cores}: build for the GPU"
            raise EngineError(msg)
        config.default_device_type = library.DeviceType.DLA
        config.DLA_core = options.dla
        config.set_flag(library.BuilderFlag.GPU_FALLBACK)


class _TimingCache:
    """A file of measured times. Whatever is wrong with it costs a warning and a longer build."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def attach(self, config: Any) -> None:
        """Let a build start from the times in the file."""
        try:
            known = self._path.read_bytes()
        except FileNotFoundError:
            known = b""
        except OSError as error:
            _log.warning("%s cannot be read (%s); kernels are timed anew", self._path, error)
            known = b""
        if known and not self._taken(config, known):
            _log.warning("%s is of another GPU or version; kernels are timed anew", self._path)
            known = b""
        if not known:
            self._taken(config, b"")

    @staticmethod
    def _taken(config: Any, known: bytes) -> bool:
        times = config.create_timing_cache(known)
        return times is not None and bool(config.set_timing_cache(times, ignore_mismatch=False))

    def keep(self, config: Any) -> None:
        """Put the times of a build into the file, which appears whole or not at all."""
        times = bytes(config.get_timing_cache().serialize())
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._path.parent, delete=False) as part:
                try:
                    part.write(times)
                    part.close()
                    Path(part.name).replace(self._path)
                except BaseException:
                    Path(part.name).unlink()
                    raise
        except OSError as error:
            _log.warning("%s cannot be written (%s); the times are not kept", self._path, error)


def _monitor_class(library: Any) -> Any:
    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        """Hands the builder's steps on; ends the build when the listener raises."""

        def __init__(self, progress: Progress) -> None:
            library.IProgressMonitor.__init__(self)
            self.stopped_by: BaseException | None = None
            self._progress = progress
            self._steps: dict[str, int] = {}
            # The builder works in several threads.
            self._lock = threading.Lock()

        def phase_start(self, phase: str, _parent: str | None, steps: int) -> None:
            with self._lock:
                self._steps[phase] = steps
                self._tell(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            with self._lock:
                self._tell(phase, step + 1)
                return self.stopped_by is None

        def phase_finish(self, phase: str) -> None:
            with self._lock:
                self._tell(phase, self._steps[phase])

        def _tell(self, phase: str, done: int) -> None:
            # An exception, an interrupt from the keyboard as well, must not reach the builder.
            if self.stopped_by is None:
                try:
                    self._progress(phase, done, self._steps[phase])
                except BaseException as error:  # noqa: BLE001
                    self.stopped_by = error

    return Monitor
