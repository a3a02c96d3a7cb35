"""The worker: one thread that classifies the newest frame of every camera."""

from __future__ import annotations

import os
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from qpde_perception.bundles import BundleError
from qpde_perception.engines import REFERENCE, EngineError
from qpde_perception.frames import FrameError
from qpde_perception.monitoring import DropReason
from qpde_perception.perception import Mailbox, Request, classify_together

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpde_perception.engines import Engine
    from qpde_perception.frames import CameraFrame, Regions
    from qpde_perception.perception import Classifier, Perception
    from ros2_nodes.engine_line import EngineLine

_RETRY_S = 5.0
"""How long after the last engine has failed all of them are tried again."""


@dataclass(frozen=True, slots=True)
class Job:
    """A frame to be classified: its camera, its message, and when it came, on the node's clock."""

    camera: str
    header: Any
    frame: CameraFrame
    regions: Regions | None
    arrived_ns: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a frame was not classified."""

    reason: DropReason
    fault: str


class Watch(Protocol):
    """Whoever watches the engine, in the worker's thread."""

    def between(self, classifier: Classifier) -> bool:
        """Do something with the engine between two frames; whether there is more to do.

        Raises:
            EngineError: If the engine fails.
        """
        ...

    def fail(self, fault: str) -> None:
        """Take note that the engine failed."""
        ...

    def objection(self) -> str:
        """Say why the float reference should serve instead, once; empty where it should not."""
        ...


class Worker:
    """Takes frames from a mailbox, classifies them together, and delivers what became of each."""

    def __init__(
        self,
        line: EngineLine,
        classifiers: dict[str, Classifier],
        deliver: Callable[[Job, Perception | Loss], None],
        *,
        admit: Callable[[Job], str | None],
        report: Callable[[str], None],
        decoders: int = 1,
        watch: Watch | None = None,
    ) -> None:
        """Prepare; `start` starts the thread.

        Args:
            line: Where engines come from; one is open.
            classifiers: One classifier per camera.
            deliver: Gets every frame with its result, in the worker's thread.
            admit: Says of a frame, as its turn comes, why it is too old, or None.
            report: Gets lines for the log.
            decoders: Number of threads that decode; 1 for the worker's own.
            watch: Who watches the engine, if anybody does.
        """
        self._line, self._classifiers = line, classifiers
        self._receiver, self._admit, self._report = deliver, admit, report
        self._watch = watch
        self._pool = ThreadPoolExecutor(decoders, "decoder") if decoders > 1 else None
        self._mailbox: Mailbox[Job] = Mailbox()
        self._thread = Thread(target=self._run, name="worker", daemon=True)
        self._priority, self._tried_s = 0, time.monotonic()

    def start(self, priority: int) -> None:
        """Start the thread.

        Args:
            priority: Its priority in SCHED_FIFO; 0 for ordinary scheduling.
        """
        self._priority = priority
        self._thread.start()

    def put(self, job: Job) -> None:
        """Leave a frame; the camera's one that still waited is delivered as superseded."""
        superseded = self._mailbox.put(job.camera, job)
        if superseded is not None:
            self._deliver(superseded, Loss(DropReason.SUPERSEDED, "a newer frame came"))

    def stop(self) -> None:
        """Let the frames at hand be finished; those that wait are delivered as superseded."""
        for job in self._mailbox.close().values():
            self._deliver(job, Loss(DropReason.SUPERSEDED, "the node was deactivated"))
        if self._thread.is_alive():
            self._thread.join()
        if self._pool is not None:
            self._pool.shutdown()

    def _run(self) -> None:
        if self._priority:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(self._priority))
            except (OSError, AttributeError) as error:
                self._report(
                    f"priority {self._priority}: {error}; give the user an rtprio limit, or set 0"
                )
        while self._between():
            pass
        # Nothing holds the frames that are done while the next ones are awaited.
        while self._work(self._mailbox.take()):
            self._between()

    def _work(self, jobs: dict[str, Job]) -> bool:
        """See that each frame ends in one way; False where there are none any more."""
        fresh = []
        for job in jobs.values():
            fault = self._admit(job)
            if fault is None:
                fresh.append(job)
            else:
                self._deliver(job, Loss(DropReason.TOO_OLD, fault))
        if fresh:
            self._serve(fresh)
        return bool(jobs)

    def _serve(self, jobs: list[Job]) -> None:
        fault = "no engine is left"
        if self._line.engine is None and time.monotonic() - self._tried_s > _RETRY_S:
            self._tried_s = time.monotonic()
            self._adopt(self._line.restart())
        while self._line.engine is not None:
            requests = [
                Request(self._classifiers[job.camera], job.frame, job.regions) for job in jobs
            ]
            try:
                outcomes = classify_together(requests, self._pool)
            except EngineError as error:
                fault = self._replace(error)
                continue
            except Exception as error:  # noqa: BLE001  (a fault of ours: the next frame may be fine)
                fault = repr(error)
                self._report(traceback.format_exc())
                break
            for job, outcome in zip(jobs, outcomes, strict=True):
                if isinstance(outcome, FrameError):
                    self._deliver(job, Loss(DropReason.MALFORMED, str(outcome)))
                else:
                    self._deliver(job, outcome)
            return
        for job in jobs:
            self._deliver(job, Loss(DropReason.ENGINE_DOWN, fault))

    def _deliver(self, job: Job, outcome: Perception | Loss) -> None:
        try:
            self._receiver(job, outcome)
        except Exception:  # noqa: BLE001  (without this thread there are no more results)
            self._report(traceback.format_exc())

    def _between(self) -> bool:
        """Let the engine be looked at; whether there is more to do before the next frame."""
        if self._watch is None or self._line.engine is None:
            return False
        try:
            more = self._watch.between(next(iter(self._classifiers.values())))
        except EngineError as error:
            self._replace(error)
            return True
        except Exception:  # noqa: BLE001  (a fault of ours must not end the road)
            self._report(traceback.format_exc())
            return False
        if why := self._watch.objection():
            try:
                self._adopt(self._line.stand_in(why))
            except (BundleError, EngineError) as error:
                self._report(f"{REFERENCE} cannot stand in: {error}")
        return more

    def _replace(self, error: EngineError) -> str:
        """Go on with the next engine, since this one failed; return why it did."""
        fault = self._line.fail(error)
        self._report(fault)
        if self._watch is not None:
            self._watch.fail(fault)
        self._adopt(self._line.advance())
        self._tried_s = time.monotonic()
        return fault

    def _adopt(self, engine: Engine | None) -> None:
        if engine is None:
            self._report(self._line.why_none)
            return
        self._report(f"engine {engine.name} serves now")
        for classifier in self._classifiers.values():
            classifier.engine = engine
