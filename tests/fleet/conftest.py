"""Short drives cut out of the shipped one, and what one process makes of them."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from dataclasses import dataclass

import psutil
import pytest
from fleet_rig import SAMPLE, cut, here, kill, title, wait_for


@pytest.fixture(scope="session")
def ray():
    return pytest.importorskip("ray", reason='pip install "qpde_perception[fleet]" brings it')


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster of this machine alone."""

    pid: int
    address: str
    access: dict[str, str]


@pytest.fixture(scope="session")
def cluster(ray):
    """A cluster with two processors; joining it takes less time than starting one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    options = {
        "node-ip-address": "127.0.0.1",
        "port": address.partition(":")[2],
        "num-cpus": "2",
        "object-store-memory": str(80 * 1024 * 1024),
        "include-dashboard": "false",
    }
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    started = subprocess.Popen(
        [*command, "--disable-usage-stats", *(f"--{name}={options[name]}" for name in options)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **access, "OMP_NUM_THREADS": "1"},
    )
    whole = psutil.Process(started.pid)
    wait_for(lambda: [each for each in whole.children() if "raylet" in title(each)], started)
    yield Cluster(started.pid, address, access)
    of_ours = whole.children(recursive=True)
    started.terminate()
    started.wait(30)
    _, alive = psutil.wait_procs(of_ours, timeout=10)
    kill(alive)


@pytest.fixture(scope="session")
def drives(tmp_path_factory):
    """Five drives of many sorts: nested, without truth, with a damaged frame, no drive at all."""
    folder = tmp_path_factory.mktemp("drives")
    cut(folder / "b.mcap", 0.0, 4.0)
    cut(folder / "a" / "long.mcap", 10.0, 14.0)
    cut(folder / "a" / "no truth.mcap", 30.0, 3.0, truth=False)
    cut(folder / "a" / "damaged frame.mcap", 40.0, 4.0, damage=True)
    (folder / "c.mcap").write_bytes(b"what is left of a drive")
    return folder


@pytest.fixture(scope="session")
def long_drives(tmp_path_factory):
    """A drive that takes long enough for something to happen meanwhile, and a short one."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "long.mcap").symlink_to(SAMPLE)
    cut(folder / "short.mcap", 10.0, 10.0)
    return folder


@pytest.fixture(scope="session")
def alone(drives, tmp_path_factory):
    """The drives replayed by one process: its folder, and the call."""
    out = tmp_path_factory.mktemp("alone") / "out"
    return out, here(drives, "--out", out, "--json")


@pytest.fixture(scope="session")
def long_alone(long_drives, tmp_path_factory):
    """The long drives replayed by one process: its folder."""
    out = tmp_path_factory.mktemp("long_alone") / "out"
    assert here(long_drives, "--out", out).code == 0
    return out
