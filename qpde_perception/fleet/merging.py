"""Many drives' results in one: the same bytes, whoever replayed them and in whatever order."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from qpde_perception.fleet.errors import FleetError
from qpde_perception.fleet.worst import KINDS, PER_KIND
from qpde_perception.reports.accuracy import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qpde_perception.fleet.digest import DriveDigest
    from qpde_perception.fleet.job import ReplayOptions
    from qpde_perception.fleet.worst import WorstFrame

_SUMMED = (
    *("received", "published", "objects", "rejected_regions"),
    *("known_objects", "unknown_objects", "unmatched_objects"),
)
_OF_ALL = ("drive", "model", "model_sha256", "package_version", "filter")


class DriveResult(NamedTuple):
    """One drive in the results of all.

    Attributes:
        name: Its name in the fleet.
        drive: The drive, as the user named it.
        folder: The folder of its results.
        digest: What is kept of it; None where it was not replayed to its end.
        error: Why it was not; empty where nobody tried.
    """

    name: str
    drive: str
    folder: Path
    digest: DriveDigest | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class FleetModel:
    """What all drives were classified with.

    Attributes:
        name: Name of the model.
        sha256: SHA-256 of its manifest.
        labels: Names of its classes.
        package_version: Version of this package.
    """

    name: str
    sha256: str
    labels: tuple[str, ...]
    package_version: str


class LookedAt(NamedTuple):
    """A worst frame, and the drive it is of."""

    result: DriveResult
    frame: WorstFrame


def merge_results(results: Sequence[DriveResult], path: Path) -> str:
    """Write the lines of all drives into one file, each with its drive, and return its SHA-256.

    Args:
        results: The drives, in order; those without results are passed over.
        path: The file to write.

    Raises:
        FleetError: If a drive's results are not those that were written.
        OSError: If a file cannot be read or written.
    """
    whole = hashlib.sha256()
    with path.open("wb") as merged:
        for result in results:
            if result.digest is None:
                continue
            head = f'{{"drive": {json.dumps(result.name, ensure_ascii=False)}, '
            begin = head.encode("utf-8", "backslashreplace")
            of_drive = hashlib.sha256()
            source = result.folder / "results.jsonl"
            with source.open("rb") as lines:
                for line in lines:
                    of_drive.update(line)
                    content = begin + line.removeprefix(b"{")
                    merged.write(content)
                    whole.update(content)
            if of_drive.hexdigest() != result.digest.summary["results_sha256"]:
                msg = f"{source}: was changed; run again, and its drive is replayed again"
                raise FleetError(msg)
    return whole.hexdigest()


def worst_of_all(results: Sequence[DriveResult]) -> tuple[LookedAt, ...]:
    """Choose among the worst frames of all drives, kind after kind."""
    chosen: list[LookedAt] = []
    for kind in KINDS:
        candidates = [
            LookedAt(result, frame)
            for result in results
            if result.digest is not None
            for frame in result.digest.worst
            if frame.kind == kind
        ]
        candidates.sort(key=lambda one: (one.frame.rank[0], one.result.name, one.frame.rank))
        chosen += candidates[:PER_KIND]
    return tuple(chosen)


def fleet_document(
    results: Sequence[DriveResult],
    model: FleetModel,
    options: ReplayOptions,
    worst: Sequence[LookedAt],
    results_sha256: str,
) -> dict[str, Any]:
    """Return `fleet.json`: nothing in it is measured, so that equal input gives equal bytes.

    Args:
        results: The drives, in order.
        model: What they were classified with.
        options: What was replayed of each, and how.
        worst: The frames to look at first.
        results_sha256: SHA-256 of the merged results.
    """
    digests = [result.digest for result in results if result.digest is not None]
    judged = sum((digest.judged for digest in digests), Counter())
    seen = sum((digest.seen for digest in digests), Counter())
    causes = defaultdict(list)
    for result in results:
        verdicts = result.digest.summary["drift"]["verdicts"] if result.digest else ()
        for cause in dict.fromkeys(verdict["cause"] for verdict in verdicts):
            causes[cause].append(result.name)
    return {
        "format_version": 1,
        "complete": len(digests) == len(results),
        "model": model.name,
        "model_sha256": model.sha256,
        "engines": sorted({_engine(digest) for digest in digests}),
        "package_version": model.package_version,
        "options": asdict(options),
        "totals": _totals(results, digests, judged),
        "drives": [_row(result) for result in results],
        "classes": _classes(judged, seen, model.labels),
        "confusion": _confusion(judged),
        "drift": {cause: causes[cause] for cause in sorted(causes)},
        "worst": [_worst(one, model.labels) for one in worst],
        "results_sha256": results_sha256,
    }


def _row(result: DriveResult) -> dict[str, Any]:
    status = "replayed" if result.digest else "failed" if result.error else "not replayed"
    row = {
        "name": result.name,
        "drive": result.drive,
        "status": status,
        "error": result.error or None,
    }
    summary = result.digest.summary if result.digest else {}
    return row | {key: value for key, value in summary.items() if key not in _OF_ALL}


def _totals(
    results: Sequence[DriveResult],
    digests: Sequence[DriveDigest],
    judged: Counter[tuple[int, int, int]],
) -> dict[str, Any]:
    dropped: Counter[str] = sum((Counter(one.summary["dropped"]) for one in digests), Counter())
    known = {key: count for key, count in judged.items() if key[0] != UNKNOWN}
    return {
        "drives": len(results),
        "replayed": len(digests),
        "failed": sum(bool(result.error) and result.digest is None for result in results),
        **{name: sum(one.summary[name] for one in digests) for name in _SUMMED},
        "dropped": dict(sorted(dropped.items())),
        "accuracy": _share(known, 1),
        "accuracy_filtered": _share(known, 2),
    }


def _share(known: dict[tuple[int, int, int], int], index: int) -> float | None:
    right = sum(count for key, count in known.items() if key[0] == key[index])
    return right / sum(known.values()) if known else None


def _classes(
    judged: Counter[tuple[int, int, int]], seen: Counter[int], labels: tuple[str, ...]
) -> list[dict[str, Any]]:
    rows = []
    for index in sorted({*seen, *(truth for truth, _, _ in judged)} - {UNKNOWN}):
        of_class = {key: count for key, count in judged.items() if key[0] == index}
        rows.append(
            {
                "class_index": index,
                "label": labels[index],
                "seen": seen[index],
                "objects": sum(of_class.values()),
                "accuracy": _share(of_class, 1),
                "accuracy_filtered": _share(of_class, 2),
            }
        )
    return rows


def _confusion(judged: Counter[tuple[int, int, int]]) -> list[list[int]]:
    pairs: Counter[tuple[int, int]] = Counter()
    for (truth, predicted, _), count in judged.items():
        pairs[truth, predicted] += count
    return [[*pair, pairs[pair]] for pair in sorted(pairs)]


def _worst(one: LookedAt, labels: tuple[str, ...]) -> dict[str, Any]:
    frame = asdict(replace(one.frame, regions=()))
    del frame["regions"]
    return {
        "drive": one.result.name,
        **frame,
        "label": _label(one.frame.class_index, labels),
        "true_label": _label(one.frame.truth, labels),
    }


def _label(index: int | None, labels: tuple[str, ...]) -> str | None:
    return None if index is None or index == UNKNOWN else labels[index]


def _engine(digest: DriveDigest) -> str:
    return f"{digest.summary['engine']} {digest.summary['engine_version']}"
