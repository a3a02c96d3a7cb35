"""The folder that a replay writes: what it holds is valid at every moment."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from qpde_perception.bags.errors import BagError
from qpde_perception.bags.replay import Dropped, Published

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from qpde_perception.perception import Perception, RegionResult

MARKER = ".made_by_qpde_replay"
STAGES = ("decode", "prepare", "infer", "postprocess", "total")
FILES = (
    "results.jsonl",
    "dropped.jsonl",
    "timings.csv",
    "perception.mcap",
    "summary.json",
    "report.html",
)
DIGITS = 6
"""Enough for any probability or pixel, and short of what differs between machines."""

_LINES_TOGETHER = 64


def claim_folder(folder: Path, marker: str = MARKER, files: Sequence[str] = FILES) -> None:
    """Make the folder, or empty it of an earlier replay's files.

    Args:
        folder: The folder.
        marker: Name of the file that tells what made it.
        files: The files that are removed.

    Raises:
        BagError: If it holds files and was not made by a replay.
        OSError: If it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        msg = f"{folder}: is a file; name a new folder with --out"
        raise BagError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / marker
    if not made.exists() and any(folder.iterdir()):
        maker = marker.rpartition("_")[2]
        msg = f"{folder}: holds files and was not made by a {maker}; name a new folder with --out"
        raise BagError(msg)
    made.touch()
    for name in files:
        (folder / name).unlink(missing_ok=True)


class ResultFiles:
    """`results.jsonl`, `dropped.jsonl` and `timings.csv`, one line a frame."""

    def __init__(self, folder: Path) -> None:
        """Open the files.

        Args:
            folder: A folder that was claimed.

        Raises:
            OSError: If a file cannot be written.
        """
        self._results = _LineFile(folder / "results.jsonl")
        self._dropped = _LineFile(folder / "dropped.jsonl")
        self._timings = _LineFile(folder / "timings.csv")
        self._files = ExitStack()
        for file in (self._results, self._dropped, self._timings):
            self._files.callback(file.close)
        self._timings.write(",".join(("stamp_ns", "topic", *(f"{name}_ms" for name in STAGES))))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with nullcontext() if error is None else suppress(OSError):
            self._files.close()

    @property
    def results_sha256(self) -> str:
        """SHA-256 of `results.jsonl` as far as it is written."""
        return self._results.sha256

    def add(self, outcome: Published | Dropped) -> None:
        """Write what became of one frame.

        Raises:
            OSError: If the disk is full; the files then end with their last whole line.
        """
        topic = outcome.camera.topic
        if isinstance(outcome, Dropped):
            reason = {"reason": outcome.reason.value, "fault": outcome.fault}
            self._dropped.write(_line({"stamp_ns": outcome.stamp_ns, "topic": topic, **reason}))
            return
        perception = outcome.perception
        self._results.write(_line(_result(topic, perception)))
        times = (perception.stages_ms.get(name) for name in STAGES)
        cells = ("" if time is None else f"{time:.4f}" for time in times)
        self._timings.write(",".join((str(perception.stamp_ns), f'"{topic}"', *cells)))


def write_text(path: Path, text: str) -> None:
    """Write a file wholly or not at all; its errors name it.

    Raises:
        OSError: If it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        # Half a JSON object or half a page is worse than none.
        with suppress(OSError):
            path.unlink()
        raise _named(error, path) from None


def _result(topic: str, perception: Perception) -> dict[str, Any]:
    return {
        "stamp_ns": perception.stamp_ns,
        "frame_id": perception.frame_id,
        "topic": topic,
        "regions": [_region(region) for region in perception.regions],
    }


def _region(region: RegionResult) -> dict[str, Any]:
    return {
        "box": None if region.box is None else [round(side, DIGITS) for side in region.box],
        "track_id": region.track_id,
        "class_index": region.class_index,
        "label": region.label,
        "probability": round(region.probability, DIGITS),
        "filtered_class_index": region.filtered_class_index,
        "filtered_probability": round(region.filtered_probability, DIGITS),
    }


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False)


def _named(error: OSError, path: Path) -> OSError:
    return OSError(error.errno, error.strerror, str(path))


class _LineFile:
    """A text file of whole lines: one that does not fit on the disk is taken back.

    Lines are written some together, as each write lets the other threads of a replay go first; a
    process that is killed outright loses the last ones.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._size = 0
        self._hash = hashlib.sha256()
        self._waiting: list[bytes] = []

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, line: str) -> None:
        content = f"{line}\n".encode()
        self._hash.update(content)
        self._waiting.append(content)
        if len(self._waiting) >= _LINES_TOGETHER:
            self._flush()

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._file.close()

    def _flush(self) -> None:
        content, self._waiting = b"".join(self._waiting), []
        written = 0
        try:
            while written < len(content):
                # A nearly full disk takes a part first and fails then.
                written += self._file.write(memoryview(content)[written:])
        except OSError as error:
            self._file.truncate(self._size + content.rfind(b"\n", 0, written) + 1)
            raise _named(error, self._path) from None
        self._size += written
