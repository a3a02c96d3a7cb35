"""How near a replay comes to the engine alone, and whether its memory grows with the drive.

The limit of a replay is the engine: its rate on input that is prepared, with the batch size it
likes best. In each round these are measured one after the other, on the same drive:

- the engine alone, for each batch size;
- the engine and the preparation of the same frames side by side, each in its thread and for
  nothing: no pipeline in Python can be faster than the slower of the two on these processors;
- `qpde replay`, the whole command in a process of its own: reading, decoding, inference, filters,
  results.jsonl, perception.mcap. Its rate is `frames_per_second` of summary.json; importing,
  opening the engine and the report at the end are not in it, and are told apart.

With `--memory GB` a drive of that size that nobody recorded is replayed instead, and the memory of
the process is told as it goes on.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from os import cpu_count
from pathlib import Path
from statistics import median
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from endless_drive import endless_drive
from rich.console import Console
from rich.table import Table

from qpde_perception.bags import McapWriter, open_drive
from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bags.messages import camera_frame, regions_of
from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.cli.interrupting import Wish
from qpde_perception.engines import Engine, open_engine
from qpde_perception.fleet.job import ReplayJob, ReplayOptions
from qpde_perception.perception import Classifier, NoFilter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qpde_perception.bags import Drive
    from qpde_perception.frames import CameraFrame, Regions

BATCHES = (1, 2, 4, 8, 16, 32, 64)
# Enough for a rate; the drive itself is longer, so that what happens once does not count.
MOST_FRAMES = 1096
Frames = list[tuple["CameraFrame", "Regions | None"]]


def lengthened(source: Path, target: Path, times: int) -> None:
    """Write a drive several times over, its stamps going on."""
    with open_drive(source) as drive:
        messages = sum(topic.count for topic in drive.topics)
        longer, _ = endless_drive(drive)
    topics = [topic.name for topic in longer.topics]
    with McapWriter(target, compress=False) as writer:
        for each in islice(longer.messages(topics), messages * times):
            writer.write(each.topic, each.message, each.log_time_ns)


def frames_of(drive: Drive) -> Frames:
    """Return the frames of a drive's only camera with their regions."""
    (camera,) = cameras_of(drive.topics)
    topics = [camera.topic, *([camera.regions_topic] if camera.regions_topic else [])]
    frames, regions = [], {}
    for recorded in drive.messages(topics):
        if recorded.topic == camera.topic:
            frames.append(camera_frame(recorded))
        else:
            stamp_ns, boxes = regions_of(recorded)
            regions[stamp_ns] = boxes
    if camera.regions_topic is None:
        return [(frame, None) for frame in frames]
    return [(frame, regions[frame.stamp_ns]) for frame in frames]


def prepared(classifier: Classifier, frames: Frames) -> list[NDArray[np.uint8]]:
    """Decode and prepare frames."""
    batches = []
    for frame, regions in frames:
        begun = classifier.begin(frame, regions)
        if isinstance(begun, Exception):
            raise begun
        batches.append(begun.prepared.batch)
    return batches


def timed(engine: Engine, items: NDArray[np.uint8], batch: int) -> float:
    """Return how long the engine takes for all items, seconds."""
    started = time.perf_counter()
    for start in range(0, len(items), batch):
        engine.infer(items[start : start + batch])
    return time.perf_counter() - started


def side_by_side(engine: Engine, classifier: Classifier, frames: Frames, batch: int) -> float:
    """Return how long engine and preparation of all frames take together, seconds."""
    items = np.concatenate(prepared(classifier, frames))
    thread = Thread(target=prepared, args=(classifier, frames))
    started = time.perf_counter()
    thread.start()
    timed(engine, items, batch)
    thread.join()
    return time.perf_counter() - started


