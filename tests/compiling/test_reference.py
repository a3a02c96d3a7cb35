"""The integer reference against loops over Python integers and fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qpde_perception.compiling.cpu_writer import cpu_graph
from qpde_perception.compiling.errors import CompilingError
from qpde_perception.compiling.reference import IntegerReference, _dense, smooth
from qpde_perception.compiling.specification import (
    PIXELS,
    Add,
    Append,
    Conv,
    Document,
    Grid,
    Head,
    Smooth,
    Specification,
)
from qpde_perception.compiling.tensorrt_writer import tensorrt_graph
from qpde_perception.compiling.torch_program import program_of
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.engines.openvino import OpenVinoEngine

SIGNED, UNSIGNED = (-128, 127), (0, 255)


def clip(value, grid):
    return min(max(value, grid.q_min), grid.q_max)


def naive_conv(layer, x, specification):
    """Convolve codes, an object array of Python integers (height, width, channels)."""
    weight, scale, bias = (
        specification.arrays[f"{layer.name}.{part}"] for part in ("weight", "scale", "bias")
    )
    source, target = specification.grid(layer.input), specification.grid(layer.output)
    outputs, inputs, kernel, _ = weight.shape
    rows, columns = (
        (size + 2 * layer.padding - kernel) // layer.stride + 1 for size in x.shape[:2]
    )
    result = np.empty((rows, columns, outputs), object)
    for row, column, output in np.ndindex(rows, columns, outputs):
        first = output // (outputs // layer.groups) * inputs
        total = int(bias[output])
        for channel, i, j in np.ndindex(inputs, kernel, kernel):
            y = row * layer.stride + i - layer.padding
            z = column * layer.stride + j - layer.padding
            if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
                total += int(weight[output, channel, i, j]) * x[y, z, first + channel]
        step = Fraction(source.scale) * Fraction(float(scale[output])) / Fraction(target.scale)
        # `round` of a fraction is exact and goes half to even.
        result[row, column, output] = clip(round(total * step), target)
    return result


def naive_smooth(x, layer):
    rate = Fraction(layer.rate)
    x = x + Fraction(0)
    for _ in range(layer.iterations):
        change = np.full(x.shape, Fraction(0), object)
        for row, column, channel in np.ndindex(x.shape):
            for y, z in ((row + 1, column), (row, column + 1)):
                if y < x.shape[0] and z < x.shape[1]:
                    flux = x[y, z, channel] - x[row, column, channel]
                    flux = min(max(flux, -layer.delta), layer.delta)
                    change[row, column, channel] += flux
                    change[y, z, channel] -= flux
        x = x + rate * change
    return np.frompyfunc(round, 1, 1)(x)


def naive_head(layer, x, arrays):
    sums = [sum(x[..., channel].flat) for channel in range(x.shape[2])]
    pooled = [round(Fraction(float(np.float32(s) * np.float32(layer.multiplier)))) for s in sums]
    weight, scale, bias = (arrays[f"{layer.name}.{part}"] for part in ("weight", "scale", "bias"))
    products = [sum(int(w) * p for w, p in zip(row, pooled, strict=True)) for row in weight]
    return np.array(products, np.float32) * scale + bias


def naive_tensors(specification, image):
    """Execute a specification on one image with Python integers alone."""
    tensors = {PIXELS: image.astype(object) - 128}
    for layer in specification.layers:
        if isinstance(layer, Conv):
            tensors[layer.output] = naive_conv(layer, tensors[layer.input], specification)
        elif isinstance(layer, Add):
            total = tensors[layer.trunk] + tensors[layer.branch]
            grid = specification.grid(layer.output)
            tensors[layer.output] = np.frompyfunc(lambda v, g=grid: clip(v, g), 1, 1)(total)
        elif isinstance(layer, Smooth):
            tensors[layer.output] = naive_smooth(tensors[layer.input], layer)
        elif isinstance(layer, Append):
            x = tensors[layer.input]
            tensors[layer.output] = np.concatenate([x, x[..., : layer.channels]], axis=2)
        else:
            tensors["logits"] = naive_head(layer, tensors[layer.input], specification.arrays)
    return tensors


class Builder:
    """Draws random layers with scales such as folding allows."""

    def __init__(self, rng, height, width):
        self.rng, self.height, self.width = rng, height, width
        self.grids = {PIXELS: Grid(scale=2.0**-6, q_min=-128, q_max=127)}
        self.layers, self.arrays = [], {}

    def grid(self, limits):
        scale = 2.0 ** int(self.rng.integers(-8, 0))
        return Grid(scale=scale, q_min=limits[0], q_max=limits[1])

    def conv(self, name, source, shape, *, stride=1, padding=0, groups=1, grid):
        outputs = shape[0]
        # At most seven bits, no finer than 2^-16 of a code, and such that few codes saturate.
        multiplier = self.rng.integers(1, 128, outputs) * 2.0 ** -int(self.rng.integers(12, 17))
        scale = multiplier * grid.scale / self.grids[source].scale
        self.arrays |= {
            f"{name}.weight": self.rng.integers(-127, 128, shape).astype(np.int8),
            f"{name}.scale": scale.astype(np.float32),
            f"{name}.bias": self.rng.integers(-9999, 9999, outputs).astype(np.int32),
        }
        self.grids[name] = grid
        layer = Conv(
            name=name, input=source, output=name, stride=stride, padding=padding, groups=groups
        )
        self.layers.append(layer)
        return name

    def specification(self, *, stride, padding, iterations):
        hidden, trunk = 4, self.grid(SIGNED)
        kernel = min(3, self.height + 2 * padding, self.width + 2 * padding)
        stem = self.conv(
            "stem", PIXELS, (2, 3, kernel, kernel), stride=stride, padding=padding, grid=trunk
        )
        self.grids["smooth"] = trunk
        self.layers.append(
            Smooth(
                name="smooth",
                input=stem,
                output="smooth",
                delta=int(self.rng.integers(1, 40)),
                rate=0.125,
                iterations=iterations,
            )
        )
        expanded = self.conv("expand", "smooth", (hidden, 2, 1, 1), grid=self.grid(SIGNED))
        rectified = self.conv(
            "depthwise",
            expanded,
            (hidden, 1, 3, 3),
            padding=1,
            groups=hidden,
            grid=self.grid(UNSIGNED),
        )
        branch = self.conv("branch", rectified, (2, hidden, 1, 1), grid=trunk)
        self.grids |= {"sum": trunk, "append": trunk}
        self.layers += [
            Add(name="sum", trunk="smooth", branch=branch, output="sum"),
            Append(name="append", input="sum", output="append", channels=1),
        ]
        features = self.conv("features", "append", (5, 3, 1, 1), grid=self.grid(UNSIGNED))
        rows, columns = (
            (size + 2 * padding - kernel) // stride + 1 for size in (self.height, self.width)
        )
        multiplier = float(np.float32(4 / (rows * columns)))
        self.layers.append(Head(name="head", input=features, multiplier=multiplier))
        self.arrays |= {
            "head.weight": self.rng.integers(-127, 128, (3, 5)).astype(np.int8),
            "head.scale": 2.0 ** -self.rng.integers(1, 10, 3).astype(np.float32),
            "head.bias": self.rng.standard_normal(3, np.float32),
        }
        document = Document(
            input_height=self.height,
            input_width=self.width,
            grids=self.grids,
            layers=tuple(self.layers),
        )
        return Specification(document, self.arrays)


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    builder = Builder(rng, draw(st.integers(2, 6)), draw(st.integers(2, 6)))
    specification = builder.specification(
        stride=draw(st.integers(1, 2)),
        padding=draw(st.integers(0, 1)),
        iterations=draw(st.integers(1, 3)),
    )
    size = (2, builder.height, builder.width, 3)
    return specification, rng.integers(0, 256, size, np.uint8)


@settings(max_examples=60)
@given(cases())
def test_every_tensor_is_that_of_exact_integer_arithmetic(case):
    specification, images = case
    tensors = IntegerReference(specification).tensors(images)
    for index, image in enumerate(images):
        for name, expected in naive_tensors(specification, image).items():
            got = tensors[name][index]
            assert np.array_equal(got, expected.astype(np.float32)), name


@settings(max_examples=25)
@given(cases())
def test_engines_are_bit_identical_on_random_specifications(case):
    specification, images = case
    expected = IntegerReference(specification).infer(images)
    graph = cpu_graph(specification)
    for engine in (OnnxRuntimeEngine, OpenVinoEngine):
        assert np.array_equal(engine(graph, 1).infer(images), expected), engine.name


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (3, 12), (6, 8), (6, 6)])
@pytest.mark.parametrize("delta", [31, 40])
def test_engines_are_bit_identical_at_any_image_size_and_limit_of_the_flux(size, delta):
    """Four pixels at a time where the width allows it; bytes where four fluxes fit into one."""
    rng = np.random.default_rng(3)
    specification = Builder(rng, *size).specification(stride=2, padding=1, iterations=1)
    layers = tuple(
        layer.model_copy(update={"delta": delta}) if isinstance(layer, Smooth) else layer
        for layer in specification.layers
    )
    document = specification.document.model_copy(update={"layers": layers})
    specification = Specification(document, specification.arrays)
    images = rng.integers(0, 256, (3, *size, 3), np.uint8)
    expected = IntegerReference(specification).infer(images)
    graph = cpu_graph(specification)
    for engine in (OnnxRuntimeEngine, OpenVinoEngine):
        assert np.array_equal(engine(graph, 1).infer(images), expected), engine.name


@settings(max_examples=25)
@given(cases())
def test_the_graph_for_tensorrt_is_bit_identical_on_random_specifications(as_written, case):
    specification, images = case
    logits, saturation = as_written(tensorrt_graph(specification), images)
    expected_logits, expected_saturation = IntegerReference(specification).observe(images)
    assert np.array_equal(logits, expected_logits)
    assert np.array_equal(saturation, expected_saturation)


@settings(max_examples=5)  # tracing takes a second
@given(cases())
def test_the_torch_program_is_bit_identical_on_random_specifications(case):
    specification, images = case
    program = program_of(specification, len(images)).module()
    expected_logits, expected_saturation = IntegerReference(specification).observe(images)
    for count in range(1, len(images) + 1):
        logits, saturation = program(torch.from_numpy(images[:count].copy()))
        assert np.array_equal(logits.numpy(), expected_logits[:count])
        assert np.array_equal(saturation.numpy(), expected_saturation[:count])


@settings(max_examples=25)
@given(cases())
def test_saturation_is_the_share_of_codes_at_the_top_of_the_grid(case):
    specification, images = case
    for image, shares in zip(
        images, IntegerReference(specification).saturation(images), strict=True
    ):
        tensors = naive_tensors(specification, image)
        for tap, share in zip(("depthwise", "features"), shares, strict=True):
            codes = tensors[tap].ravel().tolist()
            assert share == np.float32(codes.count(255) / len(codes)), tap


def one_layer(layer, codes, grids, arrays=None):
    """Execute one layer on given codes, (height, width, channels), and return its codes."""
    height, width, channels = codes.shape
    assert channels == 3
    document = Document(
        input_height=height,
        input_width=width,
        grids={PIXELS: Grid(scale=1.0, q_min=-128, q_max=127), **grids},
        layers=(layer,),
    )
    pixels = (codes + 128).astype(np.uint8)[None]
    reference = IntegerReference(Specification(document, arrays or {}))
    return reference.tensors(pixels)[layer.output][0]


@pytest.mark.parametrize("sign", [1, -1])
def test_residual_sum_saturates_at_the_grid(sign):
    grid = {"y": Grid(scale=1.0, q_min=-128, q_max=127)}
    codes = np.full((2, 2, 3), sign * 100)
    total = one_layer(Add(name="y", trunk=PIXELS, branch=PIXELS, output="y"), codes, grid)
    assert np.unique(total).tolist() == [127 if sign > 0 else -128]


def test_requantization_rounds_half_to_even():
    grid = {"y": Grid(scale=2.0, q_min=-128, q_max=127)}
    arrays = {
        "y.weight": np.eye(3, dtype=np.int8)[:, :, None, None],
        "y.scale": np.ones(3, np.float32),
        "y.bias": np.zeros(3, np.int32),
    }
    layer = Conv(name="y", input=PIXELS, output="y", stride=1, padding=0, groups=1)
    codes = np.array([-5, -3, -1, 1, 3, 5]).reshape(2, 1, 3)
    assert one_layer(layer, codes, grid, arrays).ravel().tolist() == [-2, -2, 0, 0, 2, 2]


def test_wide_sums_are_exact_beyond_what_float32_holds():
    """2,000 products of the largest magnitude, and one more of 1: float32 would lose it."""
    channels = 2001
    codes = np.full((1, 1, 1, channels), 255.0, np.float32)
    codes[..., -1] = 1
    weight = np.full((1, channels, 1, 1), 127, np.int8)
    weight[..., -1, 0, 0] = 1
    layer = Conv(name="y", input="x", output="y", stride=1, padding=0, groups=1)
    assert _dense(codes, weight, layer).item() == 2000 * 255 * 127 + 1


def test_integer_smoothing_keeps_the_sum_of_a_map_before_rounding():
    layer = Smooth(name="y", input="x", output="y", delta=1000, rate=0.125, iterations=1)
    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, 1, 1, 0] = 80
    smoothed = smooth(x, layer)[0, :, :, 0]
    assert smoothed.tolist() == [[0, 10, 0], [10, 40, 10], [0, 10, 0]]


def test_batches_of_any_size_equal_single_images(tiny_specification, images):
    pixels = images(33, 16, seed=1)
    reference = IntegerReference(tiny_specification)
    singles = np.concatenate([reference.infer(pixels[i : i + 1]) for i in range(len(pixels))])
    assert np.array_equal(reference.infer(pixels), singles)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((1, 16, 16, 1), np.uint8), ((1, 15, 16, 3), np.uint8), ((1, 16, 16, 3), np.float32)],
)
def test_pixels_of_another_shape_or_type_are_refused(tiny_specification, shape, kind):
    with pytest.raises(CompilingError, match="wanted uint8"):
        IntegerReference(tiny_specification).infer(np.zeros(shape, kind))


def test_all_codes_lie_within_their_grids(tiny_specification, images):
    tensors = IntegerReference(tiny_specification).tensors(images(8, 16, seed=2))
    saturated = 0
    for name, grid in tiny_specification.document.grids.items():
        codes = tensors[name]
        assert np.array_equal(codes, np.rint(codes))
        assert codes.min() >= grid.q_min
        assert codes.max() <= grid.q_max
        saturated += int((codes == grid.q_max).sum())
    assert saturated, "nothing tests the clipping"


def test_naive_tensors_agree_on_a_whole_network(tiny_specification, images):
    image = images(1, 16, seed=3)
    tensors = IntegerReference(tiny_specification).tensors(image)
    expected = naive_tensors(tiny_specification, image[0])
    assert set(tensors) == set(expected)
    for name, codes in expected.items():
        assert np.array_equal(tensors[name][0], codes.astype(np.float32)), name
