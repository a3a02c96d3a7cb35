"""Classifying ahead: frames are decoded side by side and inferred together, and taken in order."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition, Thread
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    from qpde_perception.perception.classifier import Begun, Request
    from qpde_perception.perception.values import Perception

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

    _Input: TypeAlias = "tuple[_Ahead, NDArray[np.uint8]]"

# Frames that are handed to a thread at once: handing over takes as long as writing a result.
_TOGETHER = 8
# A decoder asks for the interpreter several times a frame. Where it waits for Python's 5 ms each
# time, as long as three frames take, processors stand idle (benchmarks/replay_limit.py).
_TURN_S = 50e-6
_NS_PER_MS = 1_000_000
_NOTHING: NDArray[np.uint8] = np.empty((0, 0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a pipeline runs ahead of who takes from it.

    Attributes:
        frames: Most frames in it, at least 1.
        size_bytes: Most bytes of frames and network inputs in it; one frame always fits.
        batch: Items in one call of the engine: frames are added while they fit, and one frame
            always does.
        decoders: Threads that decode, beside one for the engine; 0 for neither: who takes a frame
            does all the work, which is the least of it where other processes keep the other
            processors busy.
    """

    frames: int = 256
    size_bytes: int = 128 * 2**20
    batch: int = 32
    decoders: int = min(4, os.cpu_count() or 1)


DEFAULT_LIMITS = Limits()


class Pipeline:
    """Classifies frames ahead; close it, or use it as a context manager.

    What is taken is what `Classifier.classify` would have returned or raised for one frame after
    the other, however many are in it: frames are independent of each other up to their logits, and
    filters see them in the order in which they are taken. Who puts and takes is one thread; the
    engine is asked in another, and must let several threads wait for each other.

    While one is open that has threads, all threads of the process take turns in the interpreter
    quickly (`sys.setswitchinterval`).
    """

    def __init__(self, limits: Limits) -> None:
        """Start the threads, where there are any."""
        self._limits = limits
        self._size_bytes = 0
        self._order: deque[_Ahead] = deque()
        self._coming: deque[_Ahead] = deque()
        self._group: list[_Ahead] = []
        self._changed = Condition()
        self._awaited = self._closed = False
        self._pool: ThreadPoolExecutor | None = None
        self._thread: Thread | None = None
        if limits.decoders:
            self._pool = ThreadPoolExecutor(limits.decoders, "decoder")
            self._thread = Thread(target=self._run, name="engine", daemon=True)
            self._thread.start()
            self._turn_s = sys.getswitchinterval()
            sys.setswitchinterval(_TURN_S)

    @property
    def full(self) -> bool:
        """Whether something must be taken before more is put."""
        return len(self._order) >= self._limits.frames or (
            self._size_bytes >= self._limits.size_bytes
        )

    def put(self, request: Request) -> None:
        """Add a frame; that it is full is for the caller to heed."""
        ahead = _Ahead(request, _size_bytes(request))
        self._size_bytes += ahead.size_bytes
        self._order.append(ahead)
        self._group.append(ahead)
        if len(self._group) >= _TOGETHER:
            self._send()

    def take(self) -> Perception:
        """Return the result of the oldest frame, which leaves; waits until it is there.

        Raises:
            FrameError: If the frame cannot be decoded.
            EngineError: If the engine fails on this frame.
        """
        ahead = self._order.popleft()
        self._size_bytes -= ahead.size_bytes
        if ahead.sent is None:
            self._send()
        begun = ahead.wait()
        if isinstance(begun, Exception):
            raise begun
        classifier = ahead.request.classifier
        batch = begun.prepared.batch
        logits = self._logits(ahead, begun) if len(batch) else classifier.infer(batch)
        begun.watch.resume()
        if classifier.observer is not None:
            classifier.observer(batch, logits)
            begun.watch.resume()
        return classifier.finish(begun, logits)

    def close(self) -> None:
        """Stop; what was put and not taken is forgotten."""
        with self._changed:
            self._closed = True
            self._coming.clear()
            self._changed.notify_all()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._thread is not None:
            self._thread.join()
            sys.setswitchinterval(self._turn_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self) -> None:
        """Have the frames decoded that came since the last time, and inferred after that."""
        group, self._group = self._group, []
        sent = _done(group) if self._pool is None else self._pool.submit(_begin, group)
        for ahead in group:
            ahead.sent = sent
        with self._changed:
            self._coming += group
            self._changed.notify_all()

    def _logits(self, ahead: _Ahead, begun: Begun) -> NDArray[np.float32]:
        """Wait for what the engine says of a frame."""
        with self._changed:
            if ahead.answer is None and self._group:
                self._send()
            while ahead.answer is None:
                # The batch at hand will not grow, as nobody puts anything meanwhile.
                self._awaited = True
                if self._thread is None:
                    self._answer()
                    continue
                self._changed.notify_all()
                self._changed.wait()
            self._awaited = False
        if isinstance(ahead.answer, Exception):
            raise ahead.answer
        begun.watch.add("infer", ahead.answer.infer_ms)
        return ahead.answer.logits

    def _run(self) -> None:
        while self._answer():
            pass

    def _answer(self) -> bool:
        """Have the engine asked for the next batch; False where there is none."""
        batch = self._gather()
        if not batch:
            return False
        answers = _answers(batch)
        with self._changed:
            for (ahead, _), answer in zip(batch, answers, strict=True):
                ahead.answer = answer
            self._changed.notify_all()
        return True

    def _gather(self) -> list[_Input]:
        """Wait for as many frames as fill a batch, or all there are where somebody waits."""
        batch: list[_Input] = []
        items = 0
        while items < self._limits.batch:
            ahead = self._next(patient=not batch)
            if ahead is None:
                break
            try:
                begun = ahead.wait()
            except CancelledError:  # it was closed meanwhile
                return []
            pixels = _NOTHING if isinstance(begun, Exception) else begun.prepared.batch
            fits = items + len(pixels) <= self._limits.batch and _same_engine(batch, ahead)
            if batch and not fits:
                break
            with self._changed:
                if self._closed:
                    return []
                self._coming.popleft()
            if len(pixels):
                batch.append((ahead, pixels))
                items += len(pixels)
        return batch

    def _next(self, *, patient: bool) -> _Ahead | None:
        """Return the next frame, which stays; None where none will come, or none before a batch."""
        with self._changed:
            while not (self._coming or self._closed or (self._awaited and not patient)):
                self._changed.wait()
            return self._coming[0] if self._coming else None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the engine says of a frame, and the share of the call's time that its items have."""

    logits: NDArray[np.float32]
    infer_ms: float


