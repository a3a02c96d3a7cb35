"""What an experiment is, and what all of them share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import AfterValidator

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.jobs import perform
from qpde_perception.learning.experiments.runs import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from qpde_perception.learning.experiments.jobs import Place, Result, Step
    from qpde_perception.learning.experiments.settings import Settings

    Advance = Callable[[int, int, str], None]

Row = dict[str, Any]


def _checked_precision(text: str) -> str:
    try:
        return Precision.parse(text).text
    except LearningError as error:
        raise ValueError(str(error)) from None


PrecisionText = Annotated[str, AfterValidator(_checked_precision)]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page between the result and the reading.

    Attributes:
        title: Its heading.
        text: What was measured, and how.
        head: Names of the table's columns.
        table: Cells of its rows.
        plots: As in `Presentation`.
    """

    title: str
    text: str
    head: tuple[str, ...]
    table: Sequence[tuple[str, ...]]
    plots: dict[str, tuple[str, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Presentation:
    """How the rows of an experiment are shown.

    Attributes:
        head: Names of the table's columns.
        table: Cells of its rows.
        reading: What the figures say, one sentence or paragraph each.
        plots: Name of the file without ending, with title and SVG document.
        sections: Parts of the page that show more than the one table.
        effort: What it took; None where the runs of the document say all.
    """

    head: tuple[str, ...]
    table: Sequence[tuple[str, ...]]
    reading: Sequence[str]
    plots: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    effort: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What an experiment found, and what it took.

    Attributes:
        rows: Rows of plain values.
        runs: Number of runs.
        machines: What they were made on, in words.
        training_seconds: Time of training.
    """

    rows: list[Row]
    runs: int
    machines: list[str]
    training_seconds: float


class Study(Protocol):
    """A question, how it is answered, and how the answer is shown."""

    @property
    def question(self) -> str:
        """What is asked."""
        ...

    @property
    def settings(self) -> type[Settings]:
        """Model of its profile in the YAML file."""
        ...

    @property
    def present(self) -> Callable[[Sequence[Row]], Presentation]:
        """The tables, the plots and the reading of the rows."""
        ...

    def answer(self, profile: Any, place: Place, jobs: int, advance: Advance) -> Answer:
        """Make what is missing, and say what was found.

        Args:
            profile: Values of `settings`.
            place: Where runs are made.
            jobs: Number of runs at once.
            advance: Told the number of finished steps, their total, and which finished.
        """
        ...


@dataclass(frozen=True, slots=True)
class Experiment:
    """A study whose answer lies in the networks that it trains.

    Attributes:
        question: What is asked.
        settings: Model of its profile in the YAML file.
        plan: The steps of a profile, given the folder of the data sets.
        summarise: Rows of plain values, from one result per step.
        present: The table, the plots and the reading of the rows.
    """

    question: str
    settings: type[Settings]
    plan: Callable[[Any, Path], list[Step]]
    summarise: Callable[[Sequence[Result]], list[Row]]
    present: Callable[[Sequence[Row]], Presentation]

    def answer(self, profile: Any, place: Place, jobs: int, advance: Advance) -> Answer:
        """Make the runs that are missing; see `Study`.

        Raises:
            LearningError: If the data are unusable, or the device is missing.
        """
        results = perform(self.plan(profile, place.data), place, jobs, advance)
        return Answer(
            rows=self.summarise(results),
            runs=len(results),
            machines=sorted({result.outcome.machine for result in results}),
            training_seconds=round(sum(result.outcome.seconds for result in results), 1),
        )


def grouped(results: Iterable[Result], *fields: str) -> dict[Any, list[Result]]:
    """Bring together results whose runs agree in some fields, in order of appearance."""
    groups: dict[Any, list[Result]] = {}
    for result in results:
        key = tuple(getattr(result.run, field) for field in fields)
        groups.setdefault(key, []).append(result)
    return groups


def accuracies(group: Sequence[Result]) -> Row:
    """Return mean and deviation of the accuracy over seeds, and how many runs diverged."""
    known = [r.outcome.test_top1 for r in group if r.outcome.test_top1 is not None]
    chosen = [r.outcome.val_top1 for r in group if r.outcome.val_top1 is not None]
    return {
        "test_top1": mean_of(known),
        "test_top1_deviation": deviation_of(known),
        "val_top1": mean_of(chosen),
        "parameters": group[0].outcome.parameters,
        "runs": len(group),
        "diverged": sum(result.outcome.diverged for result in group),
    }


def mean_of(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return sum(values) / len(values) if values else None


def deviation_of(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample, None of less than two."""
    if len(values) < 2:
        return None
    centre = sum(values) / len(values)
    return float((sum((v - centre) ** 2 for v in values) / (len(values) - 1)) ** 0.5)


def percent(row: Row) -> str:
    """Return the accuracy of a row as it stands in a table, with what diverged."""
    if row["test_top1"] is None:
        return "diverged"
    text = f"{100 * row['test_top1']:.1f}"
    if row["test_top1_deviation"] is not None:
        text += f" ± {100 * row['test_top1_deviation']:.1f}"
    return f"{text} ({row['diverged']} diverged)" if row["diverged"] else text


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as it stands in a table."""
    return "-" if value is None else f"{value:.{digits}f}"
