"""`qpde data`: read a published data set into what training needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from qpde_perception.cli.frame import Json, emit, progress
from qpde_perception.learning.signs import SPLITS, SignSet, load_signs, save_signs

Source = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="Folder with gtsrb.zip and classes.csv.")
]
Out = Annotated[Path, typer.Option(help="Folder for the prepared data.")]

app = typer.Typer()


@app.callback()
def command() -> None:
    """Read a published data set into what training needs."""


@app.command()
def prepare(source: Source, out: Out = Path("prepared/gtsrb"), as_json: Json = False) -> None:
    """Decode the sign images once, and split them by track."""
    signs = read(source)
    save_signs(signs, out)
    splits = {name: _counts(signs.split(name)) for name in SPLITS}
    payload = {"path": str(out), "classes": len(signs.names), "splits": splits}

    def table() -> Table:
        shown = Table("split", "images", "tracks", title=str(out))
        for name, counts in splits.items():
            shown.add_row(name, str(counts["images"]), str(counts["tracks"] or "unknown"))
        return shown

    emit(as_json, payload, table)


def read(folder: Path) -> SignSet:
    """Read the sign data, published or prepared, with a progress bar."""
    with progress() as bar:
        task = bar.add_task("reading images", total=None)
        return load_signs(folder, lambda done, total: bar.update(task, completed=done, total=total))


def _counts(signs: SignSet) -> dict[str, int]:
    tracks = {record.track for record in signs.records if record.track}
    return {"images": len(signs), "tracks": len(tracks)}
