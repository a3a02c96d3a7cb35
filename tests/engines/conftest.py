# ruff: noqa: N802, N815  (the names are those of CUDA and of TensorRT)
"""A stand-in for a GPU: CUDA's runtime and TensorRT's, as far as the engine calls them.

Memory is the host's, a stream runs its work when it is waited for and not before, and a plan holds
a graph that ONNX Runtime executes. What is asked of a call is checked as the real ones do. It shows
that the engine's own steps are right; that the real libraries agree, tests/gpu shows on a GPU.
"""

from __future__ import annotations

import ctypes
import json
import sys
from enum import IntEnum
from itertools import count
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from qpde_perception.engines import cuda


class Code(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureInvalidated = 901


class Stream:
    """Work that waits, and the recording that is going on."""

    def __init__(self, number):
        self.number = number
        self.work = []
        self.recording = None

    def __int__(self):
        return self.number

    def add(self, step):
        (self.work if self.recording is None else self.recording).append(step)


class HostCuda:
    """The functions of `cuda.bindings.runtime`: a code first, then what they return.

    Attributes:
        held: What was taken and not given back, by handle.
        allocations_left: After how many more allocations memory is full; None for never.
        called: How often each function was called.
    """

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self):
        self.held = {}
        self.allocations_left = None
        self.called = {}
        self._handles = count(1)

    def __getattribute__(self, name):
        found = object.__getattribute__(self, name)
        if name.startswith("cuda") and callable(found):
            self.called[name] = self.called.get(name, 0) + 1
        return found

    def stream(self, number):
        return next(s for s in self.held.values() if isinstance(s, Stream) and int(s) == number)

    def cudaGetDeviceCount(self):
        return Code.cudaSuccess, 2

    def cudaGetDeviceProperties(self, index):
        found = SimpleNamespace(name=b"Stand-in\0\0", major=8, minor=7 + index)
        return Code.cudaSuccess, found

    def cudaDriverGetVersion(self):
        return Code.cudaSuccess, 12060

    def cudaSetDevice(self, index):
        return (Code.cudaSuccess if index in (0, 1) else Code.cudaErrorInvalidValue,)

    def cudaGetLastError(self):
        return (Code.cudaSuccess,)

    def cudaGetErrorName(self, code):
        return Code.cudaSuccess, Code(code).name.encode()

    def cudaGetErrorString(self, code):
        return Code.cudaSuccess, b"out of memory" if code == 2 else b"refused"

    def _take(self, size):
        if self.allocations_left is not None:
            if self.allocations_left == 0:
                return Code.cudaErrorMemoryAllocation, None
            self.allocations_left -= 1
        memory = ctypes.create_string_buffer(size)
        address = ctypes.addressof(memory)
        self.held[address] = memory
        return Code.cudaSuccess, address

    cudaMalloc = cudaMallocHost = _take

    def _give(self, handle):
        known = self.held.pop(handle, None)
        return (Code.cudaErrorInvalidValue if known is None else Code.cudaSuccess,)

    cudaFree = cudaFreeHost = cudaStreamDestroy = cudaGraphDestroy = cudaGraphExecDestroy = _give

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == self.cudaStreamNonBlocking
        stream = Stream(1000 + next(self._handles))
        self.held[stream] = stream
        return Code.cudaSuccess, stream

    def has(self, address, size):
        return any(
            start <= address and address + size <= start + len(memory)
            for start, memory in self.held.items()
            if isinstance(start, int) and isinstance(memory, ctypes.Array)
        )

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        assert kind in (1, 2)
        if not (self.has(to, size) and self.has(source, size)):
            return (Code.cudaErrorInvalidValue,)
        stream.add(lambda: ctypes.memmove(to, source, size))
        return (Code.cudaSuccess,)

    def cudaStreamSynchronize(self, stream):
        for step in stream.work:
            step()
        stream.work.clear()
        return (Code.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream, mode):
        assert mode == 1
        stream.recording = []
        return (Code.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        steps, stream.recording = stream.recording, None
        if "invalid" in steps:
            return Code.cudaErrorStreamCaptureInvalidated, None
        handle = ("graph", next(self._handles))
        self.held[handle] = steps
        return Code.cudaSuccess, handle

    def cudaGraphInstantiateWithFlags(self, graph, flags):
        assert flags == 0
        handle = ("executable", next(self._handles))
        self.held[handle] = list(self.held[graph])
        return Code.cudaSuccess, handle

    def cudaGraphLaunch(self, executable, stream):
        stream.work.extend(self.held[executable])
        return (Code.cudaSuccess,)


class Logger:
    """The base of loggers, as the bindings have it."""

    Severity = IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)


