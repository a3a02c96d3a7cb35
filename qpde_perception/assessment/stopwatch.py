"""The time that a training took, kept beside its run."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CLOCK = "seconds.json"


class Stopwatch:
    """Keeps the time of every epoch, so that an interrupted training knows it all in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._since = time.monotonic()

    def batch(self, epoch: int, done: int, total: int) -> None:
        """Hear of a step."""

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Write down how long a finished epoch took."""
        times = json.loads(self._path.read_text("utf-8")) if self._path.is_file() else {}
        now = time.monotonic()
        times[str(metrics["epoch"])] = round(now - self._since, 1)
        self._since = now
        self._path.write_text(json.dumps(times), encoding="utf-8")


def seconds_of(path: Path) -> float | None:
    """Return the time of all epochs that a stopwatch wrote down; None where there was none."""
    if not path.is_file():
        return None
    return float(sum(json.loads(path.read_text(encoding="utf-8")).values()))
