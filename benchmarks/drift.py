"""The drift monitor: false alarms, and how soon each fault is seen and what it is called.

    qpde data prepare DATA --out D
    python benchmarks/drift.py --data D                     # all of it: half an hour
    python benchmarks/drift.py --data D --only faults       # or: false-alarms, peers

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from drift_alarms import (
    ALPHAS,
    adversary,
    by_track,
    in_blocks,
    independent_at_null,
    largest_evidence,
    markov_modulated,
    matrix_of,
    nulls_of,
    resampled,
)
from drift_faults import GRADUAL, HEALTHY, Laboratory, Seen
from drift_peers import alarm_at, peers
from drift_streams import Plan
from rich.console import Console
from rich.progress import track
from rich.table import Table

from qpde_perception.bundles import Calibration, calibration_of, find_model, load_bundle
from qpde_perception.drift import block_of
from qpde_perception.learning.signs import load_signs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpde_perception.bundles import Bundle
    from qpde_perception.learning.signs import SignSet
    from qpde_perception.monitoring import Observation

ALPHA = 0.001
LIMIT = 2_000
PERIOD = 24
PARTS = ("false-alarms", "faults", "peers")
_SEVERITY_OF_PEERS = 3


def false_alarms(bundle: Bundle, signs: SignSet, *, quick: bool) -> list[dict[str, Any]]:
    """Hold all evidence together against streams in which nothing has changed.

    Three are as bad as the null allows. The others are of a healthy network: single frames of test
    data, and tracks of training data in which only a share of the frames is sampled. The frames of
    a track depend on each other as much as can be, which breaks the null where most are sampled.
    """
    calibration = needed(bundle)
    nulls = nulls_of(calibration)
    streams, frames = (200, 500) if quick else (1_000, 10_000)
    test = signs.split("test-a")
    chosen = np.random.default_rng(0).choice(len(test), 100 if quick else 2_000, replace=False)
    single = matrix_of(
        calibration,
        Laboratory(bundle, [test.image(int(each)) for each in chosen]).healthy().observations,
    )
    train = signs.split("train")
    names = sorted({record.track for record in train.records})
    some = set(np.random.default_rng(3).choice(names, 30 if quick else 300, replace=False))
    records = [i for i, record in enumerate(train.records) if record.track in some]
    tracks = np.array([train.records[index].track for index in records])
    dependent = matrix_of(
        calibration,
        Laboratory(bundle, [train.image(index) for index in records]).healthy().observations,
    )
    tracked = partial(by_track, dependent, tracks)
    kinds = {
        "independent, each mean at its null": partial(independent_at_null, nulls),
        "quiet and wild times (Markov)": partial(markov_modulated, nulls),
        "an adversary that knows the evidence": partial(adversary, nulls),
        "healthy, single frames": partial(resampled, single),
    } | {
        f"healthy, tracks, {share:g} of the frames, each for itself": partial(tracked, share=share)
        for share in (0.01, 0.03, 0.1, 1.0)
    }
    sizes = dict.fromkeys(kinds, 1)
    for share in (0.03, 0.1, 1.0):
        name = f"healthy, tracks, {share:g} of the frames, {block_of(share)} as one"
        kinds[name], sizes[name] = partial(tracked, share=share), block_of(share)
    rows = []
    for name, make in track(list(kinds.items()), "streams"):
        step = in_blocks(make(streams=streams, rng=np.random.default_rng(1)), sizes[name])
        largest = largest_evidence(nulls, streams, frames, step)
        shares = {f"{alpha:g}": float((largest >= 1 / alpha).mean()) for alpha in ALPHAS}
        items = streams * frames * sizes[name]
        rows.append({"stream": name, "frames": items, "streams": streams} | shares)
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
                    "golden_rms": stages[-1].golden[0],
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
    runs, frames = (3, 400) if quick else (8, LIMIT)
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
            for seed in range(3):
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
    mirrored = len(calibration.inputs.statistics)
    return matrix_of(calibration, observations)[:, :-mirrored]


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
        results["false-alarms"] = false_alarms(bundle, signs, quick=given.quick)
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
