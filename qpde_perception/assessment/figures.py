"""Figures of rows: picking one out, its mean over seeds, and what quantizing changes in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from qpde_perception.learning.experiments.experiment import Row, deviation_of, mean_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpde_perception.assessment.candidates import Role

Group = Sequence[Row]
"""Rows of one model and precision, one for every seed."""
Groups = Mapping[tuple[str, str], Group]
"""Groups by model and precision."""
Figure = Callable[[Row], Any]
Key = TypeVar("Key")


def grouped_rows(rows: Iterable[Row]) -> Groups:
    """Bring together the seeds of each model and precision, in order of appearance."""
    return grouped_by(rows, lambda row: (row["model"], row["precision"]))


def grouped_by(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """Bring together rows of one key, in order of appearance."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def of_role(groups: Groups, role: Role) -> Groups:
    """Return the groups that are executed in one way, at most one for every model."""
    return {key: group for key, group in groups.items() if group[0]["role"] == role.value}


def of_model(groups: Groups, model: str, role: Role) -> Group | None:
    """Return the rows of one model executed in one way; None where there are none."""
    found = [group for (name, _), group in of_role(groups, role).items() if name == model]
    return found[0] if found else None


def changes(quantized: Group, floating: Group, figure: Figure) -> list[float]:
    """Return what quantizing changes in a figure, in points of a hundred, seed by seed."""
    before = {row["seed"]: figure(row) for row in floating}
    return [100.0 * (figure(r) - before[r["seed"]]) for r in quantized if r["seed"] in before]


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


def percent(group: Group, figure: Figure, digits: int = 1) -> str:
    """Return the mean of a share over seeds in percent, with its deviation."""
    return over_seeds(group, figure, 100.0, digits)


def plain(group: Group, figure: Figure) -> str:
    """Return the mean of a figure over seeds, with its deviation."""
    return over_seeds(group, figure, 1.0, 3)


def over_seeds(group: Group, figure: Figure, factor: float, digits: int) -> str:
    """Return the mean of a figure over seeds times a factor, with its deviation; or a dash."""
    centre = known_mean(group, figure)
    if centre is None:
        return "-"
    text = f"{factor * centre:.{digits}f}"
    deviation = deviation_of([value for value in map(figure, group) if value is not None])
    return text if deviation is None else f"{text} ± {factor * deviation:.{digits}f}"
