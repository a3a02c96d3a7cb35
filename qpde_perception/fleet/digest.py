"""What is kept of a drive that was replayed to its end: what tells so, and what is merged."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qpde_perception.fleet.job import write_document
from qpde_perception.fleet.worst import WorstFrame, classes_seen, seen_regions, worst_frames

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qpde_perception.fleet.job import ReplayJob, ReplayOptions
    from qpde_perception.reports import Summary

DIGEST = "fleet_drive.json"
_FORMAT = 1
# What differs from one run to the next.
_MEASURED = ("frames_per_second", "stages", "interrupted")
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class DriveDigest:
    """A finished drive.

    Attributes:
        fingerprint: Of what the results follow from; see `fingerprint_of`.
        summary: The drive's `summary.json` without what is measured.
        judged: Number of objects by (true class, class of the frame, filtered class); the true
            class is -1 for what the model does not know.
        seen: Number of objects by class of the frame.
        worst: The frames to look at first.
    """

    fingerprint: str
    summary: Mapping[str, Any]
    judged: Counter[tuple[int, int, int]]
    seen: Counter[int]
    worst: tuple[WorstFrame, ...]


def fingerprint_of(
    drive: Path, *, model_sha256: str, engine: str, package: str, options: ReplayOptions
) -> str:
    """Return a hash of everything that a drive's results follow from.

    A drive's files are taken by name, size and time of the last change: to read them all would
    take about as long as to replay them.

    Args:
        drive: The drive.
        model_sha256: Hash of the model.
        engine: Name and version of the engine.
        package: Version of this package.
        options: What is replayed, and how.

    Raises:
        OSError: If the drive cannot be read.
    """
    files = sorted(drive.rglob("*")) if drive.is_dir() else [drive]
    stats = [(str(file.relative_to(drive)), file.stat()) for file in files if file.is_file()]
    told = {
        "format": _FORMAT,
        "files": [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
        "model": model_sha256,
        "engine": engine,
        "package": package,
        "options": asdict(options),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def write_digest(fingerprint: str, job: ReplayJob, summary: Summary) -> None:
    """Write what is kept of a drive: the last file of its folder, so that it tells of the rest.

    Raises:
        OSError: If it cannot be written.
    """
    score = job.report.score
    judged = Counter((one.truth, one.predicted, one.filtered) for one in score.judged)
    document = {
        "format_version": _FORMAT,
        "fingerprint": fingerprint,
        "summary": {
            key: value for key, value in summary.document().items() if key not in _MEASURED
        },
        "judged": [[*key, judged[key]] for key in sorted(judged)],
        "seen": sorted(classes_seen(job.out).items()),
        "worst": [
            {**asdict(frame), "regions": [region._asdict() for region in frame.regions]}
            for frame in worst_frames(score.judged, job.out, job.log_times_ns)
        ],
    }
    part = job.out / f"{DIGEST}.part"
    write_document(part, document)
    part.replace(job.out / DIGEST)


def read_digest(folder: Path, fingerprint: str) -> DriveDigest | None:
    """Return what is kept of a drive; None where it is not finished, or of anything else.

    Args:
        folder: The drive's folder.
        fingerprint: What its results must follow from.

    Raises:
        OSError: If a file that is there cannot be read.
    """
    try:
        document = json.loads((folder / DIGEST).read_text(encoding="utf-8"))
        digest = DriveDigest(
            fingerprint=document["fingerprint"],
            summary=document["summary"],
            judged=Counter({(key[0], key[1], key[2]): key[3] for key in document["judged"]}),
            seen=Counter(dict(document["seen"])),
            worst=tuple(
                WorstFrame(**{**frame, "regions": seen_regions(frame["regions"])})
                for frame in document["worst"]
            ),
        )
        same = sha256_of(folder / "results.jsonl") == digest.summary["results_sha256"]
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, LookupError):
        return None
    return digest if same and digest.fingerprint == fingerprint else None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
