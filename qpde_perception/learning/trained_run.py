"""What a training leaves: weights and recipe in a folder, written and read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qpde_perception.frames import InputSpec
from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.networks import DeployableMobileNetV2, NetworkConfig
from qpde_perception.learning.quantizers import set_active

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

WEIGHTS = "weights.safetensors"
FLOAT_WEIGHTS = "float_weights.safetensors"
RECIPE = "training.json"


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """What a finished run left.

    Attributes:
        network: The trained network, on its grid.
        name: Name of its configuration.
        spec: The network's input.
        labels: Class names.
        recipe: The recipe, as plain values.
        begun_with: The recipe of the run whose float weights it began with; None where it began
            with none, or with some of unknown origin.
        taught_by: The recipes of the runs whose networks taught it.
    """

    network: DeployableMobileNetV2
    name: str
    spec: InputSpec
    labels: tuple[str, ...]
    recipe: dict[str, Any]
    begun_with: dict[str, Any] | None
    taught_by: tuple[dict[str, Any], ...]


def load_run(folder: Path) -> TrainedRun:
    """Read what `train` wrote in the end.

    Raises:
        LearningError: If the run is not finished, or its files are damaged.
    """
    try:
        document = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        network = DeployableMobileNetV2(NetworkConfig.from_dict(document["network"]))
        network.load_state_dict(load_file(folder / WEIGHTS))
        spec = InputSpec.model_validate(document["input"])
        recipe = document["training"]
        labels = tuple(document["labels"])
    except OSError as error:
        msg = f"{folder}: holds no finished run ({error}); see `qpde train`"
        raise LearningError(msg) from None
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        msg = f"{folder}: the run is damaged: {error}"
        raise LearningError(msg) from None
    set_active(network, active=True)
    network.eval()
    begun_with, taught_by = document.get("begun_with"), tuple(document.get("taught_by", ()))
    return TrainedRun(network, recipe["network"], spec, labels, recipe, begun_with, taught_by)


def load_float_network(run: TrainedRun, folder: Path) -> DeployableMobileNetV2 | None:
    """Read the network of a run as it was after the float epochs, its quantizers not active.

    Args:
        run: What `load_run` read of the folder.
        folder: The run's.

    Returns:
        The network; None where an older version trained the run and did not keep it.

    Raises:
        LearningError: If the file is damaged or of another network.
    """
    path = folder / FLOAT_WEIGHTS
    if not path.is_file():
        return None
    network = DeployableMobileNetV2(run.network.config)
    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        msg = f"{path}: is damaged or of another network: {error}"
        raise LearningError(msg) from None
    return network.eval()


def begin_with(network: torch.nn.Module, path: Path) -> None:
    """Give a network the weights of a file.

    Raises:
        LearningError: If the file cannot be read, or is of another network.
    """
    try:
        network.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        msg = f"{path}: cannot be begun with: {error}"
        raise LearningError(msg) from None


def save_weights(network: torch.nn.Module, path: Path) -> None:
    """Write the state of a network."""
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)


def save_run(
    folder: Path,
    recipe: dict[str, Any],
    network: DeployableMobileNetV2,
    names: tuple[str, ...],
    spec: InputSpec,
    *,
    start: Path | None,
    teachers: Sequence[Path],
) -> None:
    """Write what `load_run` reads.

    Args:
        folder: The run's.
        recipe: The recipe, as plain values.
        network: The trained network.
        names: Class names.
        spec: The network's input.
        start: Float weights that the run began with, if any.
        teachers: Folders of the runs whose networks taught.
    """
    save_weights(network, folder / WEIGHTS)
    document = {
        "training": recipe,
        "begun_with": None if start is None else _recipe_in(start.parent),
        "taught_by": [load_run(folder).recipe for folder in teachers],
        "network": network.config.as_dict(),
        "labels": list(names),
        "input": spec.model_dump(),
    }
    (folder / RECIPE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _recipe_in(folder: Path) -> dict[str, Any] | None:
    try:
        document = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        return dict(document["training"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # weights without a history can be begun with too
