"""Drives, models and calls of the command for the tests of the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from call import Call

from qpde_perception.bags import McapWriter
from qpde_perception.bags.definitions import typestore
from qpde_perception.bags.messages import header_of
from qpde_perception.cli.main import run

ROOT = Path(__file__).parents[2]
START_NS = 1_600_000_000_000_000_000
CAMERA = "/camera/front/image/compressed"


@pytest.fixture
def qpde(capfd):
    """Call the command in this process."""

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Call(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def command():
    """The command as a process is started with it."""
    return [sys.executable, "-m", "qpde_perception.cli.main"]


@pytest.fixture(scope="session")
def sample():
    return ROOT / "samples" / "traffic_signs.mcap"


@pytest.fixture(scope="session")
def model():
    return ROOT / "models" / "traffic_signs"


@pytest.fixture(scope="session")
def replayed(sample, command, tmp_path_factory):
    """The shipped sample, replayed once: the folder and the call."""
    out = tmp_path_factory.mktemp("replayed") / "out"
    done = subprocess.run(
        [*command, "replay", sample, "--out", out, "--json"],
        check=False,
        capture_output=True,
        text=True,
    )
    return out, Call(done.returncode, done.stdout, done.stderr)


def jpeg(height=48, width=64):
    noise = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", noise)[1].tobytes()


@pytest.fixture(scope="session")
def make_frames():
    """Write a drive of one camera from the bytes of its frames, ten a second."""

    def make(path, frames):
        message = typestore().types["sensor_msgs/msg/CompressedImage"]
        with McapWriter(path) as writer:
            for index, data in enumerate(frames):
                stamp = START_NS + index * 100_000_000
                content = np.frombuffer(data, np.uint8)
                image = message(header=header_of(stamp, "front"), format="jpeg", data=content)
                writer.write(CAMERA, image, stamp)
        return path

    return make


@pytest.fixture(scope="session")
def short_drive(make_frames, tmp_path_factory):
    """Five frames."""
    return make_frames(tmp_path_factory.mktemp("short") / "drive.mcap", [jpeg()] * 5)


@pytest.fixture(scope="session")
def long_drive(make_frames, tmp_path_factory):
    """Enough frames to be interrupted in the middle."""
    return make_frames(tmp_path_factory.mktemp("long") / "drive.mcap", [jpeg(480, 640)] * 600)
