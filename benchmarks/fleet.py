"""What a fleet gains on this machine: workers of Ray against one process, and what Ray costs.

In turns, each time into a new folder: `qpde replay DRIVES --fleet --workers 0`, the same held to
one processor, then with `--workers N`; one thread for the engine everywhere. The drives are the
shipped one under many names. Beside the throughput: the start of Ray and of a worker, and what Ray
adds to each drive of a worker that runs.

    python benchmarks/fleet.py                     # two workers, 16 drives, 5 rounds: six minutes
    python benchmarks/fleet.py --workers 8 --drives 64 --json fleet_benchmark.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.fleet.folder import fleet_folder
from qpde_perception.fleet.job import ReplayOptions
from qpde_perception.fleet.planning import plan_drives
from qpde_perception.fleet.running import ray_workers
from qpde_perception.fleet.worker import FleetSetup

SAMPLE = Path(__file__).parents[1] / "samples" / "traffic_signs.mcap"
ENGINE = "onnxruntime"
_COSTS = 6  # drives; more tell no more


def called(drives: Path, out: Path, workers: int, *, held: bool = False) -> dict[str, float]:
    """Run the command, and return its frames, and its seconds as it and we measure them."""
    hold = ["taskset", "--cpu-list", "0"] if held else []
    started = time.perf_counter()
    command = [sys.executable, "-m", "qpde_perception.cli.main", "replay", str(drives), "--fleet"]
    options = ["--workers", str(workers), "--engine", ENGINE, "--out", str(out), "--json"]
    done = subprocess.run(  # noqa: S603  (ourselves)
        [*hold, *command, *options], check=True, capture_output=True, text=True
    )
    document = json.loads(done.stdout)
    return {
        "whole_s": time.perf_counter() - started,
        "frames": document["totals"]["received"],
        **document["timings"],
    }


def ray_costs(drives: Path, out: Path) -> dict[str, float]:
    """Run one worker by hand: what passes before its first drive, and between two drives."""
    bundle, options = load_bundle(find_model(None)), ReplayOptions()
    works = fleet_folder(out, plan_drives([str(drives)]), bundle, ENGINE, options).works[:_COSTS]
    setup = FleetSetup(bundle.path.absolute(), ENGINE, 1, options)
    with ray_workers(1, 1, None) as ray:
        started = time.perf_counter()
        (first,) = ray.run(setup, works[:1], lambda: False)
        worker_s = time.perf_counter() - started - first.seconds
        started = time.perf_counter()
        others = list(ray.run(setup, works[1:], lambda: False))
        between_s = time.perf_counter() - started - sum(one.seconds for one in others)
    assert not any(one.error for one in (first, *others))
    assert len({one.worker for one in (first, *others)}) == 1
    return {"worker_s": worker_s, "between_ms": 1e3 * between_s / len(others)}


def measured(drives: Path, folder: Path, workers: int, rounds: int) -> list[dict[str, Any]]:
    """Return the figures of every round."""
    found = []
    for number in range(rounds):
        one = called(drives, folder / f"{number}_one", 0)
        held = called(drives, folder / f"{number}_held", 0, held=True)
        many = called(drives, folder / f"{number}_many", workers)
        costs = ray_costs(drives, folder / f"{number}_costs")
        found.append(
            {
                "one_fps": one["frames"] / one["replaying_s"],
                "held_fps": held["frames"] / held["replaying_s"],
                "many_fps": many["frames"] / many["replaying_s"],
                "ratio": one["replaying_s"] / many["replaying_s"],
                "held_ratio": held["replaying_s"] / many["replaying_s"],
                "whole_ratio": one["whole_s"] / many["whole_s"],
                "starting_s": many["starting_s"],
                **costs,
            }
        )
    return found


NAMES = {
    "one_fps": "frames a second, one process",
    "held_fps": "frames a second, one process held to one processor",
    "many_fps": "frames a second, workers of Ray",
    "ratio": "throughput, times that of one process",
    "held_ratio": "throughput, times that of one process held to one processor",
    "whole_ratio": "times that of one process, of the whole command",
    "starting_s": "start of Ray, s",
    "worker_s": "first worker: from its order to its first drive, s",
    "between_ms": "Ray's share of each further drive, ms",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--drives", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        drives = Path(folder, "drives")
        drives.mkdir()
        for number in range(asked.drives):
            (drives / f"{number:03}.mcap").symlink_to(SAMPLE)
        rounds = measured(drives, Path(folder), asked.workers, asked.rounds)
    table = Table("", "median", "lowest", "highest")
    table.title = (
        f"{asked.workers} workers, {asked.drives} drives, {asked.rounds} rounds, "
        f"{os.cpu_count()} processors of {platform.machine()}"
    )
    for name, text in NAMES.items():
        values = [one[name] for one in rounds]
        shown = (statistics.median(values), min(values), max(values))
        table.add_row(text, *(f"{value:.3g}" for value in shown))
    Console().print(table)
    if asked.json is not None:
        asked.json.write_text(json.dumps({"asked": vars(asked), "rounds": rounds}, default=str))


if __name__ == "__main__":
    main()
