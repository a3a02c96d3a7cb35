"""Figures of rows: picking one out, and its mean over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qpde_perception.learning.experiments.experiment import Row, mean_of

if TYPE_CHECKING:
    from collections.abc import Iterable

Group = Sequence[Row]
"""Rows of one model and precision, one for every seed."""
Groups = Mapping[tuple[str, str], Group]
"""Groups by model and precision."""
Figure = Callable[[Row], Any]


def grouped_rows(rows: Iterable[Row]) -> Groups:
    """Bring together the seeds of each model and precision, in order of appearance."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["precision"]), []).append(row)
    return groups


def at(*keys: str | int) -> Figure:
    """Return what picks the figure at some keys, one below the other, out of a row."""

    def figure(row: Row) -> Any:
        value: Any = row
        for key in keys:
            value = value[key]
        return value

    return figure


def share_of_sign(name: str) -> Figure:
    """Return what picks the accuracy on one kind of sign of the other country out of a row."""
    sign = at("boxes", "signs", name)
    return lambda row: sign(row)["right"] / sign(row)["boxes"]


def known_mean(group: Group, figure: Figure) -> float | None:
    """Return the mean of a figure over seeds; None if no seed has it."""
    return mean_of([value for value in map(figure, group) if value is not None])


def mean(group: Group, figure: Figure) -> float:
    """Return the mean over seeds of a figure that every row has."""
    return float(sum(map(figure, group)) / len(group))
