"""Budgets: what a configuration may take, as a file that stands in somebody's CI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qpde_perception.profiling.errors import ProfilingError
from qpde_perception.profiling.schema import Summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpde_perception.profiling.schema import Profile, Row

_SELECTORS = ("engine", "threads", "batch", "source")


class Budget(BaseModel):
    """Limits for the rows that its selectors name.

    Attributes:
        engine: The engine; left out, every one. The next three alike.
        threads: Threads of the engine.
        batch: Regions of a frame.
        source: Encoding and size, as the table has it.
        stage: The stage that the milliseconds are of.
        p50_ms: Largest median; the other quantiles alike.
        p90_ms: Largest p90.
        p99_ms: Largest p99.
        p999_ms: Largest p99.9.
        max_ms: Largest time of any frame.
        mean_ms: Largest mean.
        deviation_ms: Largest standard deviation.
        first_ms: Largest time of the first frame.
        after_idle_ms: Largest time of a frame after idle.
        memory_mib: Largest growth of the process.
        energy_mj: Largest energy of a frame.
        missed_share: Largest share of missed deadlines, 0 to 1.
        frames_per_second: Smallest throughput.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str | None = None
    threads: int | None = None
    batch: int | None = None
    source: str | None = None
    stage: str = "total"
    p50_ms: float | None = Field(default=None, gt=0)
    p90_ms: float | None = Field(default=None, gt=0)
    p99_ms: float | None = Field(default=None, gt=0)
    p999_ms: float | None = Field(default=None, gt=0)
    max_ms: float | None = Field(default=None, gt=0)
    mean_ms: float | None = Field(default=None, gt=0)
    deviation_ms: float | None = Field(default=None, gt=0)
    first_ms: float | None = Field(default=None, gt=0)
    after_idle_ms: float | None = Field(default=None, gt=0)
    memory_mib: float | None = Field(default=None, gt=0)
    energy_mj: float | None = Field(default=None, gt=0)
    missed_share: float | None = Field(default=None, ge=0, le=1)
    frames_per_second: float | None = Field(default=None, gt=0)

    @property
    def selectors(self) -> dict[str, object]:
        """What a row must be for the budget to be about it."""
        chosen = {name: getattr(self, name) for name in _SELECTORS}
        return {name: value for name, value in chosen.items() if value is not None}

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set."""
        fields = [name for name in type(self).model_fields if name not in (*_SELECTORS, "stage")]
        limits = {name: getattr(self, name) for name in fields}
        return {name: limit for name, limit in limits.items() if limit is not None}


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    budgets: tuple[Budget, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Breach:
    """A row beyond a limit.

    Attributes:
        row: The configuration.
        limit: Name of the limit, with the stage where it is not the whole road.
        measured: What was measured; None where it could not be.
        allowed: The limit.
    """

    row: str
    limit: str
    measured: float | None
    allowed: float

    @property
    def told(self) -> str:
        """The breach in one line."""
        found = "not measured on this machine" if self.measured is None else f"{self.measured:.3g}"
        bound = "at least" if self.limit == "frames_per_second" else "at most"
        return f"{self.row}: {self.limit} {found}, {bound} {self.allowed:g}"


def read_budgets(path: Path) -> tuple[Budget, ...]:
    """Read a file of budgets.

    Raises:
        ProfilingError: If it is none.
        OSError: If it cannot be read.
    """
    try:
        return _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).budgets
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        msg = f"{path}: {place}: {first['msg']}; docs/profiling.md shows a file of budgets"
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path}: no YAML: {' '.join(str(error).split())}"
    raise ProfilingError(msg) from None


def breaches(budgets: tuple[Budget, ...], profile: Profile) -> list[Breach]:
    """Hold a profile against budgets.

    Raises:
        ProfilingError: If a budget is about no row or sets no limit: it would pass unseen.
    """
    found: list[Breach] = []
    for number, budget in enumerate(budgets, 1):
        rows = [
            row
            for row in profile.rows
            if all(getattr(row, name) == value for name, value in budget.selectors.items())
        ]
        if not rows or not budget.limits:
            what = "sets no limit" if rows else f"is about no row: {budget.selectors}"
            msg = f"budget {number} {what}; rows are: {'; '.join(r.name for r in profile.rows)}"
            raise ProfilingError(msg)
        for row in rows:
            found.extend(_of_row(budget, row))
    return found


def _of_row(budget: Budget, row: Row) -> Iterator[Breach]:
    for limit, allowed in budget.limits.items():
        measured = _measured(row, limit, budget.stage)
        name = limit
        if limit in Summary.model_fields and budget.stage != "total":
            name = f"{budget.stage} {limit}"
        if measured is None:
            yield Breach(row.name, name, None, allowed)
        elif measured < allowed if limit == "frames_per_second" else measured > allowed:
            yield Breach(row.name, name, measured, allowed)


def _measured(row: Row, limit: str, stage: str) -> float | None:
    if limit in Summary.model_fields:
        if stage not in row.stages:
            msg = f"budget: no stage {stage!r}; there are {', '.join(row.stages)}"
            raise ProfilingError(msg)
        return float(getattr(row.stages[stage], limit))
    if limit == "first_ms":
        return row.opening.first_ms if row.opening else None
    if limit == "after_idle_ms":
        return max(row.after_idle_ms, default=None)
    if limit == "missed_share":
        return None if row.paced is None else row.paced.misses / row.paced.frames
    value: float | None = getattr(row, limit)
    return value
