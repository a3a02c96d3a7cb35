"""The drift monitor: false alarms, and how soon each fault is seen and what it is called.

    qpde data prepare DATA --out D
    python benchmarks/drift.py --data D                     # all of it: half an hour
    python benchmarks/drift.py --data D --only faults       # or: false-alarms, tracks, peers

Faults are really there: engines of changed integers, pictures that are changed before they are
resized. A run is 200 to 600 healthy sampled frames, then the fault. Golden frames are asked every
24 sampled frames, which is two minutes at the default share, 20 frames a second and one region
each, and where the monitor wants them. `peers` needs requirements/drift_benchmark.txt.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from drift_faults import GRADUAL, HEALTHY, Laboratory, Seen
from drift_peers import alarm_at, peers
from drift_streams import (
    Bursts,
    Plan,
    adversary,
    alarms,
    healthy_alarms,
    independent,
    observations_of,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table

from qpde_perception.bundles import Calibration, calibration_of, find_model, load_bundle
from qpde_perception.learning.signs import load_signs
from qpde_perception.monitoring.diagnosis import rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpde_perception.bundles import Bundle
    from qpde_perception.learning.signs import SignSet
    from qpde_perception.monitoring import Observation

ALPHA = 0.001
LIMIT = 2_000
PERIOD = 24
PARTS = ("false-alarms", "tracks", "faults", "peers")
_SEVERITY_OF_PEERS = 3


def false_alarms(*, quick: bool) -> list[dict[str, Any]]:
    """Hold the evidence against streams that are as bad as the null allows."""
    streams, frames = (500, 1_000) if quick else (2_500, 4_000)
    rows = []
    for name, make in (
        ("independent", lambda: independent),
        ("bursts", lambda: Bursts(streams)),
        ("adversary", lambda: adversary),
    ):
        for mean in (0.003, 0.06, 0.5):
            raised = alarms(make(), mean=mean, alpha=0.01, streams=streams, frames=frames)
            rows.append(
                {
                    "stream": name,
                    "null": mean,
                    "frames": streams * frames,
                    "alpha": 0.01,
                    "alarms": raised / streams,
                }
            )
    return rows


def tracks(bundle: Bundle, signs: SignSet, *, quick: bool) -> list[dict[str, Any]]:
    """Hold a healthy network against tracks of training data, whole and one frame of each.

    All frames of a track in a row depend on each other as much as can be; one frame of each is what
    a small share of a drive comes to.
    """
    names = sorted({record.track for record in signs.records})
    chosen = set(np.random.default_rng(3).choice(names, 60 if quick else 600, replace=False))
    indexes = [i for i, record in enumerate(signs.records) if record.track in chosen]
    seen = Laboratory(bundle, [signs.image(index) for index in indexes]).healthy()
    calibration = needed(bundle)
    stretches = list(observations_of(seen, [signs.records[index].track for index in indexes]))
    rng = np.random.default_rng(5)
    single = [[each[rng.integers(len(each))]] for each in stretches]
    rows = []
    for name, parts in (("one frame of a track", single), ("whole tracks", stretches)):
        for alpha in (0.01, ALPHA):
            streams, frames = (5, 1_000) if quick else (40, 10_000)
            raised = healthy_alarms(calibration, parts, alpha=alpha, streams=streams, frames=frames)
            rows.append(
                {
                    "stream": name,
                    "frames": streams * frames,
                    "alpha": alpha,
                    "alarms": raised / streams,
                }
            )
    return rows


def faults(lab: Laboratory, runs: list[Path], *, quick: bool) -> list[Any]:
    """Observe every fault; the healthy network comes first."""
    found = [lab.healthy()]
    found += track(lab.input_faults(), "inputs")
    found += track(lab.engine_faults(runs, each=1 if quick else 8), "engines")
    return found


def delays(calibration: Calibration, seen: Sequence[Seen], *, quick: bool) -> list[dict[str, Any]]:
    """Run every fault many times, with golden frames on a period and on demand alone."""
    plan = {
        "calibration": calibration,
        "healthy": seen[0].observations,
        "alpha": ALPHA,
        "limit": LIMIT,
        "runs": 4 if quick else 40,
    }
    noise = [each for each in seen if each.fault == "sensor noise"]
    cases = [[each] for each in seen[1:]] + [[seen[0], *noise]]
    rows = []
    for stages in track(cases, "runs"):
        for period in (PERIOD, 0):
            trials = Plan(**plan, period=period).trials(stages)
            in_time = [trial.delay for trial in trials if trial.delay is not None]
            cause = stages[-1].cause
            rows.append(
                {
                    "fault": GRADUAL if len(stages) > 1 else stages[0].fault,
                    "severity": 0 if len(stages) > 1 else stages[0].severity,
                    "cause": cause.value if cause else "",
                    "golden_period": period,
                    "runs": len(trials),
                    "false_before": sum(trial.early for trial in trials),
                    "missed": sum(trial.delay is None and not trial.early for trial in trials),
                    "delay_p50": float(np.median(in_time)) if in_time else None,
                    "delay_p95": float(np.quantile(in_time, 0.95)) if in_time else None,
                    "named_right_first": sum(trial.first == cause for trial in trials),
                    "named_right_last": sum(trial.last == cause for trial in trials),
                    "rules": dict(Counter(trial.rule for trial in trials if trial.rule)),
                    "golden_identical": stages[-1].golden_identical,
                    "noise_ratio": ratio(calibration, stages[-1]),
                }
            )
    return rows


def ratio(calibration: Calibration, seen: Seen) -> float:
    """Return the mean squared distance over that of a healthy engine."""
    return float(
        np.mean([each.squared_distance for each in seen.observations]) / calibration.noise.variance
    )


def compare(calibration: Calibration, seen: Sequence[Seen], *, quick: bool) -> list[dict[str, Any]]:
    """Run other detectors on the same observables, each at the strictness that keeps quiet.

    That is the most lenient one which alarms in none of the healthy streams.
    """
    runs, frames = (3, 400) if quick else (20, LIMIT)
    healthy = matrix(calibration, seen[0].observations)
    chosen = [
        each
        for each in seen[1:]
        if each.severity in {0, _SEVERITY_OF_PEERS} and not re.search(r"1\.01|flipped", each.fault)
    ]
    chosen = list({re.sub(r" \(.*", "", each.fault): each for each in chosen}.values())
    rows = []
    for name, (make, strictnesses) in peers(healthy).items():
        for strictness in strictnesses:
            quiet = [stream(healthy, frames + 400, seed) for seed in range(runs)]
            false = sum(alarm_at(make(strictness), each) is not None for each in quiet)
            if not false or strictness == strictnesses[-1]:
                break
        for each in track(chosen, name):
            changed, found = matrix(calibration, each.observations), []
            for seed in range(5):
                detector = make(strictness)
                early = alarm_at(detector, stream(healthy, 400, 100 + seed))
                delay = alarm_at(detector, stream(changed, frames, 200 + seed))
                found.append(None if early else delay)
            in_time = [delay for delay in found if delay is not None]
            rows.append(
                {
                    "detector": name,
                    "strictness": strictness,
                    "false_in_healthy": false / runs,
                    "fault": re.sub(r" \(.*", "", each.fault),
                    "severity": each.severity,
                    "missed": len(found) - len(in_time),
                    "runs": len(found),
                    "delay_p50": float(np.median(in_time)) if in_time else None,
                }
            )
    return rows


def matrix(calibration: Calibration, observations: Sequence[Observation]) -> Any:
    """Return what the monitor bets on, without the mirrored ranks: (frames, observables)."""
    noise, statistics = calibration.noise, calibration.inputs.statistics
    return np.array(
        [
            [
                min(each.squared_distance / noise.variance / noise.cap, 1.0),
                float(each.disagrees),
                *(
                    min(share / tap.cap, 1.0)
                    for share, tap in zip(each.saturation, calibration.taps, strict=True)
                ),
                *(
                    rank(value, one.quantiles)
                    for value, one in zip(each.statistics, statistics, strict=True)
                ),
            ]
            for each in observations
        ]
    )


def stream(rows: Any, frames: int, seed: int) -> Any:
    """Return random rows."""
    return rows[np.random.default_rng(seed).integers(len(rows), size=frames)]


def needed(bundle: Bundle) -> Calibration:
    """Return the calibration of a bundle that has one."""
    calibration = calibration_of(bundle)
    if calibration is None:
        msg = f"{bundle.path}: has no calibration; make one with `qpde calibrate`"
        raise SystemExit(msg)
    return calibration


def shown(title: str, rows: list[dict[str, Any]]) -> Table:
    """Return rows as a table."""
    table = Table(*rows[0], title=title)
    for each in rows:
        table.add_row(
            *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in each.values())
        )
    return table


def main() -> None:
    """Measure what is asked for; print it, and keep it beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="Prepared sign data.")
    parser.add_argument("--model", help="A model's name or a bundle's folder.")
    parser.add_argument("--run", type=Path, action="append", default=[], help="Another run.")
    parser.add_argument("--only", choices=PARTS, action="append", help="Default: all.")
    parser.add_argument("--images", type=int, default=1_000, help="Of test-a.")
    parser.add_argument("--quick", action="store_true", help="To see that it works.")
    parser.add_argument("--json", type=Path, default=Path("drift.json"), help="The results.")
    given = parser.parse_args()
    parts = given.only or PARTS
    results: dict[str, Any] = json.loads(given.json.read_text()) if given.json.exists() else {}
    bundle = load_bundle(find_model(given.model))
    calibration = needed(bundle)
    signs = load_signs(given.data)
    if "false-alarms" in parts:
        results["false-alarms"] = false_alarms(quick=given.quick)
    if "tracks" in parts:
        results["tracks"] = tracks(bundle, signs.split("train"), quick=given.quick)
    if {"faults", "peers"} & set(parts):
        test = signs.split("test-a")
        count = 100 if given.quick else given.images
        chosen = np.random.default_rng(0).choice(len(test), count, replace=False)
        lab = Laboratory(bundle, [test.image(int(index)) for index in chosen])
        seen = faults(lab, given.run, quick=given.quick)
        assert seen[0].fault == HEALTHY
        if "faults" in parts:
            results["faults"] = delays(calibration, seen, quick=given.quick)
        if "peers" in parts:
            results["peers"] = compare(calibration, seen, quick=given.quick)
    given.json.write_text(json.dumps(results, indent=1) + "\n")
    console = Console(width=200)
    for part in parts:
        console.print(shown(part, results[part]))


if __name__ == "__main__":
    main()
