"""`qpde ros`: the nodes, started together."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from qpde_perception.bundles import find_model
from qpde_perception.cli.nodes import (
    demand_ros,
    ended_after,
    node_command,
    on_domain,
    played_camera,
)

app = typer.Typer(add_completion=False, no_args_is_help=True)

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
    demand_ros()
    played = played_camera(drive, camera)
    classify = {
        "model": str(find_model(model)),
        **played.parameters,
        "filter": "exponential",
        "use_sim_time": "true",
    }
    play = {
        "drive": str(played.drive),
        "rate": str(float(rate)),
        "loop": str(loop).lower(),
        "publish_clock": "true",
        "wait_for_subscribers": f"['{played.topic}']",
    }
    commands = (
        node_command("classifier_node", classify, played.remaps),
        node_command("bag_player_node", play),
        node_command("dashboard", {}, log_level=None),
    )
    environment = on_domain(domain)
    with ExitStack() as stack:
        for command in commands:
            process = subprocess.Popen(command, env=environment)  # noqa: S603
            shown = stack.enter_context(ended_after(process))
        try:
            shown.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return
    if shown.returncode:
        raise typer.Exit(1)
