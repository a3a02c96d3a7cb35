"""Augmented batches, prepared by processes beside the one that learns."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import cv2
import numpy as np

from qpde_perception.learning.augmentation import augment
from qpde_perception.learning.repainting import Repainter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from qpde_perception.frames import InputSpec
    from qpde_perception.learning.signs import SignSet

    Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]

LOOKAHEAD = 3
"""Batches that each process may be ahead of the learner."""


class BatchSource:
    """Makes any batch of any epoch; what a batch holds depends on nothing but its place.

    Attributes:
        signs: The images to learn from.
        spec: The network's input.
        size: Images per batch.
        seed: Of order and augmentation.
    """

    def __init__(self, signs: SignSet, spec: InputSpec, size: int, seed: int) -> None:
        self.signs, self.spec, self.size, self.seed = signs, spec, size, seed
        self._repaint = Repainter(signs.names)

    def __len__(self) -> int:
        return len(self.signs) // self.size

    def make(self, epoch: int, step: int) -> Batch:
        """Return pixels, uint8 RGB (size, height, width, 3), and labels, (size,).

        A label is a class index, or `repainting.UNKNOWN` for a picture that no class stands for.

        Args:
            epoch: Index of the epoch.
            step: Index of the batch within the epoch.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.signs))
        rng = np.random.default_rng([self.seed, epoch, step])
        views, labels = [], []
        for i in order[step * self.size : (step + 1) * self.size]:
            label = self.signs.records[i].class_index
            image, label = self._repaint(self.signs.image(i), label, rng)
            views.append(augment(image, self.spec, rng))
            labels.append(label)
        return np.ascontiguousarray(np.stack(views)[..., ::-1]), np.array(labels, np.int64)


class BatchFeeder:
    """Prepares the batches of a source in processes, in order.

    The processes are forked when the feeder is made: make it before an accelerator is touched,
    whose driver does not survive a fork.
    """

    def __init__(self, source: BatchSource, workers: int) -> None:
        self._source = source
        self._waiting = LOOKAHEAD * workers
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("fork"),
            initializer=_start_worker,
            initargs=(source,),
        )
        for ready in [self._pool.submit(_nothing) for _ in range(workers)]:
            ready.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return len(self._source)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, see `BatchSource.make`."""
        waiting: deque[Future[Batch]] = deque()
        for step in range(len(self)):
            waiting.append(self._pool.submit(_make, epoch, step))
            if len(waiting) > self._waiting:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_source: BatchSource
"""What a worker process makes batches of."""


def _start_worker(source: BatchSource) -> None:
    global _source  # noqa: PLW0603  (the one place of a pool's process for what it was started with)
    _source = source
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the learner stops the pool
    cv2.setNumThreads(0)  # the threads of a pool do not survive a fork


def _nothing() -> None:
    """Run in a worker to have it started."""


def _make(epoch: int, step: int) -> Batch:
    return _source.make(epoch, step)
