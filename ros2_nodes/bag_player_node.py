"""Plays a recorded drive: rosbag1, rosbag2, MCAP or SQLite, also a damaged one.

    python -m ros2_nodes.bag_player_node --ros-args -p drive:=FILE_OR_FOLDER -p rate:=2.0

Messages go out byte for byte as ROS 2 recorded them, those of ROS 1 converted. Pacing does not
drift, whatever the rate. There is no rate at which the player waits for slow subscribers: the
middleware does not tell when they have taken a message. Who must not lose one steps.

Topics are offered as they were recorded, where the recording tells; parameters such as
`qos_overrides./camera/image.publisher.reliability` change that.

Services: `~/pause` (std_srvs/SetBool, true pauses and false resumes) and `~/step`
(std_srvs/Trigger, lets one message out while paused).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool, Trigger

from qpde_perception.bags import (
    BagError,
    Playback,
    Prefetch,
    Tick,
    at_rate,
    first_frames,
    latched_before,
    open_drive,
    stamp_in,
)
from qpde_perception.bags.messages import CAMERA_TYPES
from ros2_nodes.declarations import Declaration, declare
from ros2_nodes.process import report, run, spinning
from ros2_nodes.recorded_topics import RecordedTopics

if TYPE_CHECKING:
    from rclpy.publisher import Publisher

    from qpde_perception.bags import SerializedMessage, TopicInfo

NAME = "bag_player"
DECLARATIONS = (
    Declaration("drive", "", "The recording: a file, or the folder of a rosbag2."),
    Declaration(
        "rate",
        1.0,
        "How many times faster than recorded.",
        minimum=0.001,
        maximum=1000.0,
    ),
    Declaration("loop", False, "Whether to begin again at the end; stamps then jump back."),
    Declaration(
        "start_offset_s",
        0.0,
        "Where to start, seconds after the start of the drive. Of latched topics the last messages "
        "before it are sent at once.",
        minimum=0.0,
        maximum=1e9,
    ),
    Declaration("topics", (), "The topics to play; empty for all."),
    Declaration("publish_clock", False, "Whether to publish the drive's time on /clock."),
    Declaration(
        "clock_hz",
        40.0,
        "How often /clock ticks between messages, per second; it ticks with each message as well.",
        minimum=0.1,
        maximum=1000.0,
    ),
    Declaration("wait_for_subscribers", (), "Topics that must have a subscriber before it starts."),
    Declaration("start_paused", False, "Whether to wait for ~/pause or ~/step at the start."),
    Declaration(
        "restamp",
        "none",
        "What happens to the stamp of the header that a message begins with: nothing, or the time "
        "of sending; messages of one recorded stamp get the same.",
        choices=("none", "now"),
    ),
    Declaration(
        "frame_rate_hz",
        0.0,
        "Frames per second, in place of the recorded times: the first 100 images of the one camera "
        "among the topics, over and over, each with the messages of its stamp; 0 as recorded.",
        minimum=0.0,
        maximum=10_000.0,
    ),
    Declaration("frame_count", 0, "Frames to send at frame_rate_hz; 0 for no end.", minimum=0),
    Declaration(
        "sent_file",
        "",
        "Where to write, when all are sent, their stamps as a JSON list, nanoseconds; empty for "
        "nowhere; with frame_rate_hz.",
    ),
)
# Messages read ahead: enough for a disk that stutters, few enough for large raw images.
_AHEAD = 8
_FRAMES = 100


@dataclass(frozen=True, slots=True)
class Settings:
    """The parameters; see `DECLARATIONS`."""

    drive: str
    rate: float
    loop: bool
    start_offset_s: float
    topics: tuple[str, ...]
    publish_clock: bool
    clock_hz: float
    wait_for_subscribers: tuple[str, ...]
    start_paused: bool
    restamp: str
    frame_rate_hz: float
    frame_count: int
    sent_file: str


class BagPlayer(Node):
    """The node.

    Raises:
        BagError: If the drive cannot be read, or none of its topics can be played.
        DeclarationError: If a parameter is wrong.
    """

    def __init__(self) -> None:
        super().__init__(NAME)
        self._settings = settings = Settings(**declare(self, DECLARATIONS))
        if not settings.drive:
            msg = "no drive is named; add --ros-args -p drive:=FILE_OR_FOLDER"
            raise BagError(msg)
        self._drive = open_drive(Path(settings.drive))
        if self._drive.log_time_at(settings.start_offset_s) > self._drive.end_ns:
            msg = f"parameter start_offset_s: the drive ends before {settings.start_offset_s} s"
            raise BagError(msg)
        self._playback = Playback(
            1.0 if settings.frame_rate_hz else settings.rate,
            tick_hz=settings.clock_hz if settings.publish_clock else 0.0,
            paused=settings.start_paused,
        )
        self._topics = RecordedTopics(
            self,
            self._drive,
            restamp=settings.restamp == "now",
            stopped=lambda: self._playback.stopped,
        )
        self._clock_publisher: Publisher[Any] | None = None
        if settings.publish_clock:
            self._clock_publisher = self.create_publisher(Clock, "/clock", QoSProfile(depth=1))
        for topic in self._wanted():
            if topic.name == "/clock" and settings.publish_clock:
                self.get_logger().warning("/clock of the drive is left out; publish_clock is on")
            else:
                self._topics.offer(topic)
        if not self._topics.names:
            msg = f"{settings.drive}: there is nothing in it to play; see the warnings"
            raise BagError(msg)
        for name in set(settings.wait_for_subscribers) - self._topics.names:
            msg = f"parameter wait_for_subscribers: {name} is not played"
            raise BagError(msg)
        self._camera = self._single_camera() if settings.frame_rate_hz else ""
        self._sent_stamps: list[int] = []
        self.context.on_shutdown(self._playback.stop)
        self.create_service(SetBool, "~/pause", self._pause)
        self.create_service(Trigger, "~/step", self._step)

    def play(self) -> None:
        """Play until the end, or until ROS is shut down, and log what was sent."""
        try:
            self._topics.wait_for_subscribers(self._settings.wait_for_subscribers)
            if self._camera:
                self._play_at_rate()
            else:
                self._play_once()
            while self._settings.loop and not self._camera and not self._playback.stopped:
                self._play_once()
            if not self._playback.stopped:
                self._topics.wait_for_receipts()
        finally:
            for line in self._drive.losses:
                report(self, f"not readable: {line}", warning=True)
            for topic in self._topics.names:
                report(self, f"sent {self._topics.sent[topic]} on {topic}")
            self._drive.close()

    def _wanted(self) -> list[TopicInfo]:
        there = {topic.name: topic for topic in self._drive.topics}
        if missing := sorted(set(self._settings.topics) - set(there)):
            msg = f"no topic {', '.join(missing)}; the drive has: {', '.join(there) or 'none'}"
            raise BagError(msg)
        return [there[name] for name in dict.fromkeys(self._settings.topics or there)]

    def _single_camera(self) -> str:
        """Return the topic whose messages are sent at a rate."""
        if self._settings.publish_clock:
            msg = "parameter frame_rate_hz: the drive's time stands still; leave out publish_clock"
            raise BagError(msg)
        kinds = {topic.name: topic.type for topic in self._drive.topics}
        cameras = [name for name in self._topics.names if kinds[name] in CAMERA_TYPES]
        if len(cameras) != 1:
            msg = f"parameter frame_rate_hz: name one camera in topics, not {len(cameras)}: "
            raise BagError(msg + (", ".join(cameras) or "none is played"))
        return cameras[0]

    def _play_once(self) -> None:
        start_s = self._settings.start_offset_s
        start_ns = self._drive.log_time_at(start_s)
        for latched in latched_before(self._drive, self._topics.names, start_s):
            self._publish(latched)
        messages = self._drive.serialized(self._topics.names, start_s=start_s)
        with Prefetch(messages, _AHEAD) as ahead:
            for event in self._playback.play(ahead, start_ns):
                if isinstance(event, Tick):
                    self._publish_clock(event.position_ns)
                else:
                    self._publish_clock(event.log_time_ns)
                    self._publish(event)

    def _play_at_rate(self) -> None:
        settings = self._settings
        recorded = self._drive.serialized(self._topics.stamped, start_s=settings.start_offset_s)
        frames = first_frames(recorded, self._camera, _FRAMES)
        if not frames:
            msg = f"{settings.drive}: no image on {self._camera} can be read"
            raise BagError(msg)
        try:
            messages = at_rate(frames, settings.frame_rate_hz, settings.frame_count)
            for event in self._playback.play(messages, 0):
                if not isinstance(event, Tick):
                    self._publish(event)
        finally:
            if settings.sent_file:
                part = Path(f"{settings.sent_file}.part")
                part.write_text(json.dumps(self._sent_stamps), encoding="utf-8")
                part.replace(settings.sent_file)  # who waits for it never sees half of it

    def _publish(self, message: SerializedMessage) -> None:
        sent = self._topics.publish(message)
        if message.topic == self._camera:
            self._sent_stamps.append(stamp_in(sent))

    def _publish_clock(self, position_ns: int) -> None:
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=Time(nanoseconds=position_ns).to_msg()))

    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data:
            self._playback.pause()
        else:
            self._playback.resume()
        response.success = True
        response.message = "paused" if request.data else "playing"
        return response

    def _step(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._playback.step()
        response.message = "" if response.success else "not paused; call ~/pause first"
        return response


def _play() -> None:
    node = BagPlayer()
    with spinning(node):
        node.play()


def main() -> int:
    """Play a drive, and return the exit code of the process."""
    return run(NAME, _play)


if __name__ == "__main__":
    sys.exit(main())