@dataclass(slots=True, eq=False)
class _Ahead:
    """A frame on its way."""

    request: Request
    size_bytes: int
    sent: Future[None] | None = None
    begun: Begun | Exception | None = None
    answer: _Answer | Exception | None = None

    def wait(self) -> Begun | Exception:
        """Wait until it is decoded, or cannot be."""
        assert self.sent is not None
        self.sent.result()
        assert self.begun is not None
        return self.begun


def _done(group: list[_Ahead]) -> Future[None]:
    _begin(group)
    done: Future[None] = Future()
    done.set_result(None)
    return done


def _begin(group: list[_Ahead]) -> None:
    for ahead in group:
        request = ahead.request
        try:
            ahead.begun = request.classifier.begin(request.frame, request.regions)
        except Exception as error:  # noqa: BLE001  (it is raised where the frame is taken)
            ahead.begun = error


def _size_bytes(request: Request) -> int:
    items = 1 if request.regions is None else len(request.regions)
    return request.frame.data.nbytes + items * request.classifier.item_bytes


def _same_engine(batch: list[_Input], ahead: _Ahead) -> bool:
    return not batch or batch[0][0].request.classifier.engine is ahead.request.classifier.engine


def _answers(batch: list[_Input]) -> list[_Answer | Exception]:
    """Ask the engine for all together; where that fails for each, as one may be the reason."""
    first, pixels = batch[0]
    if len(batch) > 1:
        pixels = np.concatenate([each for _, each in batch])
    started_ns = time.perf_counter_ns()
    try:
        logits = first.request.classifier.infer(pixels)
    except Exception as error:  # noqa: BLE001  (it is raised where the frame is taken)
        if len(batch) == 1:
            return [error]
        return [answer for each in batch for answer in _answers([each])]
    item_ms = (time.perf_counter_ns() - started_ns) / _NS_PER_MS / len(pixels)
    ends = np.cumsum([len(each) for _, each in batch])[:-1]
    parts = np.split(logits, ends)
    return [_Answer(part, item_ms * len(part)) for part in parts]
