"""What a process of a fleet does: one drive after another, with one model."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpde_perception.bags import BagError, open_drive
from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bags.results import claim_folder
from qpde_perception.bundles import BundleError, load_bundle
from qpde_perception.engines import EngineError, open_engine
from qpde_perception.fleet.digest import DIGEST, write_digest
from qpde_perception.fleet.job import ReplayJob, ReplayOptions
from qpde_perception.perception import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qpde_perception.bags import Drive
    from qpde_perception.bags.cameras import Camera
    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import Engine
    from qpde_perception.perception import Limits

_ANTICIPATED = (BagError, BundleError, EngineError, OSError)


@dataclass(frozen=True, slots=True)
class FleetSetup:
    """What all drives of a fleet have in common; equal setups share a model.

    Attributes:
        model: Folder of the bundle, absolute.
        engine: Name of the engine.
        threads: Threads of the engine; 0 lets it decide.
        options: What is replayed of each drive, and how.
    """

    model: Path
    engine: str
    threads: int
    options: ReplayOptions


@dataclass(frozen=True, slots=True)
class DriveWork:
    """One drive to replay.

    Attributes:
        name: Its name in the fleet.
        drive: The drive, absolute.
        shown: The drive, as the user named it.
        folder: The folder of its results, absolute.
        fingerprint: What its results follow from.
    """

    name: str
    drive: Path
    shown: str
    folder: Path
    fingerprint: str


@dataclass(frozen=True, slots=True)
class DriveOutcome:
    """What became of a drive; its results are in its folder.

    Attributes:
        name: Its name in the fleet.
        error: Why it has no results; empty where it has.
        stopped: Whether it was stopped before its end.
        worker: Machine and process.
        seconds: How long it took, all in all.
        loading_s: Of these, for the model and the engine: 0 where they were open already.
        deaths: How many workers died over it, so that it was begun again.
    """

    name: str
    error: str
    stopped: bool
    worker: str
    seconds: float
    loading_s: float
    deaths: int = 0


class Worker:
    """One process of a fleet; opens model and engine for the first drive, and keeps them."""

    def __init__(self, setup: FleetSetup, limits: Limits = DEFAULT_LIMITS) -> None:
        self._setup, self._limits = setup, limits
        self._model: tuple[Bundle, Engine] | None = None

    def replay(self, work: DriveWork, stopped: Callable[[], bool]) -> DriveOutcome:
        """Replay a drive into its folder; one that fails is told, not raised.

        Args:
            work: The drive.
            stopped: Asked after each message; once true, the drive is left unfinished.
        """
        started = time.perf_counter()
        error, finished, loading_s = "", False, 0.0
        try:
            # What tells that the folder is finished goes first, and comes back last.
            (work.folder / DIGEST).unlink(missing_ok=True)
            if self._model is None:
                self._model = self._open()
                loading_s = time.perf_counter() - started
            bundle, engine = self._model
            finished = self._replay(work, bundle, engine, stopped)
        except _ANTICIPATED as fault:
            error = str(fault)
        except Exception as fault:  # noqa: BLE001  a drive nobody foresaw must not end the fleet
            error = f"{type(fault).__name__}: {fault}"
        return DriveOutcome(
            name=work.name,
            error=error,
            stopped=not error and not finished,
            worker=f"{socket.gethostname()}:{os.getpid()}",
            seconds=time.perf_counter() - started,
            loading_s=loading_s,
        )

    def close(self) -> None:
        """Close the engine."""
        if self._model is not None:
            self._model[1].close()

    def _open(self) -> tuple[Bundle, Engine]:
        bundle = load_bundle(self._setup.model)
        return bundle, open_engine(bundle, self._setup.engine, threads=self._setup.threads)

    def _replay(
        self, work: DriveWork, bundle: Bundle, engine: Engine, stopped: Callable[[], bool]
    ) -> bool:
        """Replay a drive, and tell whether to its end."""
        with open_drive(work.drive) as drive:
            job = ReplayJob(
                drive=drive,
                cameras=_cameras(drive, self._setup.options),
                bundle=bundle,
                engine=engine,
                options=self._setup.options,
                out=work.folder,
                limits=self._limits,
            )
            claim_folder(work.folder)
            job.run(stopped=stopped, advanced=_nothing)
            summary = job.finish(work.shown)
        if not summary.interrupted:
            write_digest(work.fingerprint, job, summary)
        return not summary.interrupted


def _cameras(drive: Drive, options: ReplayOptions) -> tuple[Camera, ...]:
    try:
        return cameras_of(drive.topics, options.cameras, regions=options.regions)
    except BagError as error:
        msg = "; ".join((str(error), *drive.losses))
        raise BagError(msg) from None


def _nothing() -> None:
    """Stand for whoever wants to know of each frame."""
