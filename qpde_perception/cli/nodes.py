"""Starting the ROS 2 nodes as processes; nothing of ROS is imported here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from qpde_perception.bags import open_drive
from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bags.definitions import COMPRESSED_IMAGE
from qpde_perception.bundles.shelf import shared_folders
from qpde_perception.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SAMPLE = "traffic_signs.mcap"
_ENDING_S = 10.0
# Above that of the demo; from 102 on, the ports of a domain are among those that Linux hands out.
_OWN_DOMAINS = range(88, 102)


@dataclass(frozen=True, slots=True)
class PlayedCamera:
    """A camera of a drive, and how the classifier hears it.

    Attributes:
        drive: The drive.
        topic: The images.
        regions: The boxes; None where whole frames are classified.
        compressed: Whether they are compressed images.
    """

    drive: Path
    topic: str
    regions: str | None
    compressed: bool

    @property
    def topics(self) -> list[str]:
        """What must be played."""
        return [self.topic, *([self.regions] if self.regions else [])]

    @property
    def parameters(self) -> dict[str, str]:
        """The classifier's parameters for it."""
        return {
            "image_transport": "compressed" if self.compressed else "raw",
            "regions": "topic" if self.regions else "whole_frame",
        }

    @property
    def remaps(self) -> list[str]:
        """The classifier's topics for it."""
        image = self.topic.removesuffix("/compressed") if self.compressed else self.topic
        regions = [f"~/input/regions:={self.regions}"] if self.regions else []
        return [f"~/input/image:={image}", *regions]


def demand_ros() -> None:
    """Make sure that the nodes can be started.

    Raises:
        CommandError: If not, with the remedy.
    """
    if find_spec("rclpy") is None or find_spec("ros2_nodes") is None:
        msg = (
            'ROS 2 is missing: source a ROS 2 installation, or: pip install "qpde_perception[ros]"'
        )
        raise CommandError(msg)
    if find_spec("vision_msgs") is None:
        msg = "vision_msgs is missing: python -m ros2_nodes.interfaces builds it, once"
        raise CommandError(msg)


def played_camera(drive: Path | None, topic: str | None) -> PlayedCamera:
    """Choose a camera: the first of the sample drive where nothing is named.

    Raises:
        BagError: If the drive cannot be read, or has no such camera.
        CommandError: If the sample drive is not here.
    """
    path = drive or _sample()
    with open_drive(path) as opened:
        chosen = cameras_of(opened.topics, [topic] if topic else ())[0]
        kinds = {each.name: each.type for each in opened.topics}
    compressed = kinds[chosen.topic] == COMPRESSED_IMAGE
    return PlayedCamera(path, chosen.topic, chosen.regions_topic, compressed)


def _sample() -> Path:
    for folder in shared_folders("samples"):
        if (folder / _SAMPLE).is_file():
            return folder / _SAMPLE
    msg = "the sample drive is not here; name a drive"
    raise CommandError(msg)


@contextmanager
def own_domain() -> Iterator[int]:
    """Keep a ROS domain while the block lasts: nobody else who asks here gets it meanwhile.

    Raises:
        CommandError: If all of them are taken.
    """
    import fcntl  # noqa: PLC0415  (not on Windows, where only the nodes' verbs are missed)

    with ExitStack() as stack:
        for domain in _OWN_DOMAINS:
            path = Path(tempfile.gettempdir(), f"qpde-ros-domain-{domain}.lock")
            try:
                lock = stack.enter_context(path.open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # another command's, another user's
                continue
            yield domain
            return
    msg = f"all ROS domains from {_OWN_DOMAINS[0]} to {_OWN_DOMAINS[-1]} are in use here"
    raise CommandError(msg)


def on_domain(domain: int) -> dict[str, str]:
    """Return the environment of nodes that hear each other on this machine only."""
    return os.environ | {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOCALHOST_ONLY": "1",  # the same for Humble
    }


def node_command(
    module: str,
    parameters: Mapping[str, str],
    remaps: Sequence[str] = (),
    log_level: str | None = "error",
) -> list[str]:
    """Return the command that runs a node of ros2_nodes; values as YAML writes them."""
    options = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    options += [part for remap in remaps for part in ("-r", remap)]
    if log_level:
        options += ["--log-level", log_level]
    return [sys.executable, "-m", f"ros2_nodes.{module}", "--ros-args", *options]


@contextmanager
def ended_after(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Ask a node to end when the block ends, and make it."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=_ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
