"""Settings of an experiment: one YAML file each, with a profile for every kind of device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qpde_perception.learning.errors import LearningError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DEVICES = ("cpu", "cuda")
FOLDER = "experiments"


class Settings(BaseModel):
    """What every experiment's profile has.

    Attributes:
        seeds: Of weights, order and augmentation; every run is made once with each.
        remarks: What the reader of the page must know and no figure tells.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: tuple[int, ...] = Field(min_length=1)
    remarks: tuple[str, ...] = ()


class ImageRecipe(BaseModel):
    """How an image network is trained: float first, then with quantization in the loop.

    Attributes:
        float_epochs: Epochs before quantization.
        quantized_epochs: Epochs in which the bits fall from 16 to the target and stay there.
        batch: Images per step.
        learning_rate: Start of the cosine schedule of the float epochs.
        quantized_learning_rate: Start of the cosine schedule of the quantized epochs.
        weight_decay: Of convolution and dense weights only.
        images: Images of the training set, validation included; None for all.
        test_images: Images of the test set; None for all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    float_epochs: int = Field(ge=1)
    quantized_epochs: int = Field(ge=1)
    batch: int = Field(default=128, ge=2)
    learning_rate: float = Field(default=0.1, gt=0)
    quantized_learning_rate: float = Field(default=0.02, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    images: int | None = Field(default=None, ge=20)
    test_images: int | None = Field(default=None, ge=1)


class GraphRecipe(BaseModel):
    """How a graph network is trained, the whole graph at every step, with Adam.

    Attributes:
        float_epochs: Epochs before quantization.
        quantized_epochs: Epochs in which the bits fall from 16 to the target and stay there.
        learning_rate: Of the float epochs.
        quantized_learning_rate: Of the quantized epochs.
        weight_decay: Of the weights.
        hidden: Channels of every layer.
        layers: Residual layers.
        step: `h` of a residual layer.
        dropout: Share of the features dropped before the first and the last dense layer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    float_epochs: int = Field(ge=1)
    quantized_epochs: int = Field(ge=1)
    learning_rate: float = Field(default=0.01, gt=0)
    quantized_learning_rate: float = Field(default=0.005, gt=0)
    weight_decay: float = Field(default=5e-3, ge=0)
    hidden: int = Field(default=64, ge=1)
    layers: int = Field(default=8, ge=1)
    step: float = Field(default=4.0, gt=0)
    dropout: float = Field(default=0.5, ge=0, lt=1)


Profile = TypeVar("Profile", bound=Settings)


def settings_path(name: str) -> Path:
    """Return the file of an experiment: of the current folder, else of the checkout.

    Raises:
        LearningError: If there is none.
    """
    own = Path(FOLDER) / f"{name}.yaml"
    checkout = Path(__file__).resolve().parents[3] / own
    for path in (own, checkout):
        if path.is_file():
            return path
    msg = f"{own}: no such file; run from the folder that holds {FOLDER}/"
    raise LearningError(msg)


def load_profile(path: Path, device: str, kind: type[Profile]) -> Profile:
    """Read the profile of one device; those of the others are checked as well.

    Args:
        path: The YAML file, with one section per device.
        device: `cpu` or `cuda`.
        kind: The experiment's settings.

    Raises:
        LearningError: If the file is no YAML, or a key or value is wrong; the message names it.
    """
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        msg = f"{path}: is no YAML: {reason}"
        raise LearningError(msg) from None
    if not isinstance(document, dict) or set(document) != set(DEVICES):
        msg = f"{path}: needs exactly the sections {' and '.join(DEVICES)}"
        raise LearningError(msg)
    profiles = {
        section: _validated(path, section, values, kind) for section, values in document.items()
    }
    return profiles[device]


def _validated(path: Path, section: str, values: object, kind: type[Profile]) -> Profile:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        msg = f"{path}: {_first_line(section, error.errors()[0])}"
        raise LearningError(msg) from None


def _first_line(section: str, error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in (section, *error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{place} is no known key"
    return f"{place}: {error['msg']}"
