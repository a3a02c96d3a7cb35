"""The folder of a fleet: what is done, what is still to do, and the results of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qpde_perception.bags.results import claim_folder, write_text
from qpde_perception.fleet.digest import fingerprint_of, read_digest
from qpde_perception.fleet.job import manifest_sha256, write_document
from qpde_perception.fleet.merging import (
    DriveResult,
    FleetModel,
    fleet_document,
    merge_results,
    worst_of_all,
)
from qpde_perception.fleet.pictures import draw_worst
from qpde_perception.fleet.planning import FLEET_MARKER
from qpde_perception.fleet.worker import DriveWork
from qpde_perception.reports.fleet_report import fleet_html
from qpde_perception.version import package_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qpde_perception.bundles import Bundle
    from qpde_perception.fleet.job import ReplayOptions
    from qpde_perception.fleet.planning import PlannedDrive
    from qpde_perception.fleet.worker import DriveOutcome

FILES = ("fleet.json", "results.jsonl", "fleet.html", "timings.json")
DRIVES = "drives"


@dataclass(frozen=True, slots=True)
class FleetFolder:
    """A fleet's folder, and what its drives are replayed with.

    Attributes:
        out: The folder.
        works: Its drives, in order.
        bundle: The model.
        options: What is replayed of each drive, and how.
    """

    out: Path
    works: tuple[DriveWork, ...]
    bundle: Bundle
    options: ReplayOptions

    def claim(self) -> None:
        """Make the folder, or take that of an earlier fleet: finished drives stay.

        Raises:
            BagError: If it holds files and was not made by a fleet.
            OSError: If it cannot be written.
        """
        claim_folder(self.out, FLEET_MARKER, FILES)

    def unfinished(self) -> tuple[DriveWork, ...]:
        """Return the drives whose results are not there, not whole, or of something else."""
        return tuple(
            work for work in self.works if read_digest(work.folder, work.fingerprint) is None
        )

    def strangers(self) -> list[str]:
        """Return the drives whose results are here, of a fleet with other drives."""
        known = {work.folder for work in self.works}
        found = (self.out.absolute() / DRIVES).rglob("summary.json")
        return sorted(
            path.parent.relative_to(self.out.absolute() / DRIVES).as_posix()
            for path in found
            if path.parent not in known
        )

    def merge(self, errors: Mapping[str, str]) -> dict[str, Any]:
        """Write `results.jsonl`, `fleet.html` and last `fleet.json`, and return the latter.

        Args:
            errors: Why drives have no results, by their names.

        Raises:
            FleetError: If results were changed since they were written.
            OSError: If a file cannot be read or written.
        """
        manifest = self.bundle.manifest
        results = [
            DriveResult(
                work.name,
                work.shown,
                work.folder,
                read_digest(work.folder, work.fingerprint),
                errors.get(work.name, ""),
            )
            for work in self.works
        ]
        worst = worst_of_all(results)
        document = fleet_document(
            results,
            FleetModel(
                manifest.name, manifest_sha256(self.bundle), manifest.labels, package_version()
            ),
            self.options,
            worst,
            merge_results(results, self.out / "results.jsonl"),
        )
        html = fleet_html(document, manifest.labels, draw_worst(worst))
        write_text(self.out / "fleet.html", html)
        write_document(self.out / "fleet.json", document)
        return document

    def write_timings(self, outcomes: Sequence[DriveOutcome], timings: Mapping[str, Any]) -> None:
        """Write `timings.json`: what was measured, of this run only.

        Args:
            outcomes: What became of the drives of this run.
            timings: Of the run as a whole.

        Raises:
            OSError: If it cannot be written.
        """
        drives = [
            {
                "name": one.name,
                "worker": one.worker,
                "seconds": round(one.seconds, 4),
                "loading_s": round(one.loading_s, 4),
                "deaths": one.deaths,
            }
            for one in sorted(outcomes, key=lambda one: one.name)
        ]
        write_document(self.out / "timings.json", {**timings, "drives": drives})


def fleet_folder(
    out: Path,
    drives: Sequence[PlannedDrive],
    bundle: Bundle,
    engine: str,
    options: ReplayOptions,
) -> FleetFolder:
    """Return the folder of a fleet; nothing is written.

    Args:
        out: The folder.
        drives: The drives, in order.
        bundle: The model.
        engine: Name and version of the engine.
        options: What is replayed of each drive, and how.
    """
    model_sha256, package = manifest_sha256(bundle), package_version()

    def fingerprint(drive: Path) -> str:
        try:
            return fingerprint_of(
                drive, model_sha256=model_sha256, engine=engine, package=package, options=options
            )
        except OSError:
            return ""  # it cannot be opened either, which is told then

    works = tuple(
        DriveWork(
            name=drive.name,
            drive=drive.path.absolute(),
            shown=str(drive.path),
            folder=out.absolute() / DRIVES / drive.name,
            fingerprint=fingerprint(drive.path),
        )
        for drive in drives
    )
    return FleetFolder(out, works, bundle, options)
