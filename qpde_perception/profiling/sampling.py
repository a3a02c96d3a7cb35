"""Reading the sensors beside the frames, in a process of its own.

In a thread the readings would hold up the frames that are measured: Python runs one at a time.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import IO, TYPE_CHECKING

from qpde_perception.profiling.computer import NvidiaCards, read_computer
from qpde_perception.profiling.jetson import Readings, read_jetson, total_power
from qpde_perception.profiling.schema import Sensors
from qpde_perception.profiling.tegrastats import read_tegrastats

if TYPE_CHECKING:
    from collections.abc import Iterator

_STOP_S = 5.0


@dataclass(slots=True)
class Samples:
    """Readings with the monotonic clock's time of each, seconds."""

    taken: list[tuple[float, Readings]] = field(default_factory=list)

    def sensors(self, start_s: float) -> Sensors:
        """Return the readings as a profile holds them.

        Args:
            start_s: The profile's start by the monotonic clock.
        """
        times_s = tuple(round(time_s - start_s, 3) for time_s, _ in self.taken)
        names = dict.fromkeys(name for _, readings in self.taken for name in readings)
        series = {name: tuple(readings.get(name) for _, readings in self.taken) for name in names}
        return Sensors(times_s=times_s, series=series, power_source=self.power_source)

    @property
    def power_source(self) -> str:
        """The rails or the card whose power is told; empty without."""
        sources = [total_power(readings)[1] for _, readings in self.taken]
        return max(sources, default="")

    def mean_power_w(self, spans_s: list[tuple[float, float]]) -> float | None:
        """Return the mean power over spans of the monotonic clock; None where none was read."""
        powers = [
            power
            for time_s, readings in self.taken
            if any(begin <= time_s <= end for begin, end in spans_s)
            and (power := total_power(readings)[0]) is not None
        ]
        return sum(powers) / len(powers) if powers else None


@contextmanager
def sampled(interval_s: float) -> Iterator[Samples]:
    """Read the sensors until the block ends; the samples are there afterwards."""
    samples = Samples()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as lines:
        command = [sys.executable, "-c", f"from {__name__} import main; main({interval_s})"]
        # It ends with its standard input, so also when this process is killed.
        reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=lines)  # noqa: S603
        try:
            yield samples
        finally:
            assert reader.stdin is not None
            reader.stdin.close()
            try:
                reader.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                reader.kill()
                reader.wait()
            lines.seek(0)
            samples.taken.extend(_taken(lines))


def _taken(lines: IO[str]) -> Iterator[tuple[float, Readings]]:
    for line in lines:
        # The last line of a reader that was killed may be torn.
        if line.endswith("\n"):
            time_s, readings = json.loads(line)
            yield time_s, readings


class Reader:
    """All sensors of this machine."""

    def __init__(self, interval_s: float, root: Path = Path("/")) -> None:
        """Look which sensors there are.

        Args:
            interval_s: Time between two lines of tegrastats.
            root: Where the file system begins.
        """
        self._root = root
        self._cards = NvidiaCards()
        self._told: Readings = {}
        self._tegrastats: subprocess.Popen[str] | None = None
        program = which("tegrastats")
        if program:
            command = [program, "--interval", str(max(100, round(interval_s * 1e3)))]
            self._tegrastats = subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.PIPE, text=True
            )
            threading.Thread(target=self._listen, daemon=True).start()

    def read(self) -> Readings:
        """Read every sensor; sysfs is newer than tegrastats' last line, and so wins."""
        merged: Readings = {**self._told, **read_computer()}
        for name, value in {**read_jetson(self._root), **self._cards.read()}.items():
            if value is not None or merged.get(name) is None:
                merged[name] = value
        return merged

    def close(self) -> None:
        """Stop tegrastats."""
        if self._tegrastats is not None:
            self._tegrastats.terminate()
            self._tegrastats.wait()

    def _listen(self) -> None:
        assert self._tegrastats is not None
        assert self._tegrastats.stdout is not None
        for line in self._tegrastats.stdout:
            self._told = read_tegrastats(line)


def main(interval_s: float) -> None:
    """Write a line of readings at each interval, until the standard input ends."""
    ended = threading.Event()
    # An interruption is for the process that started it, which then closes the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    reader = Reader(interval_s)
    reader.read()  # loads are means since the last reading
    try:
        while not ended.wait(interval_s):
            sys.stdout.write(json.dumps([time.monotonic(), reader.read()]) + "\n")
            sys.stdout.flush()
    finally:
        reader.close()
