"""Running a fleet: in this process, or on Ray, one drive a task."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections import Counter, deque
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from qpde_perception.fleet.errors import FleetError
from qpde_perception.fleet.worker import DriveOutcome, Worker
from qpde_perception.perception import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qpde_perception.fleet.worker import DriveWork, FleetSetup

RETRIES = 2
"""How often a drive is begun again after its worker was killed."""
_DEADLY = (
    "its worker died {} times; the system's log tells whether memory ran out, and to replay this "
    "drive alone shows more"
)
_POLL_S = 0.2
_PATIENCE_S = 10.0
# Only names and numbers travel; the least that Ray takes.
_STORE_BYTES = 80 * 1024 * 1024
_SILENT = {"logging_level": logging.ERROR, "log_to_driver": False}
# Read when Ray is imported.
_QUIET = {
    "RAY_DEDUP_LOGS": "0",
    # Nothing is sent to anybody.
    "RAY_USAGE_STATS_ENABLED": "0",
    # A task that asks for no GPU may use those that are there: engines share them.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def run_here(
    setup: FleetSetup, works: Sequence[DriveWork], stopped: Callable[[], bool]
) -> Iterator[DriveOutcome]:
    """Replay drives in this process, one after another.

    Args:
        setup: What they have in common.
        works: The drives.
        stopped: Asked after each message of a drive; once true, what is under way is left.
    """
    worker = Worker(setup)
    try:
        for work in works:
            if stopped():
                break
            yield worker.replay(work, stopped)
    finally:
        worker.close()


class RayWorkers:
    """Workers of a Ray that was started, or joined; see `ray_workers`.

    Attributes:
        count: How many drives are replayed at a time.
    """

    def __init__(self, ray: Any, count: int, threads: int) -> None:
        self._ray = ray
        self.count = count
        self._task = ray.remote(num_cpus=threads, max_retries=0)(replay_drive)

    def run(
        self, setup: FleetSetup, works: Sequence[DriveWork], stopped: Callable[[], bool]
    ) -> Iterator[DriveOutcome]:
        """Replay drives, and yield what became of each as soon as it is known.

        Args:
            setup: What they have in common.
            works: The drives.
            stopped: Asked a few times a second; once true, what is under way is killed.
        """
        waiting = deque(works)
        deaths: Counter[str] = Counter()
        running: dict[Any, DriveWork] = {}
        while (waiting or running) and not stopped():
            while waiting and len(running) < self.count:
                work = waiting.popleft()
                running[self._task.remote(setup, work)] = work
            done, _ = self._ray.wait(list(running), timeout=_POLL_S)
            for reference in done:
                work = running.pop(reference)
                outcome = self._outcome(reference, work)
                if outcome is not None:
                    yield replace(outcome, deaths=deaths[work.name])
                    continue
                deaths[work.name] += 1
                if deaths[work.name] <= RETRIES:
                    waiting.appendleft(work)
                else:
                    yield _failed(work, _DEADLY.format(deaths[work.name]), deaths[work.name])
        for reference in running:
            self._ray.cancel(reference, force=True)

    def _outcome(self, reference: Any, work: DriveWork) -> DriveOutcome | None:
        """Return what became of a drive; None where its worker or its machine died."""
        errors = self._ray.exceptions
        try:
            outcome: DriveOutcome = self._ray.get(reference)
        except errors.RayTaskError as fault:
            # A drive's own faults are told by the worker: this one has another installation.
            return _failed(work, f"the worker cannot replay: {str(fault).splitlines()[-1]}", 0)
        except errors.RayError:
            return None
        return outcome


def _failed(work: DriveWork, error: str, deaths: int) -> DriveOutcome:
    return DriveOutcome(
        work.name, error, stopped=False, worker="", seconds=0.0, loading_s=0.0, deaths=deaths
    )


@contextmanager
def ray_workers(count: int | None, threads: int, address: str | None) -> Iterator[RayWorkers]:
    """Start Ray on this machine, or join a cluster, for as long as the block lasts.

    Args:
        count: Drives at a time; None for as many as there are processors for.
        threads: Processors that each takes.
        address: Address of a cluster; None starts a Ray of this machine, which nobody else sees.

    Raises:
        FleetError: If Ray is not installed, or there is no cluster.
    """
    os.environ.update(_QUIET)
    if address is None:
        # Ray listens on the network: with a secret of its own, to nobody but this fleet.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray  # noqa: PLC0415  (an extra, and a second of time)
    except ImportError:
        msg = (
            'ray is not installed; pip install "qpde_perception[fleet]" brings it, and '
            "--workers 0 does without, in one process"
        )
        raise FleetError(msg) from None
    if address is None:
        count = count or max(1, (os.cpu_count() or 1) // threads)
        _start(ray, count * threads)
    else:
        _join(ray, address)
    # Ray says on stdout that a worker died, which is for results.
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        try:
            processors = int(ray.cluster_resources().get("CPU", 0))
            yield RayWorkers(ray, count or max(1, processors // threads), threads)
        finally:
            ray.shutdown()


def _start(ray: Any, processors: int) -> None:
    try:
        ray.init(
            "local",
            num_cpus=processors,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            **_SILENT,
        )
    except (OSError, RuntimeError, ValueError) as error:
        msg = f"Ray cannot be started: {_first_line(error)}; --workers 0 does without"
        raise FleetError(msg) from None


def _join(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal() and "/" not in host:
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), _PATIENCE_S).close()
        ray.init(address, **_SILENT)
    except (OSError, RuntimeError, ValueError) as error:
        msg = (
            f"no Ray cluster answers at {address}: {_first_line(error)}; ray start --head starts "
            "one; one that wants a token needs RAY_AUTH_MODE=token here too; without --address, "
            "the fleet runs on this machine alone"
        )
        raise FleetError(msg) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def replay_drive(setup: FleetSetup, work: DriveWork) -> DriveOutcome:
    """Replay one drive with the model of this process: the task of a worker."""
    return _worker(setup).replay(work, _never)


@cache
def _worker(setup: FleetSetup) -> Worker:
    # As many threads as the processors that it takes: others have the rest. OpenCV's would wait for
    # the next picture in a loop.
    cv2.setNumThreads(max(setup.threads, 1))
    return Worker(setup, Limits(decoders=max(setup.threads - 1, 0)))


def _never() -> bool:
    """Tell that a worker of Ray is never asked to stop; it is killed."""
    return False
