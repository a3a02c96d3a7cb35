"""`qpde calibrate`: what is normal?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpde_perception.assessment.calibrating import calibrate
from qpde_perception.assessment.pictures import Pictures, pictures_of_drive, pictures_of_signs
from qpde_perception.bundles import CALIBRATION, Bundle, find_model, load_bundle
from qpde_perception.cli.data import read
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.frame import Json, emit, progress
from qpde_perception.compiling.card import with_calibration
from qpde_perception.compiling.packing import CARD, write_bundle
from qpde_perception.engines import ENGINES, open_engine, open_reference
from qpde_perception.learning.signs import SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpde_perception.bundles import Calibration

Model = Annotated[str | None, typer.Option(help="A model's name, or the folder of a bundle.")]
Data = Annotated[Path | None, typer.Option(help="Sign data, published or prepared.")]
Split = Annotated[str, typer.Option(help=f"One of: {', '.join(SPLITS)}; one with known tracks.")]
DrivePath = Annotated[
    Path | None, typer.Option("--drive", metavar="DRIVE", help="A recorded drive instead of data.")
]
EngineName = Annotated[
    str | None,
    typer.Option("--engine", help=f"One of: {', '.join(ENGINES)}. Default: what would serve."),
]
Write = Annotated[bool, typer.Option("--write", help="Write the calibration into the bundle.")]


def command(
    *,
    model: Model = None,
    data: Data = None,
    split: Split = "val",
    drive: DrivePath = None,
    engine: EngineName = None,
    write: Write = False,
    as_json: Json = False,
) -> None:
    """Measure what a healthy engine does, and what known faults do to its input.

    By track or by stretch of road and not by frame, for frames of one depend on each other. Use
    data that the model was not trained on, best of the vehicle's own camera.
    """
    bundle = load_bundle(find_model(model))
    if (data is None) == (drive is None):
        msg = "give either --data or --drive: what shall count as normal?"
        raise CommandError(msg)
    if drive is not None:
        pictures = pictures_of_drive(drive, bundle.manifest.input)
    else:
        assert data is not None
        pictures = pictures_of_signs(read(data).split(split), f"{data.name}/{split}")
    found = calibrate(
        bundle, open_engine(bundle, engine), open_reference(bundle), _watched(pictures)
    )
    if write:
        card = with_calibration(bundle.read(CARD).decode(), found)
        contents = {CALIBRATION: found.to_bytes(), CARD: card.encode()}
        write_bundle(Bundle(bundle.path, bundle.manifest, bundle.contents | contents))
    emit(as_json, _payload(bundle, found), lambda: _table(bundle.manifest.name, found))


def _watched(pictures: Pictures) -> Pictures:
    def counted() -> Iterator[Any]:
        with progress() as bar:
            task = bar.add_task(pictures.source, total=None)
            for each in pictures.pictures:
                yield each
                bar.advance(task)

    return Pictures(pictures.source, pictures.grouping, counted())


def _payload(bundle: Bundle, found: Calibration) -> dict[str, Any]:
    return {
        "model": bundle.manifest.name,
        "source": found.source,
        "engine": found.engine,
        "frames": found.frames,
        "drives": found.groups,
        "grouping": found.grouping,
        "confidence": found.confidence,
        "p0": found.disagreement.mean,
        "p0_upper": found.disagreement.bound,
        "noise": found.noise.model_dump(),
        "taps": [tap.model_dump() for tap in found.taps],
        "statistics": [
            {"name": each.name, "above": each.above.bound, "below": each.below.bound}
            for each in found.inputs.statistics
        ],
        "faults": list(dict.fromkeys(each.fault for each in found.inputs.signatures)),
    }


def _table(name: str, found: Calibration) -> Table:
    table = Table("watched", "mean", "limit of the mean")
    table.title = (
        f"{name} on {found.source}: {found.frames:,} frames in {found.groups} groups, "
        f"{found.engine}"
    )
    noise = found.noise
    limit = noise.cap * noise.capped.bound * noise.variance
    table.add_row(
        "squared distance to the network without rounding", f"{noise.variance:.4g}", f"{limit:.4g}"
    )
    p0 = found.disagreement
    table.add_row("first class differs from its", f"{p0.mean:.2%}", f"{p0.bound:.2%}")
    for tap in found.taps:
        upper = f"{tap.cap * tap.capped.bound:.3%}"
        table.add_row(f"saturated codes of {tap.name}", f"{tap.share:.3%}", upper)
    for each in found.inputs.statistics:
        shown = f"{each.above.bound:.3f} / {each.below.bound:.3f}"
        table.add_row(f"rank of {each.name}, above / below", f"{each.above.mean:.3f}", shown)
    return table
