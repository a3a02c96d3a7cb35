"""`qpde bag`: look into a recorded drive, or make one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from qpde_perception.bags import drive_info, make_drive, open_drive
from qpde_perception.bags.sources import choose_bursts
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.frame import Json, emit, progress, warn

if TYPE_CHECKING:
    from collections.abc import Mapping

DrivePath = Annotated[
    Path, typer.Argument(metavar="DRIVE", help="A rosbag1 file, a rosbag2 folder, .mcap or .db3.")
]
Source = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="A folder of images, a video, or a zip with boxes.csv (bursts) or labels.csv "
        "(tracks).",
    ),
]
Out = Annotated[Path, typer.Option(help="The .mcap file to write.")]
Rate = Annotated[float, typer.Option(help="Frames per second.")]
Encoding = Annotated[
    Literal["jpeg", "raw"], typer.Option(help="CompressedImage, or Image in bgr8.")
]
Parts = Annotated[
    list[str] | None,
    typer.Option("--part", help="Burst or track to take; may be repeated. Default: all."),
]
BurstsEach = Annotated[
    int | None,
    typer.Option(min=1, help="Take the first bursts that show each kind of sign, this many each."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]

app = typer.Typer()


@app.command()
def info(drive: DrivePath, as_json: Json = False) -> None:
    """Show what a drive holds, and whether all of it can be read.

    Fails when something cannot; what is lost stands on stderr.
    """
    with open_drive(drive) as opened:
        payload = drive_info(opened)
        losses = opened.losses
    for loss in losses:
        warn(loss)
    emit(as_json, payload, lambda: _table(payload))
    if not payload["readable_to_end"]:
        raise typer.Exit(1)


@app.command()
def make(
    source: Source,
    *,
    out: Out,
    rate: Rate = 10.0,
    encoding: Encoding = "jpeg",
    part: Parts = None,
    bursts_each: BurstsEach = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a drive from images, a video, or held-out signs.

    Nobody recorded when the pictures were taken: the stamps are invented, at the given rate.
    """
    if part and bursts_each:
        msg = "--part and --bursts-each: both choose bursts; give one of them"
        raise CommandError(msg)
    parts = choose_bursts(source, bursts_each) if bursts_each else part
    with progress() as bar:
        task = bar.add_task("make", total=None)
        made = make_drive(
            source,
            out,
            rate_hz=rate,
            encoding=encoding,
            parts=parts,
            overwrite=overwrite,
            progress=lambda done, count: bar.update(task, completed=done, total=count or None),
        )
    payload = {
        "path": str(made.path),
        "frames": made.frames,
        "clips": made.clips,
        "boxes_per_class": {str(name): count for name, count in made.boxes_per_class.items()},
    }
    emit(as_json, payload, lambda: f"{made.path}: {made.frames} frames in {made.clips} clips")


def _table(payload: Mapping[str, Any]) -> Table:
    end = "readable to its end" if payload["readable_to_end"] else "not readable to its end"
    table = Table("topic", "type", "messages")
    table.title = f"{payload['format']}, {payload['duration_s']:.1f} s, {end}"
    for topic in payload["topics"]:
        table.add_row(topic["name"], topic["type"], str(topic["count"]))
    return table
