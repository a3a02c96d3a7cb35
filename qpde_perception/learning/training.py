"""Training of the sign network: float first, then with quantization in the loop; resumable."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from qpde_perception.frames import keep_memory
from qpde_perception.learning.adjusting import freeze, settle, start_quantization
from qpde_perception.learning.batches import BatchFeeder, BatchSource
from qpde_perception.learning.checkpoints import METRICS, resume, save_checkpoint
from qpde_perception.learning.distillation import load_teachers
from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.networks import DeployableMobileNetV2, build_network
from qpde_perception.learning.quantizers import ActivationQuantizer, on_grid, set_active
from qpde_perception.learning.signs import prepared_pixels
from qpde_perception.learning.stepping import EagerStep, GraphedStep
from qpde_perception.learning.temperature import fit_temperature
from qpde_perception.learning.trained_run import (
    FLOAT_WEIGHTS,
    begin_with,
    save_run,
    save_weights,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from qpde_perception.frames import InputSpec
    from qpde_perception.learning.distillation import Teachers
    from qpde_perception.learning.signs import SignSet

CALIBRATION_BATCHES = 20
LAYOUT = torch.channels_last
"""Memory layout of a batch."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """The recipe of one training run.

    Attributes:
        network: Name of the network's configuration.
        float_epochs: Epochs before quantization.
        quantized_epochs: Epochs with quantization in the loop.
        frozen_epochs: Last epochs, with the statistics of the normalisations as deployed, but of
            limited steps; never the first quantized one.
        frozen_learning_rate: Learning rate at the start of the frozen epochs; it falls to zero.
        batch: Images per step.
        learning_rate: Peak of the cosine schedule, after one epoch of warm-up.
        weight_decay: Of convolution and dense weights only.
        label_smoothing: Probability mass spread over the other classes.
        noise_penalty: Weight, in the loss, of the variance that rounding the activations is
            predicted to give the differences of the logits (PAPER: section 7c).
        distillation: Share of the loss that is the distance to the teachers' probabilities,
            in [0, 1]; the classes of the images have the rest.
        seed: Of weights, order and augmentation.
        bfloat16: Run the float epochs in bfloat16 where the processor does.
        compiled: Fuse the rounding of the quantized epochs with `torch.compile`; on a CPU that
            wants a C++ compiler.
    """

    network: str = "symmetric_mobilenet_v2_wide"
    float_epochs: int = 29
    quantized_epochs: int = 8
    frozen_epochs: int = 4
    frozen_learning_rate: float = 0.0005
    batch: int = 128
    learning_rate: float = 0.012
    weight_decay: float = 0.01
    label_smoothing: float = 0.02
    noise_penalty: float = 0.0
    distillation: float = 0.0
    seed: int = 1
    bfloat16: bool = True
    compiled: bool = False

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.float_epochs + self.quantized_epochs

    @property
    def first_frozen(self) -> int:
        """Index of the first frozen epoch."""
        # Statistics gathered before quantization are not those of the quantized network.
        return max(self.epochs - self.frozen_epochs, self.float_epochs + 1)


class Watcher(Protocol):
    """Who is told how training goes."""

    def batch(self, epoch: int, done: int, total: int) -> None:
        """Hear that `done` of `total` steps of an epoch are made."""
        ...

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Hear the figures of a finished epoch."""
        ...


