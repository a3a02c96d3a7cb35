"""What a diagnostics task says, and how its values are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """Levels of `diagnostic_msgs/DiagnosticStatus`, with its numbers."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What one task of the diagnostics says.

    Attributes:
        name: Name of the task; the node puts its own name before it.
        level: How bad it is.
        message: One line for people.
        values: Values by key, as docs/diagnostics.md lists them.
    """

    name: str
    level: Level
    message: str
    values: dict[str, str]


class Findings:
    """Collects what is wrong: the worst level wins, and every message is kept."""

    def __init__(self) -> None:
        """Start with nothing wrong."""
        self.level = Level.OK
        self._messages: list[str] = []

    def add(self, level: Level, message: str) -> None:
        """Add something to say."""
        self.level = max(self.level, level)
        self._messages.append(message)

    def status(self, name: str, values: dict[str, str], *, fine: str = "OK") -> TaskStatus:
        """Return the status of a task; `fine` is its message where there is nothing to say."""
        return TaskStatus(name, self.level, " ".join(self._messages) or fine, values)


def decimal(value: float | None, missing: str = "N/A") -> str:
    """Write a number with three decimals and a point; `missing` where there is none."""
    if value is None or not math.isfinite(value):
        return missing
    return f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no minus before zero


def count(value: int | None) -> str:
    """Write a count in digits; `N/A` where there is none."""
    return "N/A" if value is None else f"{value:d}"


def truth(value: bool) -> str:
    """Write a truth value as `diagnostic_updater` for C++ does."""
    return "True" if value else "False"


def listed(names: tuple[str, ...]) -> str:
    """Write names after one another; `none` where there are none."""
    return ", ".join(names) or "none"
