"""The integer specification: the one plain description that every engine's graph is written from.

A tensor is integers on a grid; a layer is an operation on integers. Every writer and the integer
reference read this description and nothing else, so that all of them compute the same network.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from qpde_perception.compiling.errors import CompilingError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

SPECIFICATION = "specification.json"
WEIGHTS = "weights.safetensors"
PIXELS = "pixels"
PIXEL_ZERO = 128


def _power_of_two(value: float) -> float:
    if math.frexp(value)[0] != 0.5:
        msg = f"{value} is no power of two"
        raise ValueError(msg)
    return value


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Grid(_Plain):
    """Integers of one tensor: `value = scale * code`, codes within `[q_min, q_max]`, half to even.

    A grid that begins at zero is at the same time the ReLU of what is put on it.
    """

    scale: float = Field(gt=0.0)
    q_min: int
    q_max: int

    @property
    def rectifies(self) -> bool:
        """Whether putting values on this grid applies ReLU."""
        return self.q_min == 0


class Conv(_Plain):
    """Convolution: `code = clip(round((acc + bias[c]) * (s_in * scale[c] / s_out)))`.

    Arrays: `NAME.weight` int8 (outputs, inputs / groups, kernel, kernel), `NAME.scale` float32
    (outputs,), `NAME.bias` int32 (outputs,). A transposed convolution is written as an ordinary
    one. Average pooling is a depthwise one with weights 1 and scale 1/4.
    """

    kind: Literal["conv"] = "conv"
    name: str
    input: str
    output: str
    stride: int
    padding: int
    groups: int


class Add(_Plain):
    """Residual sum on one grid: `code = clip(trunk + branch)`, exact but for saturation."""

    kind: Literal["add"] = "add"
    name: str
    trunk: str
    branch: str
    output: str


class Smooth(_Plain):
    """Total-variation step on codes: `round(x - rate * divergence(clip(d x, -delta, delta)))`.

    `rate` is a power of two, so that every intermediate value is exact in float32.
    """

    kind: Literal["smooth"] = "smooth"
    name: str
    input: str
    output: str
    delta: int = Field(ge=1)
    rate: Annotated[float, AfterValidator(_power_of_two)] = Field(gt=0.0, le=0.25)
    iterations: int = Field(ge=1, le=3)


class Append(_Plain):
    """Append copies of the first `channels` channels."""

    kind: Literal["append"] = "append"
    name: str
    input: str
    output: str
    channels: int = Field(ge=1)


class Head(_Plain):
    """Mean over all positions and dense layer: integers up to the last product, then float logits.

    `pooled = round(sum * multiplier)`; `logits = (pooled @ weight.T) * scale + bias`. Arrays:
    `NAME.weight` int8 (classes, channels), `NAME.scale` and `NAME.bias` float32 (classes,). The sum
    of products stays below 2^24, so that float32 holds it exactly in whatever order it is summed.
    """

    kind: Literal["head"] = "head"
    name: str
    input: str
    multiplier: float = Field(gt=0.0)


Layer = Annotated[Conv | Add | Smooth | Append | Head, Field(discriminator="kind")]


class Document(_Plain):
    """The part of a specification that is text: `specification.json`."""

    input_height: int
    input_width: int
    grids: dict[str, Grid]
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class Specification:
    """A network in integers.

    Attributes:
        document: Grids and layers, in order of execution.
        arrays: Weights, scales and biases, by `LAYER.weight`, `LAYER.scale`, `LAYER.bias`.
    """

    document: Document
    arrays: dict[str, NDArray[Any]]

    @property
    def layers(self) -> tuple[Conv | Add | Smooth | Append | Head, ...]:
        """Layers in order of execution."""
        return self.document.layers

    def grid(self, tensor: str) -> Grid:
        """Return the grid that a tensor lies on."""
        return self.document.grids[tensor]

    def to_files(self) -> dict[str, bytes]:
        """Return the specification as the files of a bundle."""
        text = json.dumps(self.document.model_dump(), indent=1) + "\n"
        return {SPECIFICATION: text.encode(), WEIGHTS: save(self.arrays)}

    @classmethod
    def from_files(cls, text: bytes, weights: bytes) -> Specification:
        """Read what `to_files` wrote.

        Raises:
            CompilingError: If either file is damaged.
        """
        try:
            document = TypeAdapter(Document).validate_json(text)
            return cls(document, load(weights))
        except (ValidationError, SafetensorError) as error:
            msg = f"{SPECIFICATION} or {WEIGHTS} is damaged: {error}"
            raise CompilingError(msg) from None
