"""TensorRT for RTX as a gate: its builder needs no GPU and names every fused layer with its types.

A graph that passes is one that the real parser takes and the real compiler keeps in int8. It is
the flavour for RTX cards, so this proves nothing about the speed or the kernels of another device.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from qpde_perception.engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "tensorrt_rtx"
REMEDY = "pip install tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116"
CAPABILITY = "SM86"
"""Compute capability of the integer units of Jetson Orin's generation; 7.5 has none here."""

CONVOLUTION = "correlation"
INT8 = "Int8"
_LAYER = re.compile(
    r"^Name: (?P<name>[^,]*), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"(?:Constants: \[.*\], )?Outputs: \[(?P<outputs>.*?)\], TacticName"
    r".*?Metadata: (?P<origin>.*)$",
    re.MULTILINE,
)
_TENSOR = re.compile(r"\{ Name: ([^,]*), Dimensions: \[[^\]]*\], .*?Datatype: (\w+)")
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor between fused layers: its name and type, for example `Int8`."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """One kernel of the built engine.

    Attributes:
        name: The builder's name.
        kind: The builder's kind: `correlation` is a convolution, `kgen` a generated kernel.
        inputs: Activations, and weights where they are dequantized beforehand.
        outputs: What it writes.
        nodes: Names of the graph's nodes that went into it.
    """

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the builder made of a graph.

    Attributes:
        version: Version of the builder.
        convolutions: Names of the graph's convolutions, transposed ones included.
        transposed: The transposed ones, which run in floating point.
        layers: The engine's fused layers, in order of execution.
    """

    version: str
    convolutions: tuple[str, ...]
    transposed: tuple[str, ...]
    layers: tuple[FusedLayer, ...]

    @property
    def int8(self) -> tuple[str, ...]:
        """The graph's convolutions that read int8 alone."""
        found = {
            node
            for layer in self.layers
            if layer.kind == CONVOLUTION and {tensor.type for tensor in layer.inputs} == {INT8}
            for node in layer.nodes
        }
        return tuple(node for node in self.convolutions if node in found)

    @property
    def float_islands(self) -> tuple[str, ...]:
        """Layers that neither read nor write int8, and whose result is quantized later on.

        Every layer of the float head is none, for nothing after it is int8; nor is one that reads
        nothing, which sets the memory of a sum to zero.
        """
        islands, quantized_later = [], set[str]()
        for layer in reversed(self.layers):
            read = {tensor.name for tensor in layer.inputs}
            written = {tensor.name for tensor in layer.outputs}
            if INT8 in {tensor.type for tensor in layer.outputs}:
                quantized_later |= read
            elif written & quantized_later:
                quantized_later |= read
                if read and INT8 not in {tensor.type for tensor in layer.inputs}:
                    islands.append(layer.name)
        return tuple(reversed(islands))

    @property
    def faults(self) -> tuple[str, ...]:
        """What keeps the graph from passing the gate, a line each."""
        slow = sorted(set(self.convolutions) - set(self.int8) - set(self.transposed))
        return (
            *(
                f"{node}: a transposed convolution runs in float; write it as an ordinary one"
                for node in self.transposed
            ),
            *(f"{node}: a convolution that is not int8" for node in slow),
            *(f"{name}: a float island between quantized layers" for name in self.float_islands),
        )


def inspect(graph: bytes, *, max_batch: int = 8) -> Inspection:
    """Parse and build a graph with the real builder; a minute or less, no GPU, nothing executed.

    Args:
        graph: A strongly typed ONNX file, pixels (n, height, width, 3) in.
        max_batch: Largest batch that the engine is built for.

    Raises:
        EngineError: If the library is missing, or refuses the graph.
    """
    try:
        library: Any = import_module("tensorrt_rtx_bindings")
    except ImportError as error:
        msg = f"{NAME} cannot be loaded ({error}); {REMEDY}"
        raise EngineError(msg) from None
    messages: list[str] = []
    logger = _logger(library, messages.append)
    builder = library.Builder(logger)
    typed = 1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = library.OnnxParser(network, logger)
    version = str(library.__version__)
    if not parser.parse(graph):
        first = parser.get_error(0).desc()
        msg = f"{NAME} {version} refuses the graph: {first}"
        raise EngineError(msg)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    pixels = network.get_input(0)
    smallest, largest = (1, *pixels.shape[1:]), (max_batch, *pixels.shape[1:])
    profile.set_shape(pixels.name, smallest, smallest, largest)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(library.ComputeCapability, CAPABILITY), 0)
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    # Sums that float32 holds exactly would be rounded to ten bits.
    config.clear_flag(library.BuilderFlag.TF32)
    if builder.build_serialized_network(network, config) is None:
        msg = (
            f"{NAME} {version} cannot build the graph: {messages[-1] if messages else 'no reason'}"
        )
        raise EngineError(msg)
    kinds = {
        network.get_layer(index).name: network.get_layer(index).type
        for index in range(network.num_layers)
    }
    transposed = [n for n, kind in kinds.items() if kind == library.LayerType.DECONVOLUTION]
    ordinary = [n for n, kind in kinds.items() if kind == library.LayerType.CONVOLUTION]
    layers = tuple(_layers("\n".join(messages)))
    if not layers:
        msg = f"{NAME} {version} names no layers; the gate knows the report of 1.7: {REMEDY}"
        raise EngineError(msg)
    return Inspection(version, (*ordinary, *transposed), tuple(transposed), layers)


def _logger(library: Any, hear: Callable[[str], None]) -> Any:
    class Logger(library.ILogger):  # type: ignore[misc]
        """Keeps what the builder says."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, _severity: Any, message: str) -> None:
            hear(message)

    return Logger()


def _layers(report: str) -> list[FusedLayer]:
    return [
        FusedLayer(
            name=found["name"],
            kind=found["kind"],
            inputs=_tensors(found["inputs"]),
            outputs=_tensors(found["outputs"]),
            nodes=tuple(_ORIGIN.findall(found["origin"])),
        )
        for found in _LAYER.finditer(report)
        if found["kind"] != "shape_call"
    ]


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(Tensor(name, kind) for name, kind in _TENSOR.findall(text))
