"""What the drift watch costs the road: frames with it on and off, in turns, in one run.

    python benchmarks/drift_cost.py [--share 0.01] [--load]

Frames of the sample drive go over the road at a steady rate, in blocks with the watch and without;
what is compared is the processing time, from decoding to filter, as the node reports it. `--load`
keeps every processor busy meanwhile: then a lock held by a thread without a processor would show.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from qpde_perception.bags import open_drive
from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bags.messages import camera_frame
from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.drift import DriftPolicy, DriftWatch
from qpde_perception.engines import open_engine
from qpde_perception.perception import Classifier, NoFilter

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "traffic_signs.mcap"
BLOCK = 50


def spin() -> None:
    while True:
        pass


def frames() -> list:
    with open_drive(SAMPLE) as drive:
        (camera,) = cameras_of(drive.topics, (), regions="none")
        return [camera_frame(each) for each in drive.messages({camera.topic})]


def measure(share: float, rate_hz: float, count: int) -> dict[str, np.ndarray]:
    """Return processing times, ms, by `on` and `off`, `count` of each."""
    bundle = load_bundle(find_model(None))
    engine = open_engine(bundle)
    watch = DriftWatch(bundle, DriftPolicy(share, 120.0, 0.001))
    plain = Classifier(bundle, engine, NoFilter())
    watched = Classifier(bundle, engine, NoFilter(), watch.observe)
    while watch.between(watched):
        pass
    pictures = frames()
    times: dict[str, list[float]] = {"off": [], "on": []}
    turns = ("off", "on")
    start = time.monotonic()
    for number in range(2 * count + 2 * BLOCK):
        # Which of the two comes first changes, so that neither follows the other always.
        block, within = divmod(number, BLOCK)
        name = turns[(block + block // 2) % 2]
        classifier = watched if name == "on" else plain
        delay_s = start + number / rate_hz - time.monotonic()
        if delay_s > 0:
            time.sleep(delay_s)
        # Both walk over the same frames.
        seen = classifier.classify(pictures[(block // 2 * BLOCK + within) % len(pictures)])
        if number >= 2 * BLOCK:
            times[name].append(seen.stages_ms["total"])
        if name == "on":
            watch.between(watched)
    print(f"sampled {watch.sampling.sampled}, skipped {watch.sampling.skipped}")
    watch.close()
    engine.close()
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--share", type=float, default=0.01, help="Share of items sampled.")
    parser.add_argument("--rate", type=float, default=60.0, help="Frames a second.")
    parser.add_argument("--frames", type=int, default=3000, help="Frames of each kind.")
    parser.add_argument("--load", action="store_true", help="Keep every processor busy.")
    given = parser.parse_args()
    busy = [
        multiprocessing.Process(target=spin, daemon=True)
        for _ in range(os.cpu_count() or 1 if given.load else 0)
    ]
    for each in busy:
        each.start()
    try:
        times = measure(given.share, given.rate, given.frames)
    finally:
        for each in busy:
            each.kill()
    print(f"{platform.machine()}, {os.cpu_count()} processors, {given.rate:g} frames a second")
    for share in (0.5, 0.9, 0.99, 0.999):
        off, on = (
            float(np.quantile(times[name], share, method="inverted_cdf")) for name in ("off", "on")
        )
        print(f"p{100 * share:g}: off {off:.3f} ms, on {on:.3f} ms, ratio {on / off:.3f}")


if __name__ == "__main__":
    main()
