"""TensorRT on an NVIDIA GPU."""

from __future__ import annotations

import ctypes
import json
import logging
import math
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.engines.cuda import call, device_of, release, runtime
from qpde_perception.engines.errors import EngineError
from qpde_perception.engines.tensorrt_library import (
    LOGITS,
    NAME,
    PIXELS,
    SATURATION,
    Listener,
    tensorrt_library,
)
from qpde_perception.engines.tensorrt_plan import names_of, read_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An input or an output: the same largest batch in memory of the host and of the GPU."""

    name: str
    host: NDArray[Any]
    address: int

    def bytes_of(self, size: int) -> int:
        return size * int(self.host[0].nbytes)


@dataclass(slots=True)
class _Run:
    """What executes batches of one size: its own context, as a recorded graph asks for one."""

    context: Any
    graph: Any = None


class TensorRtEngine:
    """Executes a plan: one stream, memory taken once, a CUDA graph for every size of batch.

    Calls from several threads wait for each other.

    Attributes:
        name: `tensorrt`.
        version: Version of TensorRT.
        device: The GPU.
        max_batch: Most images that go through at once; larger batches are cut.
        cuda_graphs: Whether what a batch does is recorded; no more once that has failed.
    """

    name = NAME

    def __init__(
        self, plan: bytes, *, device: int = 0, dla: int | None = None, cuda_graphs: bool = True
    ) -> None:
        """Load a plan onto a GPU.

        Args:
            plan: What `build_plan` returned.
            device: Number of the GPU.
            dla: Number of the DLA core, if the plan was built for one.
            cuda_graphs: Whether to record what a batch does on the GPU, the first time one of its
                size comes, and replay it from then on.

        Raises:
            EngineError: If the library, the GPU or memory is missing, or the plan is none for them.
        """
        self._library = tensorrt_library()
        self.version = str(self._library.__version__)
        self.device = device_of(device)
        self.cuda_graphs = cuda_graphs
        self._listener = Listener(self._library)
        self._lock = threading.Lock()
        self._runs: dict[int, _Run] = {}
        self._resources: ExitStack | None = None
        call("cudaSetDevice", device)
        # Frees what was taken, last first, should any of this fail.
        with ExitStack() as resources:
            self._plan = read_plan(self._library, plan, dla)
            self._smallest, self.max_batch = self._batches()
            flags = runtime().cudaStreamNonBlocking
            self._stream = call("cudaStreamCreateWithFlags", flags)
            resources.callback(release, "cudaStreamDestroy", self._stream)
            self._tensors = {name: self._take(name, resources) for name in names_of(self._plan)}
            # One scratch memory for all contexts, which never run at once.
            self._scratch_bytes = int(self._plan.device_memory_size_v2)
            self._scratch = call("cudaMalloc", max(self._scratch_bytes, 1))
            resources.callback(release, "cudaFree", self._scratch)
            resources.callback(self._runs.clear)
            self._resources = resources.pop_all()

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits, float32 (n, classes), of pixels, uint8 (n, height, width, 3)."""
        return self._answer(batch)[LOGITS]

    def observe(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits as `infer` does, and each tap's share of saturated codes, (n, taps).

        Raises:
            EngineError: If `infer` would raise, or the graph was compiled without taps.
        """
        if SATURATION not in self._tensors:
            msg = f"{NAME}: the plan tells no {SATURATION}; compile the model again"
            raise EngineError(msg)
        answer = self._answer(batch)
        return answer[LOGITS], answer[SATURATION]

    def layers(self) -> tuple[dict[str, Any], ...]:
        """Return what TensorRT tells of each fused layer; the keys are those of its version.

        Raises:
            EngineError: If the engine is closed, or TensorRT tells nothing that can be read.
        """
        if self._plan is None:
            msg = f"{self.name} is closed; open it again"
            raise EngineError(msg)
        inspector = self._listener.made(self._plan.create_engine_inspector)
        told = inspector.get_engine_information(self._library.LayerInformationFormat.JSON)
        try:
            layers = json.loads(told)["Layers"]
            return tuple(one if isinstance(one, dict) else {"Name": str(one)} for one in layers)
        except (ValueError, KeyError, TypeError):
            msg = f"{NAME} {self.version} tells nothing of its layers that can be read"
            raise EngineError(msg) from None

    def close(self) -> None:
        """Free the GPU's memory, the stream and the plan."""
        with self._lock:
            if self._resources is None:
                return
            release("cudaSetDevice", self.device.index)
            release("cudaStreamSynchronize", self._stream)
            self._resources.close()
            self._resources = self._plan = None

    def _batches(self) -> tuple[int, int]:
        shapes = self._plan.get_tensor_profile_shape(PIXELS, 0)
        return int(shapes[0][0]), int(shapes[2][0])

    def _take(self, name: str, resources: ExitStack) -> _Tensor:
        shape = (self.max_batch, *tuple(self._plan.get_tensor_shape(name))[1:])
        kind = np.dtype(self._library.nptype(self._plan.get_tensor_dtype(name)))
        size = math.prod(shape) * kind.itemsize
        pinned = call("cudaMallocHost", size)
        resources.callback(release, "cudaFreeHost", pinned)
        address = call("cudaMalloc", size)
        resources.callback(release, "cudaFree", address)
        memory = (ctypes.c_uint8 * size).from_address(int(pinned))
        return _Tensor(name, np.frombuffer(memory, kind).reshape(shape), int(address))

    def _answer(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        with self._lock:
            if self._resources is None:
                msg = f"{self.name} is closed; open it again"
                raise EngineError(msg)
            pixels = self._tensors[PIXELS].host
            if batch.dtype != pixels.dtype or batch.shape[1:] != pixels.shape[1:] or not len(batch):
                msg = (
                    f"{self.name} cannot run {batch.dtype}{batch.shape}; it takes {pixels.dtype} "
                    f"(n, {', '.join(map(str, pixels.shape[1:]))}) with n of 1 or more"
                )
                raise EngineError(msg)
            # A thread of its own for every call is allowed, and CUDA keeps the device by thread.
            call("cudaSetDevice", self.device.index)
            answer = {
                name: np.empty((len(batch), *tensor.host.shape[1:]), tensor.host.dtype)
                for name, tensor in self._tensors.items()
                if name != PIXELS
            }
            for part in parts(len(batch), self.max_batch):
                size = part.stop - part.start
                pixels[:size] = batch[part]
                self._execute(max(size, self._smallest))
                for name, rows in answer.items():
                    rows[part] = self._tensors[name].host[:size]
            return answer

    def _execute(self, size: int) -> None:
        run = self._runs.get(size)
        if run is None:
            run = self._runs[size] = self._new_run(size)
            self._enqueue(run, size)
            call("cudaStreamSynchronize", self._stream)
            # What a context puts off until it first runs cannot be recorded.
            if self.cuda_graphs:
                self._record(run, size)
        else:
            if run.graph is None:
                self._enqueue(run, size)
            else:
                call("cudaGraphLaunch", run.graph, self._stream)
            call("cudaStreamSynchronize", self._stream)

    def _new_run(self, size: int) -> _Run:
        strategy = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._listener.made(self._plan.create_execution_context, strategy)
        # The plan's layers have names for whoever inspects it; telling them to a profiler costs.
        context.nvtx_verbosity = self._library.ProfilingVerbosity.NONE
        if self._scratch_bytes:
            context.set_device_memory(int(self._scratch), self._scratch_bytes)
        self._listener.forget()
        shape = (size, *self._tensors[PIXELS].host.shape[1:])
        taken = context.set_input_shape(PIXELS, shape) and all(
            context.set_tensor_address(name, tensor.address)
            for name, tensor in self._tensors.items()
        )
        if not taken:
            msg = f"{NAME} takes no batch of {size}: {self._listener.reason('no reason given')}"
            raise EngineError(msg)
        return _Run(context)

    def _enqueue(self, run: _Run, size: int) -> None:
        kinds = runtime().cudaMemcpyKind
        pixels = self._tensors[PIXELS]
        self._copy(
            pixels.address, pixels.host.ctypes.data, pixels, size, kinds.cudaMemcpyHostToDevice
        )
        self._listener.forget()
        if not run.context.execute_async_v3(int(self._stream)):
            reason = self._listener.reason("no reason given")
            msg = f"{NAME} cannot run a batch of {size}: {reason}"
            raise EngineError(msg)
        for tensor in self._tensors.values():
            if tensor is not pixels:
                kind = kinds.cudaMemcpyDeviceToHost
                self._copy(tensor.host.ctypes.data, tensor.address, tensor, size, kind)

    def _copy(self, to: int, source: int, tensor: _Tensor, size: int, kind: Any) -> None:
        call("cudaMemcpyAsync", to, source, tensor.bytes_of(size), kind, self._stream)

    def _record(self, run: _Run, size: int) -> None:
        try:
            run.graph = self._recorded(run, size)
        except EngineError as error:
            self.cuda_graphs = False
            # Else the next call would be told of it.
            runtime().cudaGetLastError()
            _log.warning("%s runs without CUDA graphs: %s", NAME, error)
        else:
            assert self._resources is not None
            self._resources.callback(release, "cudaGraphExecDestroy", run.graph)

    def _recorded(self, run: _Run, size: int) -> Any:
        # Other threads may go on with the GPU meanwhile.
        mode = runtime().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call("cudaStreamBeginCapture", self._stream, mode)
        try:
            self._enqueue(run, size)
        except EngineError:
            runtime().cudaStreamEndCapture(self._stream)
            raise
        graph = call("cudaStreamEndCapture", self._stream)
        try:
            return call("cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            release("cudaGraphDestroy", graph)


def parts(count: int, most: int) -> Iterator[slice]:
    """Cut `count` rows into slices of at most `most`, in order."""
    for start in range(0, count, most):
        yield slice(start, min(start + most, count))
