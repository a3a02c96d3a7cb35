"""What all writers of ONNX graphs share, and the writer of the float reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qpde_perception.compiling.sizes import tensor_sizes
from qpde_perception.compiling.specification import (
    PIXEL_ZERO,
    PIXELS,
    Add,
    Append,
    Conv,
    Head,
    Smooth,
    Specification,
)
from qpde_perception.compiling.taps import SATURATION, taps_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

OPSET = 17
IR_VERSION = 9
LOGITS = "logits"
PRODUCER = "qpde_perception"


def float_graph(specification: Specification) -> bytes:
    """Return the float reference: deployed integer weights, activations not rounded or clipped."""
    return _FloatWriter(specification).serialise()


def unrounded_graph(specification: Specification) -> bytes:
    """Return the reference of drift: activations clipped where their grids end, but not rounded.

    Pixels uint8 (n, h, w, 3) to logits float32. The second output is `saturation`, float32
    (n, taps): the share of a tap's values that its grid codes as `q_max`, whatever engine serves.
    """
    return _UnroundedWriter(specification).serialise()


class Writer:
    """What all graphs share: names, constants, and the walk over the layers."""

    def __init__(self, specification: Specification) -> None:
        self.specification = specification
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        classes = len(specification.arrays["head.bias"])
        self.outputs = {LOGITS: classes}
        self.properties: dict[str, str] = {}

    def serialise(self) -> bytes:
        """Write every layer; return the ONNX file."""
        self.begin()
        for layer in self.specification.layers:
            if isinstance(layer, Conv):
                self.conv(layer)
            elif isinstance(layer, Add):
                self.add(layer)
            elif isinstance(layer, Smooth):
                self.smooth(layer)
            elif isinstance(layer, Append):
                self.append(layer)
            else:
                self.head(layer)
        self.end()
        document = self.specification.document
        shape = ["n", document.input_height, document.input_width, 3]
        graph = helper.make_graph(
            self.nodes,
            PRODUCER,
            [helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, shape)],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
                for name, size in self.outputs.items()
            ],
            list(self.constants.values()),
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name=PRODUCER
        )
        model.ir_version = IR_VERSION
        helper.set_model_props(model, self.properties)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))

    def begin(self) -> None:
        """Write what comes before the first layer."""
        raise NotImplementedError

    def end(self) -> None:
        """Write what comes after the last layer: nothing, unless a graph has more outputs."""

    def conv(self, layer: Conv) -> None:
        """Write a convolution."""
        raise NotImplementedError

    def add(self, layer: Add) -> None:
        """Write a residual sum."""
        raise NotImplementedError

    def smooth(self, layer: Smooth) -> None:
        """Write total-variation steps."""
        raise NotImplementedError

    def append(self, layer: Append) -> None:
        """Write copies of the first channels."""
        raise NotImplementedError

    def head(self, layer: Head) -> None:
        """Write the mean and the dense layer."""
        raise NotImplementedError

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add one node; return the name of its output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Array) -> str:
        """Add one constant, once; return its name."""
        if name not in self.constants:
            # A scale must stay without dimensions: with one of length 1, TensorRT takes it for a
            # scale per channel and leaves the convolution in floating point.
            values = np.asarray(values, order="C")
            self.constants[name] = numpy_helper.from_array(values, name)
        return name

    def scalar(self, value: float) -> str:
        """Add a float32 constant without dimensions, once; return its name."""
        return self.constant(f"scalar_{value!r}", np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        """Add an int64 constant, once; return its name."""
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def slice(self, x: str, output: str, *, axis: int, start: int, end: int) -> str:
        """Write a slice along one axis; return its name."""
        bounds = [self.integers(start), self.integers(end), self.integers(axis)]
        return self.node("Slice", [x, *bounds], output)

    def convolution(self, layer: Conv, inputs: list[str], output: str) -> str:
        """Write the node of a convolution; return its name."""
        kernel = self.specification.arrays[f"{layer.name}.weight"].shape[-1]
        return self.node(
            "Conv",
            inputs,
            output,
            kernel_shape=[kernel, kernel],
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
            group=layer.groups,
        )

    def smoothing_steps(self, x: str, name: str, layer: Smooth, delta: float) -> str:
        """Write the explicit steps on float values; return the smoothed tensor."""
        far = np.iinfo(np.int64).max
        limits = [self.scalar(-delta), self.scalar(delta)]
        for step in range(layer.iterations):
            fluxes = []
            for axis, pads in ((2, (0, 0, 1, 0, 0, 0, 1, 0)), (3, (0, 0, 0, 1, 0, 0, 0, 1))):
                part = f"{name}.{step}.axis{axis}"
                ahead = self.slice(x, f"{part}.ahead", axis=axis, start=1, end=far)
                behind = self.slice(x, f"{part}.behind", axis=axis, start=0, end=-1)
                difference = self.node("Sub", [ahead, behind], f"{part}.difference")
                flux = self.node("Clip", [difference, *limits], f"{part}.flux")
                padded = self.node("Pad", [flux, self.integers(*pads)], f"{part}.padded")
                into = self.slice(padded, f"{part}.into", axis=axis, start=0, end=-1)
                out_of = self.slice(padded, f"{part}.out_of", axis=axis, start=1, end=far)
                fluxes.append(self.node("Sub", [into, out_of], f"{part}.divergence"))
            total = self.node("Add", fluxes, f"{name}.{step}.divergence")
            change = self.node("Mul", [total, self.scalar(layer.rate)], f"{name}.{step}.change")
            x = self.node("Sub", [x, change], f"{name}.{step}.smoothed")
        return x

    def dense(self, layer: Head, pooled: str) -> None:
        """Write the dense layer on integers: float32 logits of pooled codes."""
        arrays, name = self.specification.arrays, layer.name
        weight = self.constant(f"{name}.weight", arrays[f"{name}.weight"].T.astype(np.float32))
        product = self.node("MatMul", [pooled, weight], f"{name}.product")
        scale = self.constant(f"{name}.scale", arrays[f"{name}.scale"])
        scaled = self.node("Mul", [product, scale], f"{name}.scaled")
        self.node("Add", [scaled, self.constant(f"{name}.bias", arrays[f"{name}.bias"])], LOGITS)


class _FloatWriter(Writer):
    """Real values throughout."""

    def begin(self) -> None:
        codes = self.node("Transpose", [PIXELS], f"{PIXELS}.codes", perm=[0, 3, 1, 2])
        values = self.node("Cast", [codes], f"{PIXELS}.float", to=TensorProto.FLOAT)
        centred = self.node("Sub", [values, self.scalar(float(PIXEL_ZERO))], f"{PIXELS}.centred")
        scale = self.specification.grid(PIXELS).scale
        self.node("Mul", [centred, self.scalar(scale)], f"{PIXELS}.values")

    def conv(self, layer: Conv) -> None:
        arrays, name = self.specification.arrays, layer.name
        scale = arrays[f"{name}.scale"].astype(np.float64)
        weight = arrays[f"{name}.weight"] * scale[:, None, None, None]
        bias = arrays[f"{name}.bias"] * scale * self.specification.grid(layer.input).scale
        inputs = [
            f"{layer.input}.values",
            self.constant(f"{name}.weight", weight.astype(np.float32)),
            self.constant(f"{name}.bias", bias.astype(np.float32)),
        ]
        self.activate(self.convolution(layer, inputs, f"{name}.linear"), layer.output)

    def add(self, layer: Add) -> None:
        inputs = [f"{layer.trunk}.values", f"{layer.branch}.values"]
        self.activate(self.node("Add", inputs, f"{layer.name}.linear"), layer.output)

    def activate(self, result: str, tensor: str) -> None:
        """Write what a grid does to values, rounding left out: ReLU where it rectifies."""
        rectifies = self.specification.grid(tensor).rectifies
        self.node("Relu" if rectifies else "Identity", [result], f"{tensor}.values")

    def smooth(self, layer: Smooth) -> None:
        delta = layer.delta * self.specification.grid(layer.input).scale
        smoothed = self.smoothing_steps(f"{layer.input}.values", layer.name, layer, delta)
        self.node("Identity", [smoothed], f"{layer.output}.values")

    def append(self, layer: Append) -> None:
        values = f"{layer.input}.values"
        copies = self.slice(values, f"{layer.name}.copies", axis=1, start=0, end=layer.channels)
        self.node("Concat", [values, copies], f"{layer.output}.values", axis=1)

    def head(self, layer: Head) -> None:
        arrays, name = self.specification.arrays, layer.name
        grid = self.specification.grid(layer.input)
        pooled = self.node(
            "ReduceMean", [f"{layer.input}.values"], f"{name}.pooled", axes=[2, 3], keepdims=0
        )
        # The scale of the head is that of weight times pooled code; here the mean is a real value.
        _, height, width = tensor_sizes(self.specification)[layer.input]
        step = grid.scale / (layer.multiplier * height * width)
        weight = (arrays[f"{name}.weight"] * (arrays[f"{name}.scale"] / step)[:, None]).T
        product = self.node(
            "MatMul",
            [pooled, self.constant(f"{name}.weight", weight.astype(np.float32))],
            f"{name}.product",
        )
        self.node("Add", [product, self.constant(f"{name}.bias", arrays[f"{name}.bias"])], LOGITS)


class _UnroundedWriter(_FloatWriter):
    """Values that end where the grids do.

    The distance to an engine is then rounding alone. Clipping changes logits more than rounding
    does, and by how much depends on the picture: a fault of an engine would hide behind it.
    """

    def activate(self, result: str, tensor: str) -> None:
        grid = self.specification.grid(tensor)
        limits = [self.scalar(grid.q_min * grid.scale), self.scalar(grid.q_max * grid.scale)]
        self.node("Clip", [result, *limits], f"{tensor}.values")

    def end(self) -> None:
        taps = taps_of(self.specification.document)
        if not taps:
            return
        shares = [self.saturated(tap) for tap in taps]
        columns = self.node("Concat", shares, f"{SATURATION}.columns", axis=1)
        self.node("Squeeze", [columns, self.integers(2, 3)], SATURATION)
        self.outputs[SATURATION] = len(taps)

    def saturated(self, tap: str) -> str:
        """Return the share of a frame's values that the grid cuts off, shape (n, 1, 1, 1)."""
        name, grid = f"{tap}.{SATURATION}", self.specification.grid(tap)
        least = self.scalar((grid.q_max - 0.5) * grid.scale)
        beyond = self.node("GreaterOrEqual", [f"{tap}.values", least], f"{name}.beyond")
        ones = self.node("Cast", [beyond], f"{name}.ones", to=TensorProto.FLOAT)
        return self.node("ReduceMean", [ones], f"{name}.share", axes=[1, 2, 3], keepdims=1)
