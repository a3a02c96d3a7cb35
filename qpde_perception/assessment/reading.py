"""What the figures of the experiment `signs` say, in words made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpde_perception.assessment import quantizing
from qpde_perception.assessment.candidates import Role
from qpde_perception.assessment.corruptions import CORRUPTIONS, SEVERITIES
from qpde_perception.assessment.figures import (
    at,
    known_mean,
    mean,
    of_model,
    of_role,
    share_of_sign,
)
from qpde_perception.learning.experiments.experiment import deviation_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpde_perception.assessment.figures import Figure, Group, Groups

TEST = at("test_top1")
WELL_TOLD = 0.9
"""Area under the ROC curve from which confidence is called a useful detector of the unknown."""


def reading_of(groups: Groups) -> list[str]:
    """Return what the figures say, favourable or not.

    All of the first model; of every other one what quantizing costs and how it compares; and what
    the protocol leaves open.

    Args:
        groups: Rows by model and precision; each model has `DEPLOYED` and `UNQUANTIZED`.
    """
    deployed = of_role(groups, Role.DEPLOYED)
    first, integer = next(iter(deployed.items()))
    floating = of_model(groups, first[0], Role.UNQUANTIZED) or integer
    lines = [
        f"**{first[0]}.** {_accuracy(integer, floating)} {_tracks(integer)}",
        _robustness(integer, floating),
        _country(integer),
        _unknown(integer),
        _calibration(integer),
        *quantizing.sentences_of(groups),
    ]
    trained = {key: group for key, group in deployed.items() if group[0]["seed"] is not None}
    for precision in dict.fromkeys(precision for _, precision in trained):
        alike = {model: group for (model, p), group in trained.items() if p == precision}
        if len(alike) > 1:
            lines += [
                _comparison(alike, precision, "test-a", TEST),
                _comparison(alike, precision, "the corrupted images", at("robustness", "mean")),
                _comparison(alike, precision, "the other country", at("boxes", "all")),
            ]
    return [*lines, *_limits(integer[0]["counts"]), *_cautions(groups)]


def _cautions(groups: Groups) -> list[str]:
    """Say what the comparison with float and with fewer bits does not carry."""
    lines = []
    floating = of_role(groups, Role.FLOAT)
    if floating:
        count = next(iter(floating.values()))[0]["counts"]["test-a"]
        lines.append(
            "The deployed network learned on, with quantization in the loop, where the float "
            "network and so the one quantized after training stop, before the learning rate had "
            "fallen to zero; what those epochs gain may outweigh what the bits cost. One image of "
            f"test-a is {100 / count:.3f} points."
        )
    if any(
        precision != quantizing.FULL_PRECISION for _, precision in of_role(groups, Role.DEPLOYED)
    ):
        lines.append(
            "Weights of fewer than 8 bits are those of 1x1 convolutions; stem, depthwise kernels "
            "and head have 8. They are stored and multiplied as int8, so these engines gain "
            "nothing by them: the figures are about accuracy alone."
        )
    return lines


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
        f"{100 * sum(losses) / len(losses):.2f} points against unquantized activations on "
        f"average, {100 * max(losses):.2f} at most."
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


def _comparison(alike: Mapping[str, Group], precision: str, data: str, figure: Figure) -> str:
    """Say how models compare, and whether the first leads by more than the seeds differ."""
    means = {model: mean(group, figure) for model, group in alike.items()}
    order = sorted(means, key=lambda model: -means[model])
    best, second = order[:2]
    lead = means[best] - means[second]
    deviations = [deviation_of([*map(figure, alike[name])]) for name in (best, second)]
    listed = ", ".join(f"{model} {100 * means[model]:.2f} %" for model in order)
    text = f"On {data}, in {precision}: {listed}. {best} leads {second} by {100 * lead:.2f} points"
    if deviations[0] is None or deviations[1] is None:
        return f"{text}; with one seed that says little."
    # Standard error of the difference of two means.
    error = (
        sum(
            deviation**2 / len(alike[name])
            for deviation, name in zip(deviations, (best, second), strict=True)
            if deviation is not None
        )
        ** 0.5
    )
    verdict = "more than" if lead > 2 * error else "no more than"
    return f"{text}, {verdict} twice the standard error of the difference ({100 * error:.2f})."


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
