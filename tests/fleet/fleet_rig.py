"""Parts of the shipped drive, calls of the command, and a look at what it is doing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import psutil
import pytest
from call import Call

from qpde_perception.bags import McapWriter, open_drive
from qpde_perception.cli.main import run
from qpde_perception.fleet.digest import DIGEST

SAMPLE = Path(__file__).parents[2] / "samples" / "traffic_signs.mcap"
TOPICS = ("image/compressed", "regions", "ground_truth")


def cut(path, start_s, duration_s, *, truth=True, damage=False):
    """Write a part of the shipped drive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    topics = {f"/camera/front/{name}" for name in TOPICS[: 3 if truth else 2]}
    with open_drive(SAMPLE) as source, McapWriter(path, compress=False) as writer:
        messages = source.messages(topics, start_s=start_s, duration_s=duration_s)
        for recorded in messages:
            if damage and "image" in recorded.topic:
                recorded.message.data = recorded.message.data[:100]
                damage = False
            writer.write(recorded.topic, recorded.message, recorded.log_time_ns)
    return path


def here(*arguments):
    """Call `qpde replay ... --workers 0` in this process."""
    asked = ["replay", *map(str, arguments), "--fleet", "--workers", "0"]
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = run(asked)
    return Call(code, out.getvalue(), err.getvalue())


def begin(*arguments, **environment):
    """Begin `qpde replay ... --fleet --json`."""
    # Workers are never the tests' own process: they load the package anew.
    command = [sys.executable, "-m", "qpde_perception.cli.main", "replay", *map(str, arguments)]
    return subprocess.Popen(
        [*command, "--fleet", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def ended(process):
    out, err = process.communicate(timeout=120)
    return Call(process.returncode, out, err)


def wait_for(happened, process, seconds=60):
    """Wait until something happens while a process runs, and return what it is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := happened():
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return pytest.fail("it did not happen in time")


def half_done(out, lines=5):
    """Return the folders of drives that are under way."""
    return [
        results.parent
        for results in (out / "drives").rglob("results.jsonl")
        if results.read_bytes().count(b"\n") >= lines and not (results.parent / DIGEST).exists()
    ]


def busy_workers(root):
    """Return the processes below one that replay drives."""
    children = psutil.Process(root.pid).children(recursive=True)
    return [child for child in children if title(child) == "ray::replay_drive"]


def kill(victims):
    """Kill processes as a system does that is out of memory."""
    for victim in victims:
        victim.kill()
    gone, alive = psutil.wait_procs(victims, timeout=10)
    assert not alive
    return len(gone)


def title(process):
    try:
        # Ray writes over the arguments, and leaves the rest blank.
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""
