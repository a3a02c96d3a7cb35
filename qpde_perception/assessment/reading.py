"""What the figures of the experiment `signs` say, in words made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpde_perception.assessment.corruptions import CORRUPTIONS, SEVERITIES
from qpde_perception.assessment.figures import at, known_mean, mean, share_of_sign
from qpde_perception.learning.experiments.experiment import deviation_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpde_perception.assessment.figures import Figure, Group, Groups

TEST = at("test_top1")
WELL_TOLD = 0.9
"""Area under the ROC curve from which confidence is called a useful detector of the unknown."""


def reading_of(groups: Groups) -> list[str]:
    """Return sentences for every model, a comparison of models, and what the protocol leaves open.

    Args:
        groups: Rows by model and precision; each model has `int8` and `float`.
    """
    models = list(dict.fromkeys(model for model, _ in groups))
    lines = []
    for model in models:
        integer, floating = groups[model, "int8"], groups[model, "float"]
        lines += [
            f"**{model}.** {_accuracy(integer, floating)} {_tracks(integer)}",
            _robustness(integer, floating),
            _country(integer),
            _unknown(integer),
            _calibration(integer),
        ]
    if len(models) > 1:
        lines += [
            _comparison(groups, models, "test-a", at("test_top1")),
            _comparison(groups, models, "the corrupted images", at("robustness", "mean")),
            _comparison(groups, models, "the other country", at("boxes", "all")),
        ]
    counts = groups[models[0], "int8"][0]["counts"]
    return [*lines, *_limits(counts)]


def _accuracy(integer: Group, floating: Group) -> str:
    own, other = mean(integer, TEST), mean(floating, TEST)
    change = 100 * (own - other)
    count = integer[0]["counts"]["test-a"]
    return (
        f"On its integers it gets {100 * own:.1f} % of test-a right, {change:+.2f} points against "
        f"unquantized activations (one standard error of the share: "
        f"{100 * _standard_error(own, count):.2f} points)."
    )


def _tracks(integer: Group) -> str:
    last = mean(integer, at("tracks", "last"))
    filtered = mean(integer, at("tracks", "filtered"))
    tracks = integer[0]["counts"]["tracks"]
    return (
        f"At the last frame of a track {100 * last:.1f} % are right without the filter and "
        f"{100 * filtered:.1f} % with it; one track is {100 / tracks:.1f} points."
    )


def _robustness(integer: Group, floating: Group) -> str:
    clean = mean(integer, at("robustness", "clean"))
    hardest = {
        name: mean(integer, at("robustness", "top1", name, len(SEVERITIES) - 1))
        for name in CORRUPTIONS
    }
    worst = min(hardest, key=lambda name: hardest[name])
    mildest = max(hardest, key=lambda name: hardest[name])
    losses = [
        mean(floating, at("robustness", "top1", name, number))
        - mean(integer, at("robustness", "top1", name, number))
        for name in CORRUPTIONS
        for number in range(len(SEVERITIES))
    ]
    return (
        f"At severity {SEVERITIES[-1]}, {worst} costs most ({100 * clean:.1f} to "
        f"{100 * hardest[worst]:.1f} %) and {mildest} least ({100 * hardest[mildest]:.1f} %). "
        f"Over all {len(losses)} conditions the integers lose "
        f"{100 * sum(losses) / len(losses):.2f} points against float on average, "
        f"{100 * max(losses):.2f} at most."
    )


def _country(integer: Group) -> str:
    home, abroad = mean(integer, TEST), mean(integer, at("boxes", "all"))
    signs = {name: mean(integer, share_of_sign(name)) for name in integer[0]["boxes"]["signs"]}
    worst, best = min(signs, key=lambda name: signs[name]), max(signs, key=lambda n: signs[n])
    text = (
        f"In the other country {100 * abroad:.1f} % are right, {100 * (home - abroad):.1f} points "
        f"less than on test-a; from {100 * signs[worst]:.0f} % ({worst}) to "
        f"{100 * signs[best]:.0f} % ({best})."
    )
    parts = [known_mean(integer, at("boxes", part)) for part in ("shipped", "others")]
    if parts[0] is None or parts[1] is None:
        return text
    return (
        f"{text} The bursts of the sample drive come out at {100 * parts[0]:.1f} %, those that "
        f"do not ship at {100 * parts[1]:.1f} %."
    )


def _unknown(integer: Group) -> str:
    area = mean(integer, at("unknown", "auc"))
    scaled = mean(integer, at("unknown", "auc_scaled"))
    passed = mean(integer, at("unknown", "passed_at_90"))
    verdict = (
        "so confidence is a useful sign of the unknown"
        if area >= WELL_TOLD
        else "so confidence alone must not be trusted to reject the unknown"
    )
    return (
        f"A known sign gets more confidence than an unknown one {100 * area:.0f} times in 100 (50 "
        f"would be chance), {100 * scaled:.0f} at the temperature of val. A threshold that keeps "
        f"90 % of the known lets {100 * passed:.0f} % of the unknown pass, {verdict}."
    )


def _calibration(integer: Group) -> str:
    parts = []
    for data in ("test-a", "boxes"):
        error = mean(integer, at("calibration", data, "error"))
        scaled = mean(integer, at("calibration", data, "error_scaled"))
        excess = mean(integer, at("calibration", data, "overconfidence"))
        sure = "too sure" if excess > 0 else "not sure enough"
        parts.append(
            f"on {data} it is {sure} by {100 * abs(excess):.1f} points, calibration error "
            f"{error:.3f}, at the temperature {scaled:.3f}"
        )
    return f"Calibration: {'; '.join(parts)}."


def _comparison(groups: Groups, models: Sequence[str], data: str, figure: Figure) -> str:
    """Say which model is ahead in int8, and whether by more than the deviation over seeds."""
    means = {model: mean(groups[model, "int8"], figure) for model in models}
    best, second = sorted(models, key=lambda model: -means[model])[:2]
    lead = means[best] - means[second]
    deviations = [deviation_of([*map(figure, groups[name, "int8"])]) for name in (best, second)]
    text = f"On {data}, in int8, {best} leads {second} by {100 * lead:.1f} points"
    if deviations[0] is None or deviations[1] is None:
        return f"{text}; with one seed that says little."
    # Standard error of the difference of two means.
    error = (
        sum(
            deviation**2 / len(groups[name, "int8"])
            for deviation, name in zip(deviations, (best, second), strict=True)
            if deviation is not None
        )
        ** 0.5
    )
    verdict = "more than" if lead > 2 * error else "no more than"
    return f"{text}, {verdict} twice the standard error of the difference ({100 * error:.1f})."


def _limits(counts: dict[str, int]) -> list[str]:
    corrupted, known = counts["corrupted"], counts["known"]
    corruptions = (
        "The corruptions are formulas, one at a time: real fog has depth, and a dark camera has "
        f"noise besides. A share of {corrupted:,} images has a standard error of up to "
        f"{100 * _standard_error(0.5, corrupted):.1f} points, that of {known} boxes up to "
        f"{100 * _standard_error(0.5, known):.1f}, and more because the boxes of a burst are alike."
    )
    origin = (
        "The temperature is chosen on val, whose tracks were recorded on the same roads as those "
        "that were learned: it knows nothing of other countries. The boxes are drawn by hand; a "
        "detector's are worse."
    )
    return [corruptions, origin]


def _standard_error(share: float, count: int) -> float:
    return float((share * (1 - share) / count) ** 0.5)
