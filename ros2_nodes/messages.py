"""From perceptions to ROS messages; each carries the header of its image, untouched."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, Header
from vision_msgs.msg import (
    Classification,
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    VisionClass,
    VisionInfo,
)

from qpde_perception.perception.drawing import draw

try:
    from autoware_internal_debug_msgs.msg import Float64Stamped

    Number: Any = Float64Stamped
except ImportError:
    Number = Float64

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from builtin_interfaces.msg import Time
    from numpy.typing import NDArray

    from qpde_perception.frames import CameraFrame
    from qpde_perception.monitoring import TaskStatus
    from qpde_perception.perception import Perception, RegionResult

DATABASE_VERSION = 1


class ResultWriter:
    """Writes results, each with its best classes."""

    def __init__(self, labels: Sequence[str], *, top_k: int, threshold: float) -> None:
        """Prepare.

        Args:
            labels: Names of the classes.
            top_k: Classes in a result at most.
            threshold: Classes with a lower score are left out.
        """
        self._labels, self._top_k, self._threshold = tuple(labels), top_k, threshold

    def classification(self, header: Header, perception: Perception, *, raw: bool) -> Any:
        """Return a `Classification` of a whole frame, as filtered over time or as seen in it."""
        (region,) = perception.regions
        return Classification(header=header, results=self._hypotheses(region, raw=raw))

    def detections(self, header: Header, perception: Perception, *, raw: bool) -> Any:
        """Return a `Detection2DArray` with the classes filled in."""
        found = []
        for region in perception.regions:
            detection = Detection2D(header=header, id=region.track_id)
            x_min, y_min, x_max, y_max = region.box or (0.0, 0.0, 0.0, 0.0)
            detection.bbox.center.position.x = (x_min + x_max) / 2
            detection.bbox.center.position.y = (y_min + y_max) / 2
            detection.bbox.size_x, detection.bbox.size_y = x_max - x_min, y_max - y_min
            detection.results = [
                ObjectHypothesisWithPose(hypothesis=each)
                for each in self._hypotheses(region, raw=raw)
            ]
            found.append(detection)
        return Detection2DArray(header=header, detections=found)

    def overlay(self, header: Header, frame: CameraFrame, perception: Perception) -> Any:
        """Return the image with boxes and classes drawn on it, bgr8.

        Raises:
            FrameError: If the frame cannot be decoded.
        """
        drawn = draw(frame, perception, self._labels)
        height, width, channels = drawn.shape
        return Image(
            header=header,
            height=height,
            width=width,
            encoding="bgr8",
            step=width * channels,
            data=array("B", drawn.tobytes()),
        )

    def _hypotheses(self, region: RegionResult, *, raw: bool) -> list[Any]:
        scores = region.probabilities if raw else region.filtered_probabilities
        best = region.class_index if raw else region.filtered_class_index
        return [
            ObjectHypothesis(class_id=str(index), score=float(scores[index]))
            for index in _ranking(scores, best)[: self._top_k]
            if scores[index] >= self._threshold
        ]


def _ranking(scores: NDArray[np.float64], best: int) -> list[int]:
    """Return the classes, the result's own first, even where a filter holds another's lead off."""
    # Not NumPy's argsort, which lets another thread go first even for a few numbers.
    values = scores.tolist()
    order = sorted(range(len(values)), key=values.__getitem__, reverse=True)
    order.remove(best)
    return [best, *order]


def label_info(stamp: Time, labels: Sequence[str], threshold: float) -> Any:
    """Return the names behind the `class_id` of results; `str(class_id)` joins them."""
    classes = [VisionClass(class_id=index, class_name=name) for index, name in enumerate(labels)]
    return LabelInfo(header=Header(stamp=stamp), class_map=classes, threshold=threshold)


def vision_info(stamp: Time, method: str, parameter: str) -> Any:
    """Return what classifies, and the parameter that holds the names of its classes."""
    return VisionInfo(
        header=Header(stamp=stamp),
        method=method,
        database_location=parameter,
        database_version=DATABASE_VERSION,
    )


def number(stamp: Time, value: float) -> Any:
    """Return a value as Autoware's stamped number where that package is, else as a number."""
    if Number is Float64:
        return Float64(data=value)
    return Number(stamp=stamp, data=value)


def diagnostics(stamp: Time, name: str, tasks: Sequence[TaskStatus]) -> Any:
    """Return what the tasks of a node say; its own name is the hardware's, as in Autoware."""
    return DiagnosticArray(
        header=Header(stamp=stamp),
        status=[
            DiagnosticStatus(
                level=bytes([task.level]),
                name=f"{name}: {task.name}",
                message=task.message,
                hardware_id=name,
                values=[KeyValue(key=key, value=value) for key, value in task.values.items()],
            )
            for task in tasks
        ],
    )
