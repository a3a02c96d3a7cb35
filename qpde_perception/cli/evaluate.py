"""`qpde evaluate`: accuracy of a model on the sign data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.cli.data import read
from qpde_perception.cli.frame import Json, emit, progress
from qpde_perception.compiling.evaluation import Evaluation, evaluate
from qpde_perception.compiling.parity import float_reference_of, in_batches, reference_of
from qpde_perception.engines import ENGINES, open_engine
from qpde_perception.learning.signs import SPLITS, prepared_pixels
from qpde_perception.reports.plots import confusion_plot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import Engine

INTEGER, FLOAT = "reference", "reference_fp32"

Model = Annotated[str | None, typer.Option(help="A model's name, or the folder of a bundle.")]
Data = Annotated[Path, typer.Option(help="Sign data, published or prepared.")]
Split = Annotated[str, typer.Option(help=f"One of: {', '.join(SPLITS)}.")]
EngineName = Annotated[
    str | None,
    typer.Option(
        help=f"One of: {', '.join(ENGINES)}; {INTEGER}: the integer reference; {FLOAT}: the same "
        "weights with unquantized activations."
    ),
]
Plot = Annotated[Path, typer.Option(help="Where to leave the confusion plot (SVG).")]


def command(
    *,
    data: Data,
    model: Model = None,
    split: Split = "test-a",
    engine: EngineName = None,
    plot: Plot = Path("confusion.svg"),
    as_json: Json = False,
) -> None:
    """Measure the accuracy of a model on a split of the sign data, and plot its confusions."""
    bundle = load_bundle(find_model(model))
    signs = read(data).split(split)
    server = executor(bundle, engine)
    pixels = prepared_pixels(signs, bundle.manifest.input)
    result = evaluate(run(server, pixels), signs.labels)
    counts = {(int(t), int(p)): int(n) for (t, p), n in np.ndenumerate(result.confusion) if n}
    plot.write_bytes(confusion_plot(Counter(counts), bundle.manifest.labels))
    payload: dict[str, Any] = {
        "model": bundle.manifest.name,
        "engine": server.name,
        "split": split,
        "images": result.images,
        "top1": result.top1,
        "per_class": list(result.per_class),
        "parameters": bundle.manifest.parameters,
        "plot": str(plot),
    }
    emit(as_json, payload, lambda: _table(payload, result, bundle.manifest.labels))


def executor(bundle: Bundle, name: str | None) -> Engine:
    """Open an engine, or one of the two references, by name."""
    if name == INTEGER:
        return reference_of(bundle)
    if name == FLOAT:
        return float_reference_of(bundle)
    return open_engine(bundle, name)


def run(engine: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run an engine over many images with a progress bar."""
    with progress() as bar:
        task = bar.add_task(engine.name, total=len(pixels))
        return in_batches(engine, pixels, lambda done: bar.update(task, completed=done))


def _table(payload: dict[str, Any], result: Evaluation, labels: tuple[str, ...]) -> Table:
    table = Table("class", "images", "top-1", "taken for, most often")
    table.caption = f"confusion plot: {payload['plot']}"
    table.title = (
        f"{payload['model']} on {payload['split']} ({payload['engine']}): "
        f"{result.top1:.2%} of {result.images} images"
    )
    for index, share in enumerate(result.per_class):
        if share is None:
            continue
        others = result.confusion[index].copy()
        others[index] = 0
        worst = f"{labels[others.argmax()]} ({others.max()})" if others.any() else ""
        total = str(result.confusion[index].sum())
        table.add_row(f"{index} {labels[index]}", total, f"{share:.2%}", worst)
    return table
