"""Running a fleet: in this process, or on Ray, one drive a task."""

from __future__ import annotations

import logging
import os
from collections import deque
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from qpde_perception.fleet.errors import FleetError
from qpde_perception.fleet.worker import DriveOutcome, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qpde_perception.fleet.worker import DriveWork, FleetSetup

RETRIES = 3
"""How often a drive is begun again after its worker was killed."""
_POLL_S = 0.2
# Only names and numbers travel; the least that Ray takes.
_STORE_BYTES = 80 * 1024 * 1024
_QUIET = {
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
        self._task = ray.remote(num_cpus=threads, max_retries=RETRIES)(replay_drive)

    def run(
        self, setup: FleetSetup, works: Sequence[DriveWork], stopped: Callable[[], bool]
    ) -> Iterator[DriveOutcome]:
        """Replay drives, and yield what became of each as soon as it is known.

        Args:
            setup: What they have in common.
            works: The drives.
            stopped: Asked a few times a second; once true, what is under way is killed.
        """
        todo = deque(works)
        running: dict[Any, DriveWork] = {}
        while (todo or running) and not stopped():
            while todo and len(running) < self.count:
                work = todo.popleft()
                running[self._task.remote(setup, work)] = work
            done, _ = self._ray.wait(list(running), timeout=_POLL_S)
            for reference in done:
                yield self._outcome(reference, running.pop(reference))
        for reference in running:
            self._ray.cancel(reference, force=True)

    def _outcome(self, reference: Any, work: DriveWork) -> DriveOutcome:
        try:
            outcome: DriveOutcome = self._ray.get(reference)
        except self._ray.exceptions.WorkerCrashedError:
            error = (
                f"its worker died {RETRIES + 1} times; look for it in the system's log (out of "
                "memory?), or replay it alone to see why"
            )
        except self._ray.exceptions.RayError as fault:
            error = f"Ray: {str(fault).strip().splitlines()[-1]}"
        else:
            return outcome
        return DriveOutcome(work.name, error, stopped=False, worker="", seconds=0.0, loading_s=0.0)


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
    try:
        import ray  # noqa: PLC0415  (an extra, and a second of time)
    except ImportError:
        msg = (
            'ray is not installed; pip install "qpde_perception[fleet]" brings it, and '
            "--workers 0 does without, in one process"
        )
        raise FleetError(msg) from None
    options: dict[str, Any] = {"address": address}
    if address is None:
        count = count or max(1, (os.cpu_count() or 1) // threads)
        options = {
            "address": "local",
            "num_cpus": count * threads,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        }
    try:
        ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        msg = (
            f"Ray could not be started: {reason}"
            if address is None
            else f"no Ray cluster at {address}: {reason}; start one with ray start --head, or "
            "leave out --address for this machine alone"
        )
        raise FleetError(msg) from None
    try:
        processors = int(ray.cluster_resources().get("CPU", 0))
        yield RayWorkers(ray, count or max(1, processors // threads), threads)
    finally:
        ray.shutdown()


def replay_drive(setup: FleetSetup, work: DriveWork) -> DriveOutcome:
    """Replay one drive with the model of this process: the task of a worker."""
    return _worker(setup).replay(work, _never)


@cache
def _worker(setup: FleetSetup) -> Worker:
    return Worker(setup)


def _never() -> bool:
    """Tell that a worker of Ray is never asked to stop; it is killed."""
    return False
