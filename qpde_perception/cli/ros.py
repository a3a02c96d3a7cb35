"""`qpde ros`: the nodes, started together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qpde_perception.bags import open_drive
from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bags.definitions import COMPRESSED_IMAGE
from qpde_perception.bundles import find_model
from qpde_perception.bundles.shelf import shared_folders
from qpde_perception.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(add_completion=False, no_args_is_help=True)

_SAMPLE = "traffic_signs.mcap"
_ENDING_S = 10.0

DrivePath = Annotated[
    Path | None, typer.Argument(help="A recorded drive; the sample drive where left out.")
]
CameraTopic = Annotated[
    str | None, typer.Option(help="Its image topic; the first where left out.", metavar="TOPIC")
]
Model = Annotated[str | None, typer.Option(help="A model's name, or the folder of a bundle.")]
Rate = Annotated[float, typer.Option(min=0.01, help="How many times faster than recorded.")]
Loop = Annotated[bool, typer.Option(help="Begin again at the end of the drive.")]
Domain = Annotated[
    int, typer.Option(min=0, max=232, help="ROS domain; this machine alone hears it.")
]
Seconds = Annotated[
    float | None, typer.Option(min=0.0, help="How long to run; until interrupted where left out.")
]


@app.callback()
def _ros() -> None:
    """Run the ROS 2 nodes without any other ROS tool."""


@app.command()
def demo(
    drive: DrivePath = None,
    *,
    camera: CameraTopic = None,
    model: Model = None,
    rate: Rate = 1.0,
    loop: Loop = True,
    domain: Domain = 87,
    seconds: Seconds = None,
) -> None:
    """Play a drive, classify it, and show a dashboard: three nodes over real ROS 2, one command.

    They talk on this machine only, on a ROS domain of their own.
    """
    if find_spec("rclpy") is None or find_spec("ros2_nodes") is None:
        msg = 'ROS 2 is missing: source a ROS 2 installation, or: pip install -e ".[ros]"'
        raise CommandError(msg)
    if find_spec("vision_msgs") is None:
        msg = "vision_msgs is missing: python -m ros2_nodes.interfaces builds it, once"
        raise CommandError(msg)
    path = drive or _sample()
    with open_drive(path) as opened:
        chosen = cameras_of(opened.topics, [camera] if camera else ())[0]
        kinds = {topic.name: topic.type for topic in opened.topics}
    compressed = kinds[chosen.topic] == COMPRESSED_IMAGE
    topic = chosen.topic.removesuffix("/compressed") if compressed else chosen.topic
    regions = chosen.regions_topic
    classify = {
        "model": str(find_model(model)),
        "image_transport": "compressed" if compressed else "raw",
        "regions": "topic" if regions else "whole_frame",
        "filter": "exponential",
    }
    remaps = [f"~/input/image:={topic}", *([f"~/input/regions:={regions}"] if regions else [])]
    play = {
        "drive": str(path),
        "rate": str(float(rate)),
        "loop": str(loop).lower(),
        "publish_clock": "true",
        "wait_for_subscribers": f"['{chosen.topic}']",
    }
    environment = os.environ | {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOCALHOST_ONLY": "1",  # the same for Humble
    }
    with ExitStack() as stack:
        stack.enter_context(_node("classifier_node", classify, environment, remaps, simulated=True))
        stack.enter_context(_node("bag_player_node", play, environment))
        shown = stack.enter_context(_node("dashboard", {}, environment, quiet=False))
        try:
            shown.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return
    if shown.returncode:
        raise typer.Exit(1)


def _sample() -> Path:
    for folder in shared_folders("samples"):
        if (folder / _SAMPLE).is_file():
            return folder / _SAMPLE
    msg = "the sample drive is not here; name a drive"
    raise CommandError(msg)


@contextmanager
def _node(
    module: str,
    parameters: dict[str, str],
    environment: dict[str, str],
    remaps: list[str] | None = None,
    *,
    simulated: bool = False,
    quiet: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node in a process of its own while the block runs."""
    given = parameters | ({"use_sim_time": "true"} if simulated else {})
    options = [part for name, value in given.items() for part in ("-p", f"{name}:={value}")]
    options += [part for remap in remaps or [] for part in ("-r", remap)]
    if quiet:
        options += ["--log-level", "error"]
    command = [sys.executable, "-m", f"ros2_nodes.{module}", "--ros-args", *options]
    process = subprocess.Popen(command, env=environment)  # noqa: S603
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=_ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
