"""Replay: a recorded drive in, one outcome per camera frame out, the same every time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpde_perception.bags.messages import camera_frame, labels_of, regions_of, stamp_of
from qpde_perception.bags.pairing import Paired, Pairing
from qpde_perception.engines import EngineError
from qpde_perception.frames import FrameError
from qpde_perception.monitoring import Accounting, DropReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from qpde_perception.bags.cameras import Camera
    from qpde_perception.bags.drive import Drive, RecordedMessage
    from qpde_perception.bags.messages import Labels
    from qpde_perception.frames import CameraFrame
    from qpde_perception.perception import Classifier, Perception


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


def replay(
    drive: Drive,
    classifiers: Mapping[Camera, Classifier],
    accounting: Accounting,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Published | Dropped | Truth]:
    """Classify the camera frames of a drive, in recorded order.

    Every frame read ends in exactly one `Published` or `Dropped`. There are no threads and no
    clocks in what decides: equal input gives equal outcomes, the measured durations aside.

    Args:
        drive: The drive; what could not be read of it stands in its `losses` afterwards.
        classifiers: One classifier per camera.
        accounting: Counts every frame read, and how it ended.
        start_s: Where to start, seconds after the start of the drive.
        duration_s: How much of it to use, seconds; None for all.
        stopped: Asked after each message; once true, no further message is read.

    Raises:
        BagError: If a topic of a camera does not exist.
    """
    pairing = Pairing()
    topics = {
        topic
        for camera in classifiers
        for topic in (camera.topic, camera.regions_topic, camera.truth_topic)
        if topic is not None
    }
    for recorded in drive.messages(topics, start_s=start_s, duration_s=duration_s):
        # One topic may serve several cameras, and boxes with classes may serve as regions.
        for camera in classifiers:
            if recorded.topic == camera.topic:
                accounting.received(camera.topic)
                pairing.add_frame(camera, recorded, stamp_of(recorded.message))
            if recorded.topic == camera.regions_topic:
                pairing.add_regions(camera, *regions_of(recorded))
            if recorded.topic == camera.truth_topic:
                yield Truth(camera, *labels_of(recorded))
        for paired in pairing.ready(recorded.log_time_ns):
            yield _classify(paired, classifiers[paired.camera], accounting)
        if stopped():
            break
    for paired in pairing.rest():
        yield _classify(paired, classifiers[paired.camera], accounting)


def _classify(
    paired: Paired, classifier: Classifier, accounting: Accounting
) -> Published | Dropped:
    camera, recorded = paired.camera, paired.recorded
    try:
        frame = camera_frame(recorded)
        perception = classifier.classify(frame, paired.regions)
    except FrameError as error:
        reason, fault = DropReason.MALFORMED, str(error)
    except EngineError as error:
        reason, fault = DropReason.ENGINE_DOWN, str(error)
    else:
        accounting.published(camera.topic)
        return Published(camera, recorded, frame, perception)
    accounting.dropped(camera.topic, reason)
    return Dropped(camera, recorded, paired.stamp_ns, reason, fault)
