"""`qpde train`: train a network on the sign data; resumes where it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qpde_perception.cli.data import read
from qpde_perception.cli.frame import Json, emit, notes, progress
from qpde_perception.frames import InputSpec
from qpde_perception.learning.checkpoints import METRICS
from qpde_perception.learning.distillation import TAUGHT_SHARE
from qpde_perception.learning.networks import CONFIGS, deployed_parameters
from qpde_perception.learning.signs import REGION_MARGIN
from qpde_perception.learning.training import TrainingConfig, train
from qpde_perception.reports.plots import training_plot

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_RECIPE = TrainingConfig()

Data = Annotated[Path, typer.Option(help="Sign data, published or prepared.")]
Out = Annotated[Path, typer.Option(help="Folder of the run; an interrupted run goes on there.")]
Network = Annotated[str, typer.Option(help=f"One of: {', '.join(sorted(CONFIGS))}.")]
FloatEpochs = Annotated[int, typer.Option(min=0, help="Epochs before quantization.")]
QuantizedEpochs = Annotated[int, typer.Option(min=1, help="Epochs with quantization in the loop.")]
FrozenEpochs = Annotated[
    int, typer.Option(min=0, help="How many of the last epochs keep the statistics as deployed.")
]
Batch = Annotated[int, typer.Option(min=2, help="Images per step.")]
LearningRate = Annotated[float, typer.Option(min=0.0, help="Peak of the cosine schedule.")]
Seed = Annotated[int, typer.Option(help="Of weights, order and augmentation.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu or cuda.")]
Workers = Annotated[
    int, typer.Option(min=1, help="Processes that prepare batches; they change only the speed.")
]
NoisePenalty = Annotated[
    float,
    typer.Option(
        min=0.0, help="Weight, in the loss, of what rounding activations does to the logits."
    ),
]
Compiled = Annotated[
    bool,
    typer.Option(
        "--compiled", help="Fuse the rounding of the quantized epochs; wants g++ on a CPU."
    ),
]
Start = Annotated[
    Path | None,
    typer.Option(help="Weights to begin with: float_weights.safetensors of another run."),
]
Teachers = Annotated[
    list[Path] | None,
    typer.Option(
        "--teacher",
        help="Finished run of a more accurate network, whose probabilities are learned; "
        "given more than once, the mean of theirs.",
    ),
]


def command(
    *,
    data: Data,
    out: Out = Path("runs/traffic_signs"),
    network: Network = _RECIPE.network,
    float_epochs: FloatEpochs = _RECIPE.float_epochs,
    quantized_epochs: QuantizedEpochs = _RECIPE.quantized_epochs,
    frozen_epochs: FrozenEpochs = _RECIPE.frozen_epochs,
    batch: Batch = _RECIPE.batch,
    learning_rate: LearningRate = _RECIPE.learning_rate,
    seed: Seed = _RECIPE.seed,
    noise_penalty: NoisePenalty = _RECIPE.noise_penalty,
    compiled: Compiled = False,
    device: Device = "cpu",
    workers: Workers = 1,
    start: Start = None,
    teachers: Teachers = None,
    as_json: Json = False,
) -> None:
    """Train a network: float epochs first, then with 8-bit quantization in the loop.

    After every epoch a checkpoint is written; the same command goes on from there. `qpde compile`
    makes a model of the result.
    """
    config = TrainingConfig(
        network=network,
        float_epochs=float_epochs,
        quantized_epochs=quantized_epochs,
        frozen_epochs=frozen_epochs,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        distillation=TAUGHT_SHARE if teachers else 0.0,
        noise_penalty=noise_penalty,
        compiled=compiled,
    )
    signs = read(data)
    size = CONFIGS[network].input_size if network in CONFIGS else 1
    spec = InputSpec(height=size, width=size, region_margin=REGION_MARGIN)
    with progress() as bar:
        bars = _Bars(bar, config.epochs)
        trained = train(
            config,
            signs,
            spec,
            out,
            bars,
            device=device,
            workers=workers,
            start=start,
            teachers=teachers or (),
        )
    lines = (out / METRICS).read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in lines]
    plot = out / "training.svg"
    plot.write_bytes(training_plot(metrics))
    payload = {
        "run": str(out),
        "parameters": deployed_parameters(trained),
        "epochs": len(metrics),
        "val_top1": metrics[-1]["val_top1"],
        "plot": str(plot),
    }
    emit(
        as_json,
        payload,
        lambda: (
            f"{out}: {payload['val_top1']:.2%} on val; next: qpde compile {out} --out models/NAME"
        ),
    )


class _Bars:
    """Shows the epochs and the steps of the current one."""

    def __init__(self, bar: Progress, epochs: int) -> None:
        self._bar = bar
        self._epochs: TaskID = bar.add_task("epochs", total=epochs)
        self._steps: TaskID = bar.add_task("steps", total=None)

    def batch(self, epoch: int, done: int, total: int) -> None:
        self._bar.update(self._epochs, completed=epoch - 1)
        self._bar.update(self._steps, completed=done, total=total)

    def epoch(self, metrics: dict[str, Any]) -> None:
        self._bar.update(self._epochs, completed=metrics["epoch"])
        notes().print(
            f"epoch {metrics['epoch']} ({metrics['phase']}): loss {metrics['loss']:.3f}, "
            f"val {metrics['val_top1']:.2%}"
        )
