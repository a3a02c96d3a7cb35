"""The manifest of a model bundle."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from qpde_perception.frames.input_spec import InputSpec  # noqa: TC001  (read by pydantic)

FORMAT_VERSION = 1


class Accuracy(BaseModel):
    """One measured accuracy and how it was measured.

    Attributes:
        data: Data set and split, for example `gtsrb/test-a`.
        engine: What computed it, for example `openvino`.
        images: Number of images.
        top1: Share of images whose first class is right.
        command: The command that measures it again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    engine: str
    images: int = Field(gt=0)
    top1: float = Field(ge=0.0, le=1.0)
    command: str


class Manifest(BaseModel):
    """What a bundle says of itself.

    Attributes:
        format_version: Version of the bundle's layout.
        name: Name of the model, equal to its folder's.
        task: What the model does, in a few words.
        network: Name of the network's configuration.
        parameters: Number of trained parameters that are deployed.
        weight_bits: Bits of the weights of 1x1 convolutions; the others have at least 8.
        activation_bits: Bits of the activations.
        input: Shape, colour order and resampling of the input.
        labels: Class names; the position is the class index.
        accuracy: Measured accuracies, each with its protocol.
        engines: Engines that can serve the bundle, best first, by measurement.
        files: SHA-256 of every other file of the bundle.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = Field(strict=True, ge=1)
    name: str = Field(min_length=1)
    task: str
    network: str
    parameters: int = Field(gt=0)
    weight_bits: int
    activation_bits: int
    input: InputSpec
    labels: tuple[str, ...] = Field(min_length=1)
    accuracy: tuple[Accuracy, ...] = ()
    engines: tuple[str, ...] = Field(min_length=1)
    files: dict[str, str]
