"""`qpde experiment`: make an experiment of the method, from its settings to its page."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from qpde_perception.assessment import certificates, signs
from qpde_perception.cli.frame import Json, emit, notes, progress
from qpde_perception.learning.experiments.page import PAGE
from qpde_perception.learning.experiments.registry import EXPERIMENTS, run_experiment

STUDIES = {
    **EXPERIMENTS,
    "signs": signs.STUDY,
    "certificate": certificates.STUDY,
}


class Device(str, Enum):
    """Where to run, and which profile of the settings."""

    cpu = "cpu"
    cuda = "cuda"


Name = Annotated[str, typer.Argument(help=f"One of: {', '.join(STUDIES)}.")]
Data = Annotated[Path, typer.Option(help="Folder of the published data sets.")]
Out = Annotated[Path, typer.Option(help="Folder of the pages.")]
DeviceName = Annotated[
    Device, typer.Option(help="Where to run, and which profile of experiments/NAME.yaml.")
]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at once, each in a process of its own.")]


def command(
    name: Name,
    *,
    data: Data = Path("../shared/data"),
    out: Out = Path("docs/experiments"),
    device: DeviceName = Device.cpu,
    jobs: Jobs = 1,
    as_json: Json = False,
) -> None:
    """Make an experiment as experiments/NAME.yaml says, and write its page.

    Every run leaves a checkpoint after each epoch under runs/experiments; the same command goes on
    from there, and what is finished is not made again.
    """
    with progress() as bar:
        task = bar.add_task(name, total=None)

        def advance(done: int, total: int, finished: str) -> None:
            bar.update(task, completed=done, total=total)
            if finished:
                notes().print(f"{done} of {total}: {finished}")

        document = run_experiment(
            name,
            data=data,
            out=out,
            device=device.value,
            jobs=jobs,
            advance=advance,
            experiments=STUDIES,
        )
    page = str(out / name / PAGE)
    payload = {**document, "page": page}

    def shown() -> Table:
        presentation = STUDIES[name].present(document["rows"])
        table = Table(*presentation.head, title=f"{document['question']}\n{page}")
        for row in presentation.table:
            table.add_row(*row)
        return table

    emit(as_json, payload, shown)
