"""The bag that a replay writes: images as recorded, and beside them what the model says."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.bags.definitions import typestore
from qpde_perception.bags.messages import detections, header_of
from qpde_perception.bags.replay import Dropped, Published
from qpde_perception.bags.writer import McapWriter
from qpde_perception.frames import Regions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from qpde_perception.bags.cameras import Camera
    from qpde_perception.monitoring import Accounting, TaskStatus
    from qpde_perception.perception import Perception, RegionResult

_DIAGNOSTICS_NS = 1_000_000_000
_GREEN = (0.2, 0.9, 0.3, 1.0)
_WHITE = (1.0, 1.0, 1.0, 1.0)
_SHADE = (0.0, 0.0, 0.0, 0.6)
_NOTHING = (0.0, 0.0, 0.0, 0.0)
_FONT_SIZE = 18.0


class PerceptionBag:
    """`perception.mcap`: per camera the images, `classification`, `annotations`, `label_info`.

    Once a second of the drive the accounting of each camera goes to `/diagnostics`, and what other
    tasks say.
    """

    def __init__(
        self,
        path: Path,
        labels: tuple[str, ...],
        accounting: Accounting,
        tasks: Callable[[], Sequence[TaskStatus]] = tuple,
    ) -> None:
        """Open the file.

        Args:
            path: The file; one that is there is replaced.
            labels: Names of the classes.
            accounting: Counts of the replay, read once a second.
            tasks: Returns what else there is to say on `/diagnostics`.

        Raises:
            BagError: If the file cannot be written.
        """
        # Images are most of it. Compressed ones get no smaller, and of raw ones a frame would take
        # longer than to classify it.
        self._writer = McapWriter(path, compress=False)
        self._labels = labels
        self._accounting, self._tasks = accounting, tasks
        self._announced: set[Camera] = set()
        self._next_diagnostics_ns: int | None = None
        self._now_ns = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def add(self, outcome: Published | Dropped) -> None:
        """Write one frame and, if there is one, its result.

        Raises:
            BagError: If the disk is full.
        """
        camera, recorded = outcome.camera, outcome.recorded
        self._now_ns = now_ns = recorded.log_time_ns
        messages = [(camera.topic, recorded.message)]
        if isinstance(outcome, Published):
            perception = outcome.perception
            if camera not in self._announced:
                self._announced.add(camera)
                info = _label_info(perception, self._labels)
                messages.append((f"{camera.namespace}/label_info", info))
            result = _classification(camera, perception)
            messages.append((f"{camera.namespace}/classification", result))
            messages.append((f"{camera.namespace}/annotations", _annotations(perception)))
        self._writer.write_all(messages, now_ns)
        if self._next_diagnostics_ns is None or now_ns >= self._next_diagnostics_ns:
            self._next_diagnostics_ns = now_ns + _DIAGNOSTICS_NS
            self._say()

    def end(self) -> None:
        """Write the last diagnostics: the sums of the whole drive.

        Raises:
            BagError: If the disk is full.
        """
        if self._next_diagnostics_ns is not None:
            self._say()

    def _say(self) -> None:
        said = _diagnostics(self._accounting, self._tasks(), self._now_ns)
        self._writer.write("/diagnostics", said, self._now_ns)


def _classification(camera: Camera, perception: Perception) -> Any:
    """Return a `Detection2DArray`, or a `Classification` where whole frames are classified."""
    if camera.regions_topic is None:
        types = typestore().types
        hypothesis = types["vision_msgs/msg/ObjectHypothesis"]
        return types["vision_msgs/msg/Classification"](
            header=header_of(perception.stamp_ns, perception.frame_id),
            results=[
                hypothesis(class_id=str(region.class_index), score=region.probability)
                for region in perception.regions
            ],
        )
    found = perception.regions
    boxes = np.array([region.box for region in found], np.float32).reshape(-1, 4)
    regions = Regions(boxes, tuple(region.track_id for region in found))
    classes = [region.class_index for region in found]
    message: Any = detections(perception.stamp_ns, perception.frame_id, regions, classes)
    for detection, region in zip(message.detections, found, strict=True):
        detection.results[0].hypothesis.score = region.probability
    return message


def _annotations(perception: Perception) -> Any:
    """Return the boxes and labels for Foxglove to draw over the image."""
    types = typestore().types
    stamp = header_of(perception.stamp_ns, "").stamp
    outlines, texts = [], []
    for region in perception.regions:
        if region.box is not None:
            outlines.append(_outline(region.box, stamp))
        texts.append(_text(region, stamp))
    return types["foxglove_msgs/msg/ImageAnnotations"](circles=[], points=outlines, texts=texts)


def _outline(box: tuple[float, float, float, float], stamp: Any) -> Any:
    types = typestore().types
    point, annotation = (
        types["foxglove_msgs/msg/Point2"],
        types["foxglove_msgs/msg/PointsAnnotation"],
    )
    x_min, y_min, x_max, y_max = box
    corners = ((x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max))
    return annotation(
        timestamp=stamp,
        type=2,  # LINE_LOOP
        points=[point(x=x, y=y) for x, y in corners],
        outline_color=_colour(_GREEN),
        outline_colors=[],
        fill_color=_colour(_NOTHING),
        thickness=2.0,
    )


def _text(region: RegionResult, stamp: Any) -> Any:
    types = typestore().types
    x, y = (0.0, _FONT_SIZE) if region.box is None else (region.box[0], region.box[1])
    return types["foxglove_msgs/msg/TextAnnotation"](
        timestamp=stamp,
        position=types["foxglove_msgs/msg/Point2"](x=x, y=y),
        text=f"{region.label} {region.probability:.0%}",
        font_size=_FONT_SIZE,
        text_color=_colour(_WHITE),
        background_color=_colour(_SHADE),
    )


@cache
def _colour(colour: tuple[float, float, float, float]) -> Any:
    red, green, blue, opacity = colour
    return typestore().types["foxglove_msgs/msg/Color"](r=red, g=green, b=blue, a=opacity)


def _label_info(perception: Perception, labels: tuple[str, ...]) -> Any:
    types = typestore().types
    entry = types["vision_msgs/msg/VisionClass"]
    return types["vision_msgs/msg/LabelInfo"](
        header=header_of(perception.stamp_ns, perception.frame_id),
        class_map=[entry(class_id=index, class_name=name) for index, name in enumerate(labels)],
        threshold=0.0,
    )


def _diagnostics(accounting: Accounting, tasks: Sequence[TaskStatus], now_ns: int) -> Any:
    types = typestore().types
    status, key_value = (
        types["diagnostic_msgs/msg/DiagnosticStatus"],
        types["diagnostic_msgs/msg/KeyValue"],
    )
    statuses = []
    for topic, counts in accounting.topics.items():
        values = {"received": counts.received, "published": counts.published}
        values |= {f"dropped_{reason.value}": count for reason, count in counts.dropped.items()}
        dropped = sum(counts.dropped.values())
        statuses.append(
            status(
                level=1 if dropped else 0,  # WARN, OK
                name=f"qpde replay: {topic}",
                message=f"{dropped} frames dropped" if dropped else "every frame published",
                hardware_id=topic,
                values=[key_value(key=key, value=str(value)) for key, value in values.items()],
            )
        )
    statuses += [
        status(
            level=int(task.level),
            name=f"qpde replay: {task.name}",
            message=task.message,
            hardware_id="qpde replay",
            values=[key_value(key=key, value=value) for key, value in task.values.items()],
        )
        for task in tasks
    ]
    return types["diagnostic_msgs/msg/DiagnosticArray"](
        header=header_of(now_ns, ""), status=statuses
    )