class Context:
    """Executes batches of the shape that was set, into the addresses that were set."""

    def __init__(self, engine, strategy):
        assert strategy == "user managed"
        self._engine = engine
        self._addresses = {}
        self._shape = None
        self._scratch = 0
        self._fresh = True

    def set_device_memory(self, address, size):
        assert self._engine.library.cuda.has(address, size)
        self._scratch = size

    def set_input_shape(self, name, shape):
        smallest, _, largest = self._engine.get_tensor_profile_shape(name, 0)
        self._fresh = True
        self._shape = shape
        return all(a <= b <= c for a, b, c in zip(smallest, shape, largest, strict=True))

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return True

    def execute_async_v3(self, number):
        engine = self._engine
        stream = engine.library.cuda.stream(number)
        assert self._scratch >= engine.device_memory_size_v2
        if stream.recording is not None and (self._fresh or engine.library.unrecordable):
            engine.library.say("operation not permitted when stream is capturing")
            stream.recording.append("invalid")
            return False
        self._fresh = False
        shape, addresses = self._shape, dict(self._addresses)
        stream.add(lambda: engine.run(shape, addresses))
        return True


class HostEngine:
    """What a plan is read into."""

    device_memory_size_v2 = 4096

    def __init__(self, library, graph, smallest, largest):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # Left to optimise, ONNX Runtime rounds the biases of a graph for TensorRT.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers = ["CPUExecutionProvider"]
        self.library = library
        self._session = onnxruntime.InferenceSession(graph, options, providers=providers)
        self._tensors = [*self._session.get_inputs(), *self._session.get_outputs()]
        self._batches = (smallest, smallest, largest)
        self.num_io_tensors = len(self._tensors)

    def _tensor(self, name):
        return next(tensor for tensor in self._tensors if tensor.name == name)

    def get_tensor_name(self, index):
        return self._tensors[index].name

    def get_tensor_mode(self, name):
        return "input" if name == self._session.get_inputs()[0].name else "output"

    def get_tensor_dtype(self, name):
        return self._tensor(name).type

    def get_tensor_shape(self, name):
        return (-1, *self._tensor(name).shape[1:])

    def get_tensor_profile_shape(self, name, index):
        assert index == 0
        return [(n, *self.get_tensor_shape(name)[1:]) for n in self._batches]

    def create_execution_context(self, strategy):
        self.library.contexts += 1
        return Context(self, strategy)

    def create_engine_inspector(self):
        layers = [*({"Name": tensor.name} for tensor in self._tensors), "a name alone"]
        told = {"json": json.dumps({"Layers": layers})}
        return SimpleNamespace(get_engine_information=told.__getitem__)

    def run(self, shape, addresses):
        memory = (ctypes.c_uint8 * int(np.prod(shape))).from_address(addresses["pixels"])
        pixels = np.frombuffer(memory, np.uint8).reshape(shape)
        names = [output.name for output in self._session.get_outputs()]
        for name, rows in zip(names, self._session.run(names, {"pixels": pixels}), strict=True):
            ctypes.memmove(addresses[name], rows.tobytes(), rows.nbytes)


class HostTensorRt:
    """The module `tensorrt`.

    Attributes:
        unrecordable: Whether executing refuses to be recorded.
        contexts: How many contexts were made.
    """

    __version__ = "10.3.0"
    ILogger = Logger
    LayerInformationFormat = SimpleNamespace(JSON="json")
    TensorIOMode = SimpleNamespace(INPUT="input")
    ProfilingVerbosity = SimpleNamespace(NONE="none")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")

    def __init__(self, cuda, cores=0):
        self.cuda = cuda
        self.unrecordable = False
        self.contexts = 0
        self._cores = cores
        self._logger = None

    def say(self, message):
        self._logger.log(Logger.Severity.ERROR, message)

    def nptype(self, kind):
        return {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[kind]

    def Runtime(self, logger):
        self._logger = logger
        return SimpleNamespace(
            num_DLA_cores=self._cores, DLA_core=-1, deserialize_cuda_engine=self._read
        )

    def _read(self, plan):
        head, _, graph = plan.partition(b"\n")
        made = json.loads(head)
        if len(graph) != made["bytes"] or made["version"] != self.__version__:
            self.say("Serialization assertion plan.header.size == blobSize failed.\nIn parsePlan")
            return None
        return HostEngine(self, graph, made["smallest"], made["largest"])


def plan_of(graph, *, smallest=1, largest=4, version=HostTensorRt.__version__):
    """Return the plan of a graph, as the stand-in reads it."""
    head = {"bytes": len(graph), "smallest": smallest, "largest": largest, "version": version}
    return json.dumps(head).encode() + b"\n" + graph


@pytest.fixture
def make_plan():
    """Make plans of graphs, as the stand-in reads them."""
    return plan_of


@pytest.fixture
def host_gpu(monkeypatch):
    """Put the stand-in where the engine looks for TensorRT and CUDA."""
    runtime = HostCuda()
    library = HostTensorRt(runtime)
    cuda.runtime.cache_clear()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    yield SimpleNamespace(cuda=runtime, tensorrt=library)
    cuda.runtime.cache_clear()
