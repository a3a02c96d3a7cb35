"""What became of the drift watch over a drive: in one line, and as a part of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpde_perception.reports.page import figure, notes, section, table
from qpde_perception.reports.plots import drift_plot

if TYPE_CHECKING:
    from qpde_perception.monitoring import DriftCourse


def drift_words(course: DriftCourse) -> str:
    """Return the causes that were named at any time, and what the numbers rest on."""
    causes = dict.fromkeys(episode.verdict.cause.value for episode in course.episodes)
    observed = course.last.observed if course.last else 0
    checks = course.last.golden_checks if course.last else 0
    named = ", ".join(causes) or "none found"
    return f"{named} ({observed} items held against the float reference, {checks} golden rounds)"


def drift_section(course: DriftCourse) -> str:
    """Return the timeline with the verdicts on it, their list, and what was not watched."""
    text = (
        "Whether the engine still computes what the model was validated with, and whether its "
        f"inputs are like those of the calibration: {drift_words(course)}."
    )
    unwatched = course.last.unwatched if course.last else ()
    parts = [notes([f"Not watched: {each}" for each in unwatched])]
    if course.known:
        parts.append(figure(drift_plot(course), "Evidence and noise over the drive"))
    if course.episodes:
        parts.append(_verdicts(course))
    return section("Drift", text, *parts)


def _verdicts(course: DriftCourse) -> str:
    rows = [
        (
            episode.verdict.cause.value,
            f"{episode.verdict.message} {episode.verdict.remedy}",
            f"{episode.begin_s:.1f}",
            "end" if episode.end_s is None else f"{episode.end_s:.1f}",
        )
        for episode in course.episodes
    ]
    return table(("cause", "why, and what to do", "from (s)", "to (s)"), rows)
