"""What is trained: values that name a run, and the folder in which it leaves its result."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from qpde_perception.learning.errors import LearningError

if TYPE_CHECKING:
    from pathlib import Path

    from qpde_perception.learning.experiments.settings import GraphRecipe, ImageRecipe
    from qpde_perception.learning.zoo import SmoothingConfig
    from qpde_perception.learning.zoo.layers import Flavour

OUTCOME = "outcome.json"
WEIGHTS = "weights.pt"
START_BITS = 16


class Precision(NamedTuple):
    """Bits of weights and activations; None for float."""

    weights: int | None
    activations: int | None

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Read `float` or, for example, `W4A8`.

        Raises:
            LearningError: If the text is neither.
        """
        if text == "float":
            return FLOAT
        found = re.fullmatch(r"W(\d+)A(\d+)", text)
        bits = tuple(int(part) for part in found.groups()) if found else ()
        if len(bits) != 2 or not all(2 <= count <= START_BITS for count in bits):
            msg = f"no precision {text!r}: write float, or W4A8 with 2 to {START_BITS} bits each"
            raise LearningError(msg)
        return cls(*bits)

    @property
    def text(self) -> str:
        """The form that `parse` reads."""
        return "float" if self == FLOAT else f"W{self.weights}A{self.activations}"


FLOAT = Precision(None, None)
_WITHOUT_QUANTIZATION = {"quantized_epochs": 1, "quantized_learning_rate": 1.0}


@dataclass(frozen=True, slots=True)
class ImageRun:
    """One image network to be trained.

    Attributes:
        network: Name of the network.
        flavour: Its flavour.
        precision: Bits at the end of training.
        smoothing: Total-variation smoothing; None for none.
        seed: Of weights, order and augmentation.
        recipe: How it is trained.
        data: Fingerprint of the images.
    """

    network: str
    flavour: Flavour
    precision: Precision
    smoothing: SmoothingConfig | None
    seed: int
    recipe: ImageRecipe
    data: str


@dataclass(frozen=True, slots=True)
class GraphRun:
    """One graph network to be trained.

    Attributes:
        graph: Name of the graph.
        flavour: Flavour of the network.
        precision: Bits at the end of training.
        seed: Of weights and dropout.
        recipe: How it is trained.
        data: Fingerprint of the graph's file.
    """

    graph: str
    flavour: Flavour
    precision: Precision
    seed: int
    recipe: GraphRecipe
    data: str


Run = ImageRun | GraphRun


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run says of itself.

    Attributes:
        val_top1: Accuracy on the validation part, of the epoch that was chosen by it.
        test_top1: Accuracy of the same weights on the test set.
        parameters: Parameters of the network, clippings not counted.
        epoch: The chosen epoch, from 1.
        seconds: Time of training.
        diverged: Whether the loss ceased to be a number, which ended the training; the weights are
            the best from before, and without any such the accuracies are None.
        machine: The device, in words.
    """

    val_top1: float | None
    test_top1: float | None
    parameters: int
    epoch: int
    seconds: float
    diverged: bool
    machine: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def float_run(run: Run) -> Run:
    """Return the float run that a run goes on from; a float run is its own.

    What only quantized epochs depend on is no part of it, so that recipes can share it.
    """
    recipe = run.recipe.model_copy(update=_WITHOUT_QUANTIZATION)
    return replace(run, precision=FLOAT, recipe=recipe)  # type: ignore[arg-type]


def folder_of(run: Run, work: Path) -> Path:
    """Return the folder of a run: readable, and unique by a hash of all that it depends on."""
    values = as_dict(float_run(run) if run.precision == FLOAT else run)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
    subject = run.network if isinstance(run, ImageRun) else run.graph
    return work / f"{subject}-{run.flavour}-{run.precision.text}-seed{run.seed}-{digest}"


def as_dict(run: Run) -> dict[str, Any]:
    """Return plain values."""
    values = {field: getattr(run, field) for field in run.__dataclass_fields__}
    values["precision"] = run.precision.text
    values["recipe"] = run.recipe.model_dump()
    if isinstance(run, ImageRun):
        values["smoothing"] = None if run.smoothing is None else asdict(run.smoothing)
    return values


def read_outcome(folder: Path) -> Outcome | None:
    """Return the outcome of a finished run, None where it is not finished.

    Raises:
        LearningError: If the file is damaged.
    """
    path = folder / OUTCOME
    if not path.is_file():
        return None
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        msg = f"{path}: is damaged or of another version; remove its folder"
        raise LearningError(msg) from None


def write_json(path: Path, values: Any) -> None:
    """Write plain values, whole or not at all, the same bytes for the same values."""
    text = json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
