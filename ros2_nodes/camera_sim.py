"""A camera that is not there, for tests and demonstrations: `camera_0/image_raw` and so on.

    python -m ros2_nodes.camera_sim --ros-args -p rate_hz:=30.0 -p transport:=compressed

Pictures come from a folder, a video or a recorded drive, or are a moving pattern. All cameras send
at the same time, with the same stamp: now, by the clock of the node.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from qpde_perception.bags import ENCODINGS, BagError, Faults, simulated_camera, with_faults
from ros2_nodes.declarations import Declaration, declare
from ros2_nodes.process import report, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpde_perception.frames import CameraFrame

NAME = "camera_sim"
RELIABLE = QoSProfile(depth=5)  # as REP-2003 publishes sensor data
DECLARATIONS = (
    Declaration(
        "source", "", "A folder of images, a video or a recorded drive; empty for a pattern."
    ),
    Declaration("rate_hz", 30.0, "Frames per second.", minimum=0.01, maximum=1000.0),
    Declaration("width", 0, "Columns, pixels; 0 for those of the source.", 0, 16384),
    Declaration("height", 0, "Rows, pixels; 0 for those of the source.", 0, 16384),
    Declaration(
        "transport",
        "raw",
        "Image on camera_N/image_raw, or CompressedImage on camera_N/image_raw/compressed.",
        choices=("raw", "compressed"),
    ),
    Declaration(
        "encoding",
        "",
        "What the bytes are; empty for bgr8, and for jpeg where it is compressed.",
        choices=("", *ENCODINGS),
    ),
    Declaration("frame_id", "camera", "The frame of camera N is called FRAME_ID_N."),
    Declaration("camera_count", 1, "Cameras.", minimum=1, maximum=64),
    Declaration("drop_share", 0.0, "Share of frames not sent.", minimum=0.0, maximum=1.0),
    Declaration("corrupt_share", 0.0, "Share of frames cut off.", minimum=0.0, maximum=1.0),
    Declaration("freeze_after", 0, "Frames until the picture stands; 0 for never.", minimum=0),
    Declaration(
        "delay_ms",
        0.0,
        "How old a frame is when it is sent: its stamp lies so far back.",
        minimum=0.0,
        maximum=60_000.0,
    ),
    Declaration("seed", 0, "Seed of the faults."),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The parameters; see `DECLARATIONS`."""

    source: str
    rate_hz: float
    width: int
    height: int
    transport: str
    encoding: str
    frame_id: str
    camera_count: int
    drop_share: float
    corrupt_share: float
    freeze_after: int
    delay_ms: float
    seed: int


class CameraSim(Node):
    """The node.

    Raises:
        BagError: If the source cannot be read, or the size or the encoding makes no sense.
        DeclarationError: If a parameter is wrong.
    """

    def __init__(self) -> None:
        super().__init__(NAME)
        settings = Settings(**declare(self, DECLARATIONS))
        if not settings.encoding:
            chosen = "bgr8" if settings.transport == "raw" else "jpeg"
            settings = replace(settings, encoding=chosen)
        _check(settings)
        self._settings = settings
        kind: Any = Image if settings.transport == "raw" else CompressedImage
        topic = "image_raw" if settings.transport == "raw" else "image_raw/compressed"
        self._age = Duration(nanoseconds=round(settings.delay_ms * 1e6))
        self._cameras = [_frames(settings, camera) for camera in range(settings.camera_count)]
        self._waiting = [next(frames) for frames in self._cameras]
        self._outputs = [
            self.create_publisher(kind, f"camera_{camera}/{topic}", RELIABLE)
            for camera in range(settings.camera_count)
        ]
        self._sent: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self.create_timer(1 / settings.rate_hz, self._send)

    def log_counts(self) -> None:
        """Log how many frames were sent, and how many were dropped on purpose."""
        for publisher in self._outputs:
            sent, dropped = self._sent[publisher.topic], self._dropped[publisher.topic]
            topic = self.resolve_topic_name(publisher.topic)
            report(self, f"sent {sent} on {topic}, dropped {dropped}")

    def _send(self) -> None:
        stamp = (self.get_clock().now() - self._age).to_msg()
        for camera, publisher in enumerate(self._outputs):
            frame = self._waiting[camera]
            if frame is None:
                self._dropped[publisher.topic] += 1
                continue
            name = f"{self._settings.frame_id}_{camera}"
            publisher.publish(_message(frame, Header(stamp=stamp, frame_id=name)))
            self._sent[publisher.topic] += 1
        # After sending, so that making pictures does not delay them.
        self._waiting = [next(frames) for frames in self._cameras]


def _check(settings: Settings) -> None:
    is_file = settings.encoding in {"jpeg", "png"}
    if is_file != (settings.transport == "compressed"):
        msg = (
            f"parameter encoding: {settings.encoding} does not go with transport "
            f"{settings.transport}; compressed takes jpeg or png, raw takes the others"
        )
        raise BagError(msg)
    if (settings.width == 0) != (settings.height == 0):
        msg = f"parameters width and height: give both or none, not {settings.width} and "
        raise BagError(msg + str(settings.height))


def _frames(settings: Settings, camera: int) -> Iterator[CameraFrame | None]:
    frames = simulated_camera(
        Path(settings.source) if settings.source else None,
        settings.encoding,
        camera=camera,
        size=(settings.height, settings.width) if settings.width else None,
    )
    faults = Faults(
        settings.drop_share,
        settings.corrupt_share,
        settings.freeze_after,
        seed=settings.seed + camera,
    )
    return with_faults(frames, faults)


def _message(frame: CameraFrame, header: Any) -> Any:
    data = array("B")
    data.frombytes(frame.data)  # one copy; a list of numbers would be a hundred times slower
    if frame.is_compressed:
        return CompressedImage(header=header, format=frame.encoding, data=data)
    return Image(
        header=header,
        height=frame.height,
        width=frame.width,
        encoding=frame.encoding,
        step=frame.step,
        data=data,
    )


def _simulate() -> None:
    node = CameraSim()
    try:
        rclpy.spin(node)
    finally:
        node.log_counts()


def main() -> int:
    """Simulate cameras until ROS is shut down, and return the exit code of the process."""
    return run(NAME, _simulate)


if __name__ == "__main__":
    sys.exit(main())
