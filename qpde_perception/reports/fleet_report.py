"""The report of a fleet: one page of many drives, made of `fleet.json` and a few pictures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from qpde_perception.reports.page import (
    bars,
    details,
    figure,
    gallery,
    notes,
    page,
    section,
    table,
    tiles,
)
from qpde_perception.reports.plots import confusion_plot, drives_plot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MOST_DRIVES = 80
_KINDS = {
    "wrong": ("Wrong and sure of it", "The true class is another; the highest probabilities."),
    "unknown": (
        "Unknown to the model, and sure of it",
        "The truth says that the model does not know these; the highest probabilities.",
    ),
    "unsure": ("Least sure", "The lowest probabilities."),
    "dropped": ("Dropped", "Frames without a result; each drive's dropped.jsonl lists all."),
}


def fleet_html(
    document: Mapping[str, Any], labels: Sequence[str], pictures: Sequence[bytes | None]
) -> str:
    """Return the page: one file that needs nothing else.

    Args:
        document: What `fleet.json` holds.
        labels: Names of the model's classes.
        pictures: Of each of the document's worst frames a JPEG, or None.
    """
    replayed = [row for row in document["drives"] if row["status"] == "replayed"]
    parts = [
        tiles(_tiles(document)),
        notes(_notes(document)),
        section(
            "Drives",
            "Each has its own report, in the folder drives/ beside this page.",
            table(_HEAD, [_row(row) for row in document["drives"]]),
        ),
    ]
    if document["totals"]["known_objects"]:
        parts.append(_accuracy(document, labels, replayed))
    elif document["classes"]:
        rows = [
            (f"{one['label']} ({one['class_index']})", "", f"{one['seen']}")
            for one in document["classes"]
        ]
        parts.append(section("Classes", "", table(("class the model gave", "", "objects"), rows)))
    parts.append(_drift(document, replayed))
    parts += _worst(document["worst"], pictures)
    parts.append(section("Details", "", details(_details(document))))
    subtitle = f"{len(document['drives'])} drives · {document['model']}"
    return page("Fleet report", subtitle, parts)


_HEAD = ("drive", "what to know", "frames", "published", "dropped", "objects", "accuracy")


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a drive as people read it: the cells of a table.

    These are: name, what to know, frames, published, dropped, objects, accuracy.
    """
    if row["status"] != "replayed":
        return (row["name"], row["error"] or row["status"], *("",) * 5)
    causes = dict.fromkeys(verdict["cause"] for verdict in row["drift"]["verdicts"])
    return (
        row["name"],
        "; ".join((*causes, *row["losses"])),
        f"{row['received']}",
        f"{row['published']}",
        f"{sum(row['dropped'].values())}",
        f"{row['objects']}",
        _share(row["accuracy"]),
    )