def train(
    config: TrainingConfig,
    signs: SignSet,
    spec: InputSpec,
    folder: Path,
    watcher: Watcher,
    *,
    device: str = "cpu",
    workers: int = 1,
    start: Path | None = None,
    teachers: Sequence[Path] = (),
) -> DeployableMobileNetV2:
    """Train a network, or go on where an interrupted run stopped.

    Args:
        config: The recipe.
        signs: All splits; `train` is learned from, `val` is watched.
        spec: The network's input.
        folder: Gets a checkpoint after every epoch, `metrics.jsonl`, after the float epochs
            `float_weights.safetensors`, and in the end `weights.safetensors` and `training.json`.
        watcher: Told of batches and epochs.
        device: Where to compute: `cpu` or `cuda`.
        workers: Processes that prepare batches; their number does not change what is learned.
        start: Float weights of an earlier run to begin with, of the same shape.
        teachers: Folders of finished runs whose networks teach; `distillation` is above 0 if and
            only if there are any.

    Returns:
        The trained network, on its grid, on the CPU; its probabilities at the temperature under
        which `val` is likeliest.

    Raises:
        LearningError: If the folder holds a run with another recipe or a damaged checkpoint, there
            are fewer images than one batch, the device is missing, `start` or a teacher does not
            fit, or the loss is no longer a number.
    """
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        msg = f"no device {device!r} on this machine; use cpu"
        raise LearningError(msg)
    pupils, watched = signs.split("train"), signs.split("val")
    if len(pupils) < config.batch:
        msg = f"{len(pupils)} images to learn from are fewer than one batch of {config.batch}"
        raise LearningError(msg)
    if bool(teachers) != (config.distillation > 0.0):
        msg = f"a share of distillation of {config.distillation} does not go with {teachers=}"
        raise LearningError(msg)
    taught = load_teachers(teachers, signs.names, spec) if teachers else None
    folder.mkdir(parents=True, exist_ok=True)
    source = BatchSource(pupils, spec, config.batch, config.seed)
    keep_memory()
    torch.backends.cudnn.benchmark = device == "cuda"
    with BatchFeeder(source, workers) as feeder:
        network = _train(
            config,
            feeder,
            watched,
            spec,
            folder,
            watcher=watcher,
            device=device,
            start=start,
            teachers=taught,
        )
    save_run(folder, asdict(config), network, signs.names, spec, start=start, teachers=teachers)
    return network


