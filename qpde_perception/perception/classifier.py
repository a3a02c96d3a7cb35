"""The classifier: one camera's frames in, classes out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from qpde_perception.engines.errors import EngineError
from qpde_perception.frames import decode, frame_size, minimum_size, prepare
from qpde_perception.perception.scores import softmax
from qpde_perception.perception.values import Perception, RegionResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import Engine
    from qpde_perception.frames import CameraFrame, Prepared, Regions
    from qpde_perception.perception.filters import TemporalFilter

_NS_PER_MS = 1_000_000


class Classifier:
    """Classifies the frames of one camera; several may share an engine, none shares a filter."""

    def __init__(self, bundle: Bundle, engine: Engine, temporal_filter: TemporalFilter) -> None:
        """Put the parts of the road together.

        Args:
            bundle: Says what the network wants to see and what its classes are called.
            engine: Executes the network; it stays the caller's to close.
            temporal_filter: The filter of this camera.
        """
        self._spec = bundle.manifest.input
        self._labels = bundle.manifest.labels
        self._engine = engine
        self._filter = temporal_filter

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
        watch = _StopWatch()
        picture = decode(frame, minimum=minimum_size(frame_size(frame), regions, self._spec))
        watch.lap("decode")
        prepared = prepare(picture, regions, self._spec)
        watch.lap("prepare")
        logits = self._infer(prepared.batch)
        if len(prepared.batch):
            watch.lap("infer")
        items = self._postprocess(frame.stamp_ns, prepared, logits)
        watch.lap("postprocess")
        return Perception(
            frame.stamp_ns, frame.frame_id, items, watch.stages_ms(), prepared.rejected
        )

    def _infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        expected = (len(batch), len(self._labels))
        if len(batch) == 0:
            return np.empty(expected, np.float32)
        logits = self._engine.infer(batch)
        if logits.shape != expected:
            msg = (
                f"engine {self._engine.name}: logits of shape {logits.shape}, expected {expected}; "
                "engine and bundle do not belong together"
            )
            raise EngineError(msg)
        if not np.isfinite(logits).all():
            msg = f"engine {self._engine.name}: logits that are not finite; use another engine"
            raise EngineError(msg)
        return logits

    def _postprocess(
        self, stamp_ns: int, prepared: Prepared, logits: NDArray[np.float32]
    ) -> tuple[RegionResult, ...]:
        raw = softmax(logits)
        filtered = self._filter.update(stamp_ns, prepared.ids, prepared.boxes, raw)
        return tuple(
            RegionResult(
                box=box,
                track_id=track_id,
                class_index=(best := int(seen.argmax())),
                label=self._labels[best],
                probability=float(seen[best]),
                filtered_class_index=(best_filtered := int(smooth.argmax())),
                filtered_probability=float(smooth[best_filtered]),
            )
            for box, track_id, seen, smooth in zip(
                prepared.boxes, prepared.ids, raw, filtered, strict=True
            )
        )


class _StopWatch:
    """Durations of consecutive stages by a monotonic clock."""

    def __init__(self) -> None:
        self._started_ns = self._last_ns = time.perf_counter_ns()
        self._stages_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now_ns = time.perf_counter_ns()
        self._stages_ms[stage] = (now_ns - self._last_ns) / _NS_PER_MS
        self._last_ns = now_ns

    def stages_ms(self) -> dict[str, float]:
        total_ms = (time.perf_counter_ns() - self._started_ns) / _NS_PER_MS
        return {**self._stages_ms, "total": total_ms}