def _tiles(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    totals = document["totals"]
    failed = f"{totals['failed']} failed" if totals["failed"] else "none failed"
    shown = [
        ("drives", f"{totals['replayed']}", f"of {totals['drives']}, {failed}"),
        ("frames in", f"{totals['received']}", "of all cameras"),
        ("published", f"{totals['published']}", "frames with a result"),
        ("dropped", f"{sum(totals['dropped'].values())}", _reasons(totals["dropped"])),
    ]
    if totals["known_objects"]:
        of = f"of {totals['known_objects']} objects"
        shown.append(("accuracy", _share(totals["accuracy"]), of))
    drifting = {name for names in document["drift"].values() for name in names}
    shown.append(("drift", f"{len(drifting)}", "drives with a verdict"))
    return shown


def _notes(document: Mapping[str, Any]) -> list[str]:
    shown = [
        f"{row['name']} failed: {row['error']}"
        for row in document["drives"]
        if row["status"] == "failed"
    ]
    missing = sum(row["status"] == "not replayed" for row in document["drives"])
    if missing:
        shown.insert(
            0, f"The fleet was interrupted: {missing} drives are missing; run again to go on."
        )
    return shown


def _accuracy(
    document: Mapping[str, Any], labels: Sequence[str], replayed: Sequence[Mapping[str, Any]]
) -> str:
    totals = document["totals"]
    rows = [
        (
            f"{one['label']} ({one['class_index']})",
            one["objects"],
            round(one["accuracy"] * one["objects"]),
            one["accuracy"],
        )
        for one in document["classes"]
        if one["objects"]
    ]
    judged = [row for row in replayed if row["known_objects"]]
    # Beyond this number the plot is a wall; the worst are those to look at.
    judged = sorted(judged, key=lambda row: row["accuracy"])[:_MOST_DRIVES]
    plot = drives_plot(
        [row["name"] for row in judged],
        [round(row["accuracy"] * row["known_objects"]) for row in judged],
        [row["known_objects"] for row in judged],
    )
    known = {(truth, said): count for truth, said, count in document["confusion"] if truth >= 0}
    text = (
        f"{totals['known_objects']} objects whose true class the drives carry; filtered over time, "
        f"{_share(totals['accuracy_filtered'])} are right."
    )
    if totals["unknown_objects"]:
        text += f" Beside these, {totals['unknown_objects']} are of kinds the model does not know."
    return section(
        "Accuracy",
        text,
        figure(plot, "Accuracy of each drive, the lowest first"),
        bars(("true class", "objects", "right", "share"), rows),
        figure(confusion_plot(Counter(known), labels), "Confusion of true and predicted class"),
    )


def _drift(document: Mapping[str, Any], replayed: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            row["name"],
            f"{verdict['cause']}: {verdict['message']} {verdict['remedy']}",
            f"{verdict['begin_s']:.1f}",
            "end" if verdict["end_s"] is None else f"{verdict['end_s']:.1f}",
        )
        for row in replayed
        for verdict in row["drift"]["verdicts"]
    ]
    share = document["options"]["drift_share"]
    text = (
        "Whether the engine still computes what the model was validated with, and whether its "
        f"inputs are like those of the calibration; {share:.0%} of the items were held against the "
        "float reference, in each drive for itself"
    )
    if not rows:
        return section("Drift", f"{text}: nothing was found.")
    head = ("drive", "cause, and what to do", "from (s)", "to (s)")
    return section("Drift", f"{text}.", table(head, rows))


def _worst(worst: Sequence[Mapping[str, Any]], pictures: Sequence[bytes | None]) -> list[str]:
    sections = []
    for kind, (heading, text) in _KINDS.items():
        chosen = [
            (frame, picture)
            for frame, picture in zip(worst, pictures, strict=True)
            if frame["kind"] == kind
        ]
        shown = [(caption(frame), picture) for frame, picture in chosen if picture is not None]
        listed = [
            (frame["drive"], f"{frame['topic']} at {frame['stamp_ns']} ns: {why(frame)}")
            for frame, picture in chosen
            if picture is None
        ]
        if chosen:
            parts = [gallery(shown)] if shown else []
            parts += [table(("drive", "frame"), listed)] if listed else []
            sections.append(section(heading, text, *parts))
    return sections


def caption(frame: Mapping[str, Any]) -> str:
    """Return which frame it is, and what is wrong with it."""
    return f"{why(frame)}. {frame['drive']}, {frame['topic']} at {frame['stamp_ns']} ns"


def why(frame: Mapping[str, Any]) -> str:
    """Return why a frame is among the worst."""
    if frame["kind"] == "dropped":
        return str(frame["fault"])
    said = f"said {frame['label']!r} with {frame['probability']:.1%}"
    if frame["kind"] == "wrong":
        return f"{said}, is {frame['true_label']!r}"
    return f"{said}, is none of its classes" if frame["kind"] == "unknown" else said


def _details(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    options = ", ".join(f"{name} {value}" for name, value in document["options"].items() if value)
    return [
        ("Model", f"{document['model']} (manifest SHA-256 {document['model_sha256']})"),
        ("Engines", ", ".join(document["engines"])),
        ("Options", options),
        ("qpde_perception", document["package_version"]),
        ("results.jsonl SHA-256", f"{document['results_sha256']} (equal input, equal results)"),
        ("Files beside this report", "fleet.json, results.jsonl, timings.json, drives/"),
    ]


def _reasons(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