def replayed(drive: Path, engine: str, threads: int, share: float) -> dict[str, float]:
    """Return what `qpde replay` says of itself, and its time in all."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "qpde_perception.cli.main", "replay", str(drive)]
        command += ["--engine", engine, "--threads", str(threads), "--drift-share", str(share)]
        command += ["--out", f"{folder}/out", "--json"]
        started = time.perf_counter()
        done = subprocess.run(  # noqa: S603  (our own command)
            command, check=True, capture_output=True, text=True
        )
        wall_s = time.perf_counter() - started
    summary = json.loads(done.stdout)
    return {"rate": summary["frames_per_second"], "frames": summary["received"], "wall_s": wall_s}


def measure(args: argparse.Namespace, drive: Path) -> dict[str, Any]:
    """Return the medians of all rounds, frames a second."""
    bundle = load_bundle(find_model(args.model))
    engine = open_engine(bundle, args.engine, threads=args.threads)
    classifier = Classifier(bundle, engine, NoFilter())
    with open_drive(drive) as opened:
        frames = frames_of(opened)[:MOST_FRAMES]
    items = np.concatenate(prepared(classifier, frames))
    rounds = []
    for _ in range(args.rounds):
        alone = {batch: len(frames) / timed(engine, items, batch) for batch in BATCHES}
        best = max(alone, key=lambda batch: alone[batch])
        started = time.perf_counter()
        prepared(classifier, frames)
        decode = len(frames) / (time.perf_counter() - started)
        both = len(frames) / side_by_side(engine, classifier, frames, best)
        plain = replayed(drive, args.engine, args.threads, 0.0)
        watched = replayed(drive, args.engine, args.threads, 0.1)
        # The engine once more: the machine may have become slower or faster meanwhile.
        after = len(frames) / timed(engine, items, best)
        rate = (alone[best] + after) / 2
        rounds.append(
            {
                "engine": rate,
                "batch": best,
                "frames": plain["frames"],
                "preparation": decode,
                "side_by_side": both,
                "replay": plain["rate"],
                "replay_watched": watched["rate"],
                "share_of_engine": plain["rate"] / rate,
                "share_of_side_by_side": plain["rate"] / both,
                "share_of_engine_watched": watched["rate"] / rate,
                "apart_s": plain["wall_s"] - plain["frames"] / plain["rate"],
            }
        )
    engine.close()
    keys = [key for key in rounds[0] if key not in {"batch", "frames"}]
    return {
        "engine": args.engine,
        "frames": rounds[0]["frames"],
        "items_per_frame": len(items) / len(frames),
        "medians": {key: median(each[key] for each in rounds) for key in keys},
        "rounds": rounds,
    }


def remember(args: argparse.Namespace) -> dict[str, Any]:
    """Replay a drive of so many bytes, and return the memory in use as it goes on."""
    bundle = load_bundle(find_model(args.model))
    with open_drive(args.drive) as recorded:
        drive, part = endless_drive(recorded, args.frame_kib * 1024)
    wish, process, marks = Wish(), psutil.Process(), []
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        job = ReplayJob(
            drive=drive,
            cameras=cameras_of(drive.topics),
            bundle=bundle,
            engine=open_engine(bundle, args.engine, threads=args.threads),
            options=ReplayOptions(),
            out=Path(folder),
        )
        done = False

        def look() -> None:
            while not done:
                marks.append(
                    {
                        "gigabytes": part.bytes_read / 1e9,
                        "frames": job.accounting.totals.received,
                        "rss_mb": process.memory_info().rss / 1e6,
                    }
                )
                wish.requested = part.bytes_read >= args.memory * 1e9
                time.sleep(args.every_s)

        thread = Thread(target=look)
        thread.start()
        try:
            job.run(stopped=lambda: wish.requested, advanced=lambda: None)
        finally:
            done = True
            thread.join()
        gc.collect()
        after_mb = process.memory_info().rss / 1e6
        job.finish("simulated")
        written = sum(each.stat().st_size for each in Path(folder).iterdir())
    return {
        "gigabytes": part.bytes_read / 1e9,
        "frames": job.accounting.totals.received,
        "frames_per_second": job.accounting.totals.received / job.seconds,
        "written_gigabytes": written / 1e9,
        "after_mb": after_mb,
        "peak_mb_with_report": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "marks": marks,
    }


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Measure on the drive, as often after one another as is asked for."""
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        drive = Path(folder) / "drive.mcap"
        lengthened(args.drive, drive, args.times)
        return measure(args, drive)


def rates(result: dict[str, Any]) -> Table:
    """Return the medians as a table."""
    medians = result["medians"]
    title = (
        f"{result['engine']}: {result['frames']} frames with {result['items_per_frame']:.2f} items"
    )
    table = Table("", "frames a second", "share of the engine alone", title=title)
    for name, key in (
        ("the engine alone, on prepared input", "engine"),
        ("preparation alone, one thread", "preparation"),
        ("both side by side, nothing else", "side_by_side"),
        ("qpde replay, no drift watch", "replay"),
        ("qpde replay", "replay_watched"),
    ):
        shares = sorted(each[key] / each["engine"] for each in result["rounds"])
        spread = f"{median(shares):.0%}  ({shares[0]:.0%} to {shares[-1]:.0%})"
        table.add_row(name, f"{medians[key]:.0f}", spread)
    table.caption = (
        f"replay over side by side: {medians['share_of_side_by_side']:.0%}; outside of the rates, "
        f"for imports, engine and report: {medians['apart_s']:.1f} s"
    )
    return table


def growth(result: dict[str, Any]) -> Table:
    """Return the memory as the drive went on."""
    title = (
        f"{result['gigabytes']:.1f} GB, {result['frames']} frames, "
        f"{result['frames_per_second']:.0f} a second"
    )
    table = Table("GB read", "frames", "memory (MB)", title=title)
    marks = result["marks"]
    for index in np.linspace(0, len(marks) - 1, min(len(marks), 12)).astype(int):
        mark = marks[index]
        table.add_row(f"{mark['gigabytes']:.2f}", f"{mark['frames']}", f"{mark['rss_mb']:.0f}")
    table.caption = f"largest, with the report: {result['peak_mb_with_report']:.0f} MB"
    return table


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    sample = Path(__file__).resolve().parents[1] / "samples" / "traffic_signs.mcap"
    parser.add_argument("--drive", type=Path, default=sample)
    parser.add_argument("--model")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1, help="threads of the engine")
    parser.add_argument("--times", type=int, default=32, help="how often the drive is repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=float, metavar="GB", help="size of a drive to simulate")
    parser.add_argument("--frame-kib", type=int, default=256, help="size of a simulated frame")
    parser.add_argument("--every-s", type=float, default=1.0, help="between looks at the memory")
    parser.add_argument("--scratch", help="where drives and results are written")
    parser.add_argument("--json", type=Path, help="where to leave the result")
    args = parser.parse_args()
    result = measured(args) if args.memory is None else remember(args)
    result["machine"] = {"cpu": platform.processor() or platform.machine(), "cores": cpu_count()}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    Console().print(rates(result) if args.memory is None else growth(result))


if __name__ == "__main__":
    main()
