"""`qpde ros demo`: three nodes over real ROS 2, started by one command."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from qpde_perception.cli.main import run
from qpde_perception.cli.nodes import own_domain

needs_ros = pytest.mark.skipif(
    find_spec("rclpy") is None or find_spec("vision_msgs") is None,
    reason="rclpy or vision_msgs is not installed",
)


@needs_ros
def test_the_demo_classifies_the_sample_drive_and_ends_all_its_processes():
    command = [sys.executable, "-m", "qpde_perception.cli.main", "ros", "demo"]
    with own_domain() as domain:
        demo = subprocess.Popen(
            [*command, "--rate", "10", "--domain", str(domain), "--seconds", "15"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "200"},
            start_new_session=True,
        )
        out, err = demo.communicate(timeout=100)
    assert demo.returncode == 0, err
    with pytest.raises(ProcessLookupError):  # nobody is left of its process group
        os.killpg(demo.pid, 0)
    assert "Traceback" not in err
    assert "Speed limit (" in out
    assert "onnxruntime" in out


@needs_ros
def test_a_camera_that_the_drive_lacks_is_refused_before_anything_starts(capsys):
    assert run(["ros", "demo", "--camera", "/nowhere"]) == 2
    assert "/nowhere: the drive has no such topic" in capsys.readouterr().err


@needs_ros
def test_a_model_that_does_not_exist_is_refused_before_anything_starts(capsys):
    assert run(["ros", "demo", "--model", "nothing"]) == 2
    assert "no model 'nothing'" in capsys.readouterr().err
