"""Replay: a recorded drive in, one outcome per camera frame out, the same every time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpde_perception.bags.messages import camera_frame, labels_of, regions_of, stamp_of
from qpde_perception.bags.pairing import Pairing
from qpde_perception.engines import EngineError
from qpde_perception.frames import FrameError
from qpde_perception.monitoring import Accounting, DropReason
from qpde_perception.perception import DEFAULT_LIMITS, Pipeline, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import TypeAlias

    from qpde_perception.bags.cameras import Camera
    from qpde_perception.bags.drive import Drive, RecordedMessage
    from qpde_perception.bags.messages import Labels
    from qpde_perception.bags.pairing import Paired
    from qpde_perception.frames import CameraFrame
    from qpde_perception.perception import Classifier, Limits, Perception

    _Event: TypeAlias = "Camera | Truth | _Due | None"

# Messages that lead to no frame must not pile up behind one that waits.
_MAX_EVENTS = 4096


@dataclass(frozen=True, slots=True)
class Published:
    """A frame with its result."""

    camera: Camera
    recorded: RecordedMessage
    frame: CameraFrame
    perception: Perception


@dataclass(frozen=True, slots=True)
class Dropped:
    """A frame without a result; `fault` says in words why."""

    camera: Camera
    recorded: RecordedMessage
    stamp_ns: int
    reason: DropReason
    fault: str


@dataclass(frozen=True, slots=True)
class Truth:
    """The true classes of one frame, which may come before or after its outcome."""

    camera: Camera
    stamp_ns: int
    labels: Labels


@dataclass(frozen=True, slots=True)
class _Due:
    """A frame whose turn to be classified has come."""

    paired: Paired
    frame: CameraFrame


def replay(
    drive: Drive,
    classifiers: Mapping[Camera, Classifier],
    accounting: Accounting,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Published | Dropped | Truth]:
    """Classify the camera frames of a drive, in recorded order.

    Every frame received ends in exactly one `Published` or `Dropped`. Frames are read, decoded and
    inferred ahead of the one that is yielded, which decides nothing: equal input gives equal
    outcomes, and equal counts with each of them, the measured durations aside. Read and yielded is
    in the thread of who iterates.

    Args:
        drive: The drive; what could not be read of it stands in its `losses` afterwards.
        classifiers: One classifier per camera.
        accounting: Counts every frame received, and how it ended.
        start_s: Where to start, seconds after the start of the drive.
        duration_s: How much of it to use, seconds; None for all.
        stopped: Asked after the outcomes of each message; once true, only frames already received
            are finished.
        limits: How far to run ahead.

    Raises:
        BagError: If a topic of a camera does not exist.
    """
    open_frames, going = 0, True
    with Pipeline(limits) as pipeline:
        events = _events(drive, tuple(classifiers), start_s, duration_s)
        for event in _ahead(events, pipeline, classifiers):
            if isinstance(event, _Due):
                open_frames -= 1
                yield _outcome(event, pipeline, accounting)
            elif event is None:
                going = going and not stopped()
            elif not going:
                continue  # what was read ahead of the wish to stop
            elif isinstance(event, Truth):
                yield event
            else:
                accounting.received(event.topic)
                open_frames += 1
            if not going and not open_frames:
                return


def _events(
    drive: Drive, cameras: Collection[Camera], start_s: float, duration_s: float | None
) -> Iterator[_Event]:
    """Yield what happens in a drive, message after message."""
    pairing = Pairing()
    topics = {
        topic
        for camera in cameras
        for topic in (camera.topic, camera.regions_topic, camera.truth_topic)
        if topic is not None
    }
    for recorded in drive.messages(topics, start_s=start_s, duration_s=duration_s):
        # One topic may serve several cameras, and boxes with classes may serve as regions.
        for camera in cameras:
            if recorded.topic == camera.topic:
                yield camera
                pairing.add_frame(camera, recorded, stamp_of(recorded.message))
            if recorded.topic == camera.regions_topic:
                pairing.add_regions(camera, *regions_of(recorded))
            if recorded.topic == camera.truth_topic:
                yield Truth(camera, *labels_of(recorded))
        for paired in pairing.ready(recorded.log_time_ns):
            yield _Due(paired, camera_frame(paired.recorded))
        yield None
    for paired in pairing.rest():
        yield _Due(paired, camera_frame(paired.recorded))


def _ahead(
    events: Iterator[_Event], pipeline: Pipeline, classifiers: Mapping[Camera, Classifier]
) -> Iterator[_Event]:
    """Yield the events late, each frame when it is due to be taken from the pipeline."""
    waiting: deque[_Event] = deque()
    failure = None
    try:
        for event in events:
            if isinstance(event, _Due):
                classifier = classifiers[event.paired.camera]
                pipeline.put(Request(classifier, event.frame, event.paired.regions))
            waiting.append(event)
            while pipeline.full or len(waiting) > _MAX_EVENTS:
                yield waiting.popleft()
    except Exception as error:  # noqa: BLE001  (it is raised after the events before it)
        failure = error
    while waiting:
        yield waiting.popleft()
    if failure is not None:
        raise failure


def _outcome(due: _Due, pipeline: Pipeline, accounting: Accounting) -> Published | Dropped:
    camera, recorded = due.paired.camera, due.paired.recorded
    try:
        perception = pipeline.take()
    except FrameError as error:
        reason, fault = DropReason.MALFORMED, str(error)
    except EngineError as error:
        reason, fault = DropReason.ENGINE_DOWN, str(error)
    else:
        accounting.published(camera.topic)
        return Published(camera, recorded, due.frame, perception)
    accounting.dropped(camera.topic, reason)
    return Dropped(camera, recorded, due.paired.stamp_ns, reason, fault)
