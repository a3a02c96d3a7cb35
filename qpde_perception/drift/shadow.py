"""The shadow: a sampled share of what the engine answers, held against the float reference."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.engines import EngineError
from qpde_perception.frames.statistics import input_statistics
from qpde_perception.monitoring import Observation
from qpde_perception.perception.scores import softmax

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qpde_perception.engines import Observing

_CAPACITY = 8
"""Items that wait for the reference; where it cannot keep up, more are no use."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """What became of the items that the engine answered.

    Attributes:
        sampled: Items chosen, whether or not the reference saw them.
        skipped: Of those, items left out because as many as may wait did.
    """

    sampled: int = 0
    skipped: int = 0


class Shadow:
    """Chooses items, and tells how the engine's answers differ from the reference's.

    Each item is chosen with the same probability, before anything of it is looked at, so that what
    is seen of the chosen ones holds for all. On the engine's side a chosen item costs a copy; the
    reference runs in a thread that gives way to those that wake up.
    """

    def __init__(
        self,
        reference: Observing,
        lose: Callable[[str], None],
        *,
        share: float,
        seed: int = 0,
        background: bool = True,
    ) -> None:
        """Start.

        Args:
            reference: The float reference.
            lose: Gets why the reference cannot be asked any more; nothing is observed after it.
            share: Probability with which an item is chosen, 0 to 1.
            seed: Seed of the choice.
            background: Whether the reference is asked in a thread of its own, which skips items
                where it cannot keep up; else it is asked in `catch_up`, for every item, so that
                equal items in equal order give equal observations.
        """
        self._reference, self._lose = reference, lose
        self.tell: Callable[[Observation], None] = _forget
        """Gets every observation of what is chosen from now on, one after another."""
        self._share, self._random = share, random.Random(seed)  # noqa: S311  (no secret)
        self.sampling = Sampling()
        self._lost = self._closed = False
        self._items: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread: Thread | None = None
        if background:
            self._thread = Thread(target=self._run, name="shadow", daemon=True)
            self._thread.start()

    def __call__(self, batch: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
        """Take note of what the engine answered; called by one thread at a time.

        Args:
            batch: What it was asked, uint8, shape (n, height, width, 3).
            logits: What it answered, float32, shape (n, classes).
        """
        chosen = [index for index in range(len(batch)) if self._random.random() < self._share]
        if not chosen or self._lost:
            return
        room = len(chosen)
        if self._thread is not None:
            room = max(_CAPACITY - self._items.qsize(), 0)
        taken = chosen[:room]
        sampling = self.sampling
        self.sampling = Sampling(
            sampling.sampled + len(chosen), sampling.skipped + len(chosen) - len(taken)
        )
        for index in taken:
            pixels, answer = batch[index : index + 1].copy(), logits[index : index + 1].copy()
            item = _Item(pixels, answer, self.tell)
            self._items.put(item)

    def catch_up(self) -> None:
        """Hold what waits against the reference, where no thread does."""
        while self._thread is None and not self._items.empty():
            item = self._items.get()
            if item is not None:
                self._observe(item)

    def close(self) -> None:
        """Observe no more; what still waits is forgotten."""
        self._closed = True
        if self._thread is not None:
            self._items.put(None)
            self._thread.join()

    def _run(self) -> None:
        _give_way()
        while (item := self._items.get()) is not None and not self._closed:
            self._observe(item)

    def _observe(self, item: _Item) -> None:
        if self._lost:
            return
        try:
            observation = self._held(item)
            if not self._closed:
                item.tell(observation)
        except Exception as error:  # noqa: BLE001  (whatever a library raises, the road goes on)
            self._lost = True
            if not self._closed:
                self._lose(" ".join(str(error).split()))

    def _held(self, item: _Item) -> Observation:
        """Hold an item against the reference."""
        logits, saturation = self._reference.observe(item.pixels)
        if logits.shape != item.logits.shape or not np.isfinite(logits).all():
            msg = f"its logits, of shape {logits.shape}, are no answer"
            raise EngineError(msg)
        return _observation(item, logits, saturation)


@dataclass(frozen=True, slots=True)
class _Item:
    pixels: NDArray[np.uint8]
    logits: NDArray[np.float32]
    tell: Callable[[Observation], None]


def _forget(_observation: Observation) -> None:
    """Stand for a receiver as long as there is none."""


def _observation(
    item: _Item, reference: NDArray[np.float32], saturation: NDArray[np.float32]
) -> Observation:
    live = np.asarray(item.logits[0], np.float64)
    probabilities = softmax(live)
    likely = probabilities[probabilities > 0.0]
    first = int(live.argmax())
    return Observation(
        squared_distance=float(np.sum((live - reference[0]) ** 2)),
        disagrees=first != int(reference[0].argmax()),
        saturation=tuple(saturation[0].tolist()),
        statistics=tuple(input_statistics(item.pixels)[0].tolist()),
        class_index=first,
        entropy=float(-(likely * np.log(likely)).sum()),
    )


def _give_way() -> None:
    """Let this thread interrupt no other that is at work, and make way for each that wakes up.

    No lower than that: a thread of idle priority, or of a high nice value, holds the interpreter's
    lock now and then, and on a busy computer it does not get a processor to give it back. The road
    then stood still for up to a second (benchmarks/drift_cost.py --load).
    """
    with suppress(OSError, AttributeError):  # not every system knows it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
