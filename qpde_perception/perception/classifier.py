"""The classifier: cameras' frames in, classes out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.engines.errors import EngineError
from qpde_perception.frames import FrameError, decode, frame_size, minimum_size, prepare
from qpde_perception.perception.scores import leading, softmax
from qpde_perception.perception.values import Perception, RegionResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import Engine
    from qpde_perception.frames import CameraFrame, Prepared, Regions
    from qpde_perception.perception.filters import TemporalFilter

    Observer = Callable[[NDArray[np.uint8], NDArray[np.float32]], None]

_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """One frame to be classified: the regions, or the whole frame where `regions` is None."""

    classifier: Classifier
    frame: CameraFrame
    regions: Regions | None = None


class Classifier:
    """Classifies the frames of one camera; several may share an engine, none shares a filter."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        temporal_filter: TemporalFilter,
        observer: Observer | None = None,
    ) -> None:
        """Put the parts of the road together.

        Args:
            bundle: Says what the network wants to see and what its classes are called.
            engine: Executes the network; it stays the caller's to close.
            temporal_filter: The filter of this camera.
            observer: Gets every batch with its logits, where somebody watches the engine; those who
                share an engine share it. It keeps the road waiting, so it is quick.
        """
        self._spec = bundle.manifest.input
        self._labels = bundle.manifest.labels
        self.engine = engine
        self.observer = observer
        self._filter = temporal_filter

    @property
    def item_bytes(self) -> int:
        """Bytes of the network's input for one item."""
        return self._spec.height * self._spec.width * 3

    def classify(self, frame: CameraFrame, regions: Regions | None = None) -> Perception:
        """Classify the regions of a frame, or the whole frame where `regions` is None.

        Args:
            frame: The frame.
            regions: The boxes that a detector found; where it found none, the frame is decoded all
                the same, since a camera that sends damaged frames must be noticed.

        Raises:
            FrameError: If the frame cannot be decoded.
            EngineError: If the engine fails or returns something else than finite logits.
        """
        (outcome,) = classify_together([Request(self, frame, regions)])
        if isinstance(outcome, FrameError):
            raise outcome
        return outcome

    def begin(self, frame: CameraFrame, regions: Regions | None) -> Begun | FrameError:
        """Decode a frame and prepare the network's input, or say why that cannot be."""
        watch = _StopWatch()
        try:
            size = frame_size(frame)
            picture = decode(frame, minimum=minimum_size(size, regions, self._spec))
            watch.lap("decode")
            prepared = prepare(picture, regions, self._spec)
        except FrameError as error:
            return error
        watch.lap("prepare")
        return Begun(frame, prepared, watch)

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the finite logits of a batch, which may be empty.

        Raises:
            EngineError: If the engine fails or returns something else than finite logits.
        """
        expected = (len(batch), len(self._labels))
        if len(batch) == 0:
            return np.empty(expected, np.float32)
        logits = self.engine.infer(batch)
        if logits.shape != expected:
            msg = (
                f"engine {self.engine.name}: logits of shape {logits.shape}, expected {expected}; "
                "engine and bundle do not belong together"
            )
            raise EngineError(msg)
        if not np.isfinite(logits).all():
            msg = f"engine {self.engine.name}: logits that are not finite; use another engine"
            raise EngineError(msg)
        return logits

    def finish(self, begun: Begun, logits: NDArray[np.float32]) -> Perception:
        """Turn the logits of a frame's items into classes, and filter them over time."""
        frame, watch = begun.frame, begun.watch
        items = self._postprocess(frame.stamp_ns, begun.prepared, logits)
        watch.lap("postprocess")
        rejected = begun.prepared.rejected
        return Perception(frame.stamp_ns, frame.frame_id, items, watch.stages_ms(), rejected)

    def _postprocess(
        self, stamp_ns: int, prepared: Prepared, logits: NDArray[np.float32]
    ) -> tuple[RegionResult, ...]:
        raw = softmax(logits)
        filtered = self._filter.update(stamp_ns, prepared.ids, prepared.boxes, raw)
        return tuple(
            RegionResult(
                box=box,
                track_id=track_id,
                class_index=(best := leading(seen)),
                label=self._labels[best],
                probability=float(seen[best]),
                filtered_class_index=(chosen := int(held)),
                filtered_probability=float(smooth[chosen]),
                probabilities=seen,
                filtered_probabilities=smooth,
            )
            for box, track_id, seen, smooth, held in zip(
                prepared.boxes, prepared.ids, raw, *filtered, strict=True
            )
        )


def classify_together(
    requests: Sequence[Request], pool: Executor | None = None
) -> list[Perception | FrameError]:
    """Classify frames of several cameras in one call of the engine that they share.

    Args:
        requests: The frames, at least one; all their classifiers have the same engine.
        pool: Threads that decode the frames side by side; None for one after another.

    Returns:
        In the same order, what is on each frame, or why it cannot be decoded.

    Raises:
        EngineError: If the engine fails or returns something else than finite logits.
    """
    begun = list((pool.map if pool is not None and len(requests) > 1 else map)(_begin, requests))
    for each in begun:
        if isinstance(each, Begun):
            each.watch.skip()
    batches = [each.prepared.batch for each in begun if isinstance(each, Begun)]
    if not batches:
        return [each for each in begun if isinstance(each, FrameError)]
    batch = batches[0] if len(batches) == 1 else np.concatenate(batches)
    first = requests[0].classifier
    logits = first.infer(batch)
    for each in begun:
        if isinstance(each, Begun) and len(each.prepared.batch):
            each.watch.lap("infer")
    if first.observer is not None:
        first.observer(batch, logits)
    outcomes: list[Perception | FrameError] = []
    done = 0
    for request, each in zip(requests, begun, strict=True):
        if isinstance(each, FrameError):
            outcomes.append(each)
            continue
        count = len(each.prepared.batch)
        outcomes.append(request.classifier.finish(each, logits[done : done + count]))
        done += count
    return outcomes


def _begin(request: Request) -> Begun | FrameError:
    return request.classifier.begin(request.frame, request.regions)


@dataclass(frozen=True, slots=True)
class Begun:
    """A frame whose input is prepared."""

    frame: CameraFrame
    prepared: Prepared
    watch: _StopWatch


class _StopWatch:
    """Durations of consecutive stages by a monotonic clock."""

    def __init__(self) -> None:
        self._started_ns = self._last_ns = time.perf_counter_ns()
        self._stages_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now_ns = time.perf_counter_ns()
        self._stages_ms[stage] = (now_ns - self._last_ns) / _NS_PER_MS
        self._last_ns = now_ns

    def skip(self) -> None:
        """Leave out what happened since the last stage; the total has it."""
        self._last_ns = time.perf_counter_ns()

    def resume(self) -> None:
        """Leave out what happened since the last stage, of the total as well."""
        now_ns = time.perf_counter_ns()
        self._started_ns += now_ns - self._last_ns
        self._last_ns = now_ns

    def add(self, stage: str, duration_ms: float) -> None:
        """Add a stage that was measured elsewhere."""
        self._stages_ms[stage] = duration_ms
        self._started_ns -= round(duration_ms * _NS_PER_MS)

    def stages_ms(self) -> dict[str, float]:
        total_ms = (time.perf_counter_ns() - self._started_ns) / _NS_PER_MS
        return {**self._stages_ms, "total": total_ms}
