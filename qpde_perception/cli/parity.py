"""`qpde parity`: does each engine compute what the integers say?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpde_perception.bundles import (
    MAX_OVER_NOISE,
    MAX_RMS_OVER_NOISE,
    find_model,
    golden_of,
    load_bundle,
)
from qpde_perception.cli.data import read
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.evaluate import run
from qpde_perception.cli.frame import Json, emit, warn
from qpde_perception.compiling.parity import (
    MIN_TOP1_AGREEMENT,
    Parity,
    compare,
    float_reference_of,
    quantization_noise,
    reference_of,
)
from qpde_perception.engines import CPU_ENGINES, ENGINES, EngineError, engine_status
from qpde_perception.engines.registry import build_engine
from qpde_perception.learning.signs import SPLITS, prepared_pixels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qpde_perception.bundles import Bundle

Model = Annotated[str | None, typer.Option(help="A model's name, or the folder of a bundle.")]
Data = Annotated[
    Path | None, typer.Option(help="Sign data; the model's golden frames when left out.")
]
Split = Annotated[str, typer.Option(help=f"One of: {', '.join(SPLITS)}.")]


def command(
    *, model: Model = None, data: Data = None, split: Split = "test-a", as_json: Json = False
) -> None:
    """Hold every installed engine against the integer reference.

    Differences of logits are given in units of the network's own quantization noise: the root mean
    square of what rounding the activations changes. Fails when an engine is beyond the budget.
    """
    bundle = load_bundle(find_model(model))
    pixels = _pixels(bundle, data, split)
    installed = [name for name in ENGINES if engine_status(name).works]
    if not installed:
        msg = f"no engine is installed; known are {', '.join(ENGINES)}; see qpde doctor"
        raise CommandError(msg)
    reference = run(reference_of(bundle), pixels)
    noise = quantization_noise(reference, run(float_reference_of(bundle), pixels))
    found: dict[str, Parity] = {}
    for name in installed:
        try:
            engine = build_engine(bundle, name, threads=0)
        except EngineError as error:
            if name in CPU_ENGINES:
                raise
            # Its library is here; an engine for this model need not be.
            warn(str(error))
            continue
        found[name] = compare(reference, run(engine, pixels), noise)
        engine.close()
    ok = all(parity.ok for parity in found.values())
    payload = {
        "model": bundle.manifest.name,
        "images": len(pixels),
        "noise": noise,
        "engines": {name: {**asdict(parity), "ok": parity.ok} for name, parity in found.items()},
        "ok": ok,
    }
    emit(as_json, payload, lambda: _table(payload, found))
    if not ok:
        raise typer.Exit(1)


def _pixels(bundle: Bundle, data: Path | None, split: str) -> NDArray[np.uint8]:
    if data is None:
        return golden_of(bundle).pixels
    return prepared_pixels(read(data).split(split), bundle.manifest.input)


def _table(payload: dict[str, Any], found: dict[str, Parity]) -> Table:
    table = Table("engine", "same first class", "same bits", "rms / noise", "largest / noise", "")
    table.title = (
        f"{payload['model']}, {payload['images']} images; budget: {MIN_TOP1_AGREEMENT:.2%} the "
        f"same first class, rms {MAX_RMS_OVER_NOISE}, largest {MAX_OVER_NOISE} of the "
        "quantization noise"
    )
    for name, parity in found.items():
        table.add_row(
            name,
            f"{parity.top1_agreement:.3%}",
            f"{parity.identical_share:.3%}",
            f"{parity.rms_over_noise:.3g}",
            f"{parity.max_over_noise:.3g}",
            "ok" if parity.ok else "beyond the budget",
        )
        for other in parity.disagreements:
            table.add_row(
                "",
                f"image {other.image}: {other.reference} -> {other.engine}",
                f"margin {other.margin:.3g}",
            )
    return table
