"""`qpde ros demo`: three nodes over real ROS 2, started by one command."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from qpde_perception.cli.main import run

needs_ros = pytest.mark.skipif(
    find_spec("rclpy") is None or find_spec("vision_msgs") is None,
    reason="rclpy or vision_msgs is not installed",
)


@needs_ros
def test_the_demo_classifies_the_sample_drive_and_ends_all_its_processes():
    domain = str(100 + os.getpid() % 100)
    command = [sys.executable, "-m", "qpde_perception.cli.main", "ros", "demo"]
    demo = subprocess.run(
        [*command, "--rate", "10", "--domain", domain, "--seconds", "20"],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"COLUMNS": "200"},
        start_new_session=True,
    )
    assert demo.returncode == 0, demo.stderr
    assert "Traceback" not in demo.stderr
    assert "Speed limit (" in demo.stdout
    assert "onnxruntime" in demo.stdout


@needs_ros
def test_a_camera_that_the_drive_lacks_is_refused_before_anything_starts(capsys):
    assert run(["ros", "demo", "--camera", "/nowhere"]) == 2
    assert "/nowhere: the drive has no such topic" in capsys.readouterr().err


@needs_ros
def test_a_model_that_does_not_exist_is_refused_before_anything_starts(capsys):
    assert run(["ros", "demo", "--model", "nothing"]) == 2
    assert "no model 'nothing'" in capsys.readouterr().err
