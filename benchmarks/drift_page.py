"""Tables and the picture of docs/drift.md, from the results of benchmarks/drift.py.

python benchmarks/drift_page.py drift.json --plot docs/drift.png > tables.md
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {
    "engine changed": "#b2182b",
    "preprocessing wrong": "#ef8a62",
    "camera degraded": "#2166ac",
    "world changed": "#67a9cf",
}


def kind(row: dict[str, Any]) -> str:
    """Return the fault without its place."""
    name = re.sub(r" \((stage|stem|features|head)[^)]*\)", "", row["fault"])
    return f"{name}, {row['severity']}" if row["severity"] else name


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the places of one fault together."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(kind(row), []).append(row)
    found = []
    for name, group in kinds.items():
        seen = [row for row in group if row["delay_p50"] is not None]
        runs = sum(row["runs"] for row in group)
        missed = sum(row["missed"] for row in group)
        right = [sum(row[f"named_right_{when}"] for row in group) for when in ("first", "last")]
        found.append(
            {
                "fault": name,
                "cause": group[0]["cause"],
                "places": len(group),
                "runs": runs,
                "p50": max((row["delay_p50"] for row in seen), default=None),
                "p95": max((row["delay_p95"] for row in seen), default=None),
                "missed": missed / runs,
                "first": right[0] / max(runs - missed, 1),
                "last": right[1] / max(runs - missed, 1),
                "low": min(row["noise_ratio"] for row in group),
                "high": max(row["noise_ratio"] for row in group),
            }
        )
    return found


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """Return a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def share(value: float) -> str:
    return f"{value:.1%}".replace(".0%", "%")


def faults_table(rows: list[dict[str, Any]]) -> str:
    """Return delays and names with golden frames on a period."""
    cells = []
    for each in summary(rows):
        low, high = each["low"], each["high"]
        ratio = f"{low:.2g}" if each["places"] == 1 else f"{low:.2g} to {high:.3g}"
        delay = "none" if each["p50"] is None else f"{each['p50']:.0f}"
        late = "none" if each["p95"] is None else f"{each['p95']:.0f}"
        nothing = each["p50"] is None
        cells.append(
            [
                each["fault"],
                each["cause"],
                str(each["runs"]),
                ratio,
                delay,
                late,
                share(each["missed"]),
                "" if nothing else share(each["first"]),
                "" if nothing else share(each["last"]),
            ]
        )
    return markdown(
        [
            *("fault", "should be called", "runs", "distance", "median", "95 %"),
            *("missed", "right at first", "right 64 later"),
        ],
        cells,
    )


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the delays."""
    shown = [each for each in summary(rows) if each["p50"] is not None][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.22 * len(shown) + 1.2), dpi=100)
    for height, each in enumerate(shown):
        colour = COLOURS[each["cause"]]
        axes.plot([each["p50"], max(each["p95"], each["p50"])], [height] * 2, colour, lw=1.5)
        axes.plot(each["p50"], height, "o", color=colour, ms=5)
    axes.set_yticks(range(len(shown)), [each["fault"] for each in shown], fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("sampled frames from the fault to the first verdict: median, and 95 % of runs")
    for cause, colour in COLOURS.items():
        axes.plot([], [], "o", color=colour, label=cause)
    axes.legend(fontsize=7, loc="upper right")
    axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--plot", type=Path, help="Where the picture goes.")
    given = parser.parse_args()
    results = json.loads(given.results.read_text())
    if alarms := results.get("false-alarms"):
        names = [name for name in alarms[0] if name not in {"stream", "frames", "streams"}]
        cells = [
            [row["stream"], f"{row['frames']:,}", *(f"{row[name]:.2%}" for name in names)]
            for row in alarms
        ]
        heads = [f"alarms at alpha {name}" for name in names]
        print(markdown(["stream", "frames", *heads], cells), "\n")
    if faults := results.get("faults"):
        for period in sorted({row["golden_period"] for row in faults}, reverse=True):
            print(faults_table([row for row in faults if row["golden_period"] == period]), "\n")
    if peers := results.get("peers"):
        names = list(dict.fromkeys(row["detector"] for row in peers))
        labels = list(dict.fromkeys((row["fault"], row["severity"]) for row in peers))
        cells = []
        for label in labels:
            cells.append([label[0] + (f", {label[1]}" if label[1] else "")])
            for name in names:
                (row,) = (
                    each
                    for each in peers
                    if (each["fault"], each["severity"], each["detector"]) == (*label, name)
                )
                late = "none" if row["delay_p50"] is None else f"{row['delay_p50']:.0f}"
                cells[-1].append(
                    late + (f" ({row['missed']} of {row['runs']} missed)" if row["missed"] else "")
                )
        heads = [
            f"{row['detector']}: strictness {row['strictness']:g}, {row['false_in_healthy']:.0%}"
            for row in {each["detector"]: each for each in peers}.values()
        ]
        print(markdown(["fault", *heads], cells))
    if given.plot and (faults := results.get("faults")):
        plot([row for row in faults if row["golden_period"]], given.plot)


if __name__ == "__main__":
    main()