def _train(
    config: TrainingConfig,
    feeder: BatchFeeder,
    watched: SignSet,
    spec: InputSpec,
    folder: Path,
    *,
    watcher: Watcher,
    device: str,
    start: Path | None,
    teachers: Teachers | None,
) -> DeployableMobileNetV2:
    torch.manual_seed(config.seed)
    network = build_network(config.network)
    if start is not None:
        begin_with(network, start)
    network.to(device, memory_format=LAYOUT)  # type: ignore[call-overload]
    if teachers is not None:
        teachers.networks.to(device, memory_format=LAYOUT)  # type: ignore[call-overload]
    optimizer = _optimizer(network, config)
    first = resume(folder, config, network, optimizer)
    pictures = prepared_pixels(watched, spec)
    step = None
    for epoch in range(first, config.epochs):
        quantized = epoch >= config.float_epochs
        if epoch == config.float_epochs:
            save_weights(network, folder / FLOAT_WEIGHTS)
            start_quantization(network, _calibration_pixels(network, feeder, config))
        set_active(network, active=quantized)
        freeze(network, frozen=epoch >= config.first_frozen)
        if step is None or epoch in (config.float_epochs, config.first_frozen):
            step = _step_of(network, config, teachers, quantized=quantized)
        loss = _train_epoch(step, optimizer, feeder, config, epoch=epoch, watcher=watcher)
        settle(network, _calibration_pixels(network, feeder, config))
        accuracy = float(np.mean(predict(network, pictures).argmax(1) == watched.labels))
        metrics = {
            "epoch": epoch + 1,
            "phase": "quantized" if quantized else "float",
            "loss": loss,
            "val_top1": accuracy,
            "learning_rate": optimizer.param_groups[0]["lr"],
        }
        with (folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
        save_checkpoint(folder, config, network, optimizer, epoch + 1)
        watcher.epoch(metrics)
    set_active(network, active=True)
    # Of the logits alone: the class with the largest one stays the same.
    network.head.cool(fit_temperature(predict(network, pictures), watched.labels))
    return network.eval().cpu()


@torch.inference_mode()
def predict(
    network: torch.nn.Module, pixels: NDArray[np.uint8], batch: int = 256
) -> NDArray[np.float32]:
    """Return logits, float32, shape (n, classes), of pixels uint8 (n, height, width, 3)."""
    network.eval()
    device = _device_of(network)
    parts = [
        network(_as_tensor(pixels[start : start + batch]).to(device)).cpu().numpy()
        for start in range(0, len(pixels), batch)
    ]
    return np.concatenate(parts)


def _as_tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    # NHWC memory seen as NCHW is what channels_last means: no copy, and the fast kernels.
    pictures = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
    return pictures.contiguous(memory_format=LAYOUT)


def _step_of(
    network: DeployableMobileNetV2,
    config: TrainingConfig,
    teachers: Teachers | None,
    *,
    quantized: bool,
) -> EagerStep | GraphedStep:
    if quantized and config.compiled:
        # The gain is here: 10 ms a step instead of 17 on an H100, 1.4 s instead of 3.3 on one core
        # of a CPU. A whole network takes minutes to compile and is no faster then.
        fused = torch.compile(on_grid, dynamic=True)
        for part in (*network.modules(), *(teachers.networks.modules() if teachers else ())):
            if isinstance(part, ActivationQuantizer):
                part.rounding = fused
    step = EagerStep(
        network,
        smoothing=config.label_smoothing,
        half=config.bfloat16 and not quantized,
        noise_penalty=config.noise_penalty,
        teachers=teachers,
        taught_share=config.distillation,
    )
    return step if _device_of(network).type == "cpu" else GraphedStep(step)


def _train_epoch(
    step: EagerStep | GraphedStep,
    optimizer: torch.optim.Optimizer,
    feeder: BatchFeeder,
    config: TrainingConfig,
    *,
    epoch: int,
    watcher: Watcher,
) -> float:
    step.network.train()
    torch.manual_seed(config.seed + epoch)  # so that a resumed run draws what it would have drawn
    device = _device_of(step.network)
    total = len(feeder)
    losses = []
    for index, (views, classes) in enumerate(feeder.epoch(epoch)):
        pixels, targets = _as_tensor(views).to(device), torch.from_numpy(classes).to(device)
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * _learning_rate(config, epoch + index / total)
        losses.append(step(pixels, targets))
        optimizer.step()
        watcher.batch(epoch + 1, index + 1, total)
    # Looked at once an epoch: a look makes an accelerator wait.
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        msg = f"the loss became {mean} in epoch {epoch + 1}; lower the learning rate"
        raise LearningError(msg)
    return mean


def _device_of(network: torch.nn.Module) -> torch.device:
    return next(network.parameters()).device


def _learning_rate(config: TrainingConfig, epoch: float) -> float:
    if epoch < 1.0:
        return config.learning_rate * (0.05 + 0.95 * epoch)
    if epoch >= config.first_frozen:
        share = (epoch - config.first_frozen) / max(config.epochs - config.first_frozen, 1)
        return config.frozen_learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
    share = (epoch - 1.0) / max(config.first_frozen - 1.0, 1e-9)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))


def _optimizer(network: torch.nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    # Kernels are normalised before they are used, so the larger they are, the smaller is their
    # gradient: gradient descent with one rate for all parameters turns them too slowly.
    clippings = [p for n, p in network.named_parameters() if n.endswith("alpha")]
    plain = [p for n, p in network.named_parameters() if p.ndim == 1]
    weights = [p for p in network.parameters() if p.ndim > 1]
    return torch.optim.AdamW(
        [
            {"params": weights, "share": 1.0, "weight_decay": config.weight_decay},
            {"params": plain, "share": 1.0, "weight_decay": 0.0},
            {"params": clippings, "share": 0.1, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        fused=True,
    )


def _calibration_pixels(
    network: torch.nn.Module, feeder: BatchFeeder, config: TrainingConfig
) -> Iterator[torch.Tensor]:
    for pixels, _ in islice(feeder.epoch(config.epochs), CALIBRATION_BATCHES):
        yield _as_tensor(pixels).to(_device_of(network))
