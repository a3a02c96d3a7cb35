"""What the figures of the experiment `certificate` say, in words made from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qpde_perception.assessment.figures import at, mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpde_perception.assessment.figures import Figure, Group

    Groups = Mapping[str, Group]

BASE = "symmetric"
"""Beginning of the name of the network that each form of it is held against."""

SATURATED = 0.9
"""Share of its largest value at which a bound is called saturated."""
FEW = 0.5
"""Share of a bound above which three quantizers are named as its cause."""
TEST = at("test_top1")
FIVE = at("five_sigma_share")


def reading_of(groups: Groups) -> list[str]:
    """Return what the figures say of depth, of each form, of penalties and of bundles.

    Args:
        groups: Rows by name of the network, one for every seed.
    """
    lines = []
    for kind in ("run", "network"):
        # The networks of a kind have one recipe, and are compared.
        alike = {name: group for name, group in groups.items() if group[0]["kind"] == kind}
        forms = {name: group for name, group in alike.items() if not group[0]["noise_penalty"]}
        base = next((name for name in forms if name.startswith(BASE)), None)
        if base is not None and len(forms) > 1:
            lines += [_depth(forms), _forms(forms, base)]
        lines += [_penalty(name, alike) for name in alike if name not in forms]
    lines += [_local(groups), _model(groups)]
    lines += [
        _bundle(name, group) for name, group in groups.items() if group[0]["kind"] == "bundle"
    ]
    return [line for line in lines if line] + [_limits(groups)]


def growth(group: Group) -> float:
    """Return the noise gain after the stem over that after the last block, mean over seeds."""
    return mean(group, lambda row: row["blocks"][0]["gain"] / row["blocks"][-1]["gain"])


def missing_bits(group: Group) -> float:
    """Return by how many bits finer grids would bring the median first-order bound to the margin.

    With every step halved the bound is halved.
    """
    return math.log2(mean(group, lambda row: row["first_order"] / row["margin"]))


def standard_error(group: Group) -> float:
    """Return the standard error of the accuracy on test-a."""
    share = mean(group, TEST)
    count = group[0]["test_images"] * len(group)
    return float((share * (1 - share) / count) ** 0.5)


def _depth(forms: Groups) -> str:
    grown = {name: growth(group) for name, group in forms.items()}
    parts = ", ".join(f"{name} x{value:.2f}" for name, value in grown.items())
    least, most = min(grown, key=lambda n: grown[n]), max(grown, key=lambda n: grown[n])
    return (
        f"**Depth.** From the last block back to the stem the noise gain changes by: {parts}. It "
        f"grows least in {least} and most in {most}. The factor holds the poolings between stages, "
        "which make one rounding count for less, and the width and unit of each trunk; so compare "
        "networks, not the factor with one."
    )


def _forms(forms: Groups, name_of_base: str) -> str:
    base = forms[name_of_base]
    parts = []
    for name, group in forms.items():
        if name == name_of_base:
            continue
        parts.append(
            f"{name} {_points(group, base, TEST)} on test-a, over 5 sigma "
            f"{_points(group, base, FIVE)}, margin over first-order bound "
            f"x{_quotient(group) / _quotient(base):.2f}"
        )
    efficient = max(forms, key=lambda name: _quotient(forms[name]))
    accurate = max(forms, key=lambda name: mean(forms[name], TEST))
    same = efficient == accurate
    verdict = (
        f"{accurate} is ahead in both accuracy and the quotient of margin and bound"
        if same
        else f"the most accurate is {accurate}, the largest quotient of margin and bound has "
        f"{efficient}, which is {_points(forms[efficient], forms[accurate], TEST)} off"
    )
    return f"**Forms**, against {name_of_base}: {'; '.join(parts)}. So {verdict}."


def _penalty(name: str, groups: Groups) -> str:
    group, plain = groups[name], groups.get(name.partition(", penalty")[0])
    if plain is None:
        return ""
    change = mean(group, TEST) - mean(plain, TEST)
    doubt = 2 * math.hypot(standard_error(group), standard_error(plain))
    if change < -doubt:
        price = "at a price in accuracy"
    elif change > doubt:
        price = "and accuracy rose"
    else:
        price = "at no accuracy beyond two standard errors of the test"
    noise = mean(group, at("predicted")) / mean(plain, at("predicted"))
    margin = mean(group, at("margin")) / mean(plain, at("margin"))
    return (
        f"**Penalty.** {name}: {_points(group, plain, TEST)} on test-a, predicted deviation "
        f"x{noise:.2f}, margin x{margin:.2f}, over 5 sigma {_points(group, plain, FIVE)}, "
        f"certified {_points(group, plain, at('certified_share'))}, margin over first-order bound "
        f"x{_quotient(group) / _quotient(plain):.2f}: {price}."
    )


def _local(groups: Groups) -> str:
    shares = {name: mean(group, at("certified_share")) for name, group in groups.items()}
    best = max(shares, key=lambda name: shares[name])
    first = (
        f"The largest certified share is {100 * shares[best]:.1f} % ({best})"
        if shares[best] > 0
        else "No network has a certified frame"
    )
    refuted = [mean(group, at("refuted_share")) for group in groups.values()]
    bits = {name: missing_bits(group) for name, group in groups.items()}
    nearest = min(bits, key=lambda name: bits[name])
    return (
        f"**Local bound (b).** {first}, and at least {100 * min(refuted):.0f} % of the frames of "
        "every network are refuted: roundings within half a step that change the class were found, "
        "so for these no bound, however sharp, could certify. Nearest to a certificate is "
        f"{nearest}: to first order its median bound is x{2 ** bits[nearest]:.2g} its median "
        f"margin, which grids finer by {max(bits[nearest], 0):.1f} bits would close."
    )


def _model(groups: Groups) -> str:
    ratios = [mean(group, at("noise_ratio")) for group in groups.values()]
    broken = sum(row["broken_bounds"] for group in groups.values() for row in group)
    bounds = [
        mean(group, lambda r: r["global_bound"] / r["observed_max"]) for group in groups.values()
    ]
    return (
        f"**Model of the noise (c).** Observed over predicted lies between {min(ratios):.2f} and "
        f"{max(ratios):.2f}. {'No bound was broken' if not broken else f'{broken} bounds broke'}. "
        f"The bound for every input is {min(bounds):.1g} to {max(bounds):.1g} times the largest "
        "distance seen: a limit, not an estimate."
    )


def _bundle(name: str, group: Group) -> str:
    limits = group[0]["limits"]
    largest = sorted(limits, key=lambda each: -limits[each])[:3]
    share = sum(limits[each] for each in largest)
    spread = mean(group, lambda row: row["first_order"] / row["predicted"])
    sigma = mean(group, lambda row: row["margin"] / row["predicted"])
    refuted = mean(group, at("refuted_share"))
    blame = (
        f"{100 * share:.0f} % of it come from {', '.join(largest)}."
        if share > FEW
        else f"No few quantizers are to blame: the first three, {', '.join(largest)}, make up "
        f"{100 * share:.0f} %."
    )
    return (
        f"**What limits (b) for {name}.** For {100 * refuted:.0f} % of the frames what is to be "
        "proven is not true: they are refuted. Roundings that all conspire move the margin "
        f"{spread:.0f} times as far as the predicted deviation, the median margin is {sigma:.0f} "
        f"deviations, and so the first-order bound is x{2 ** missing_bits(group):.3g} the margin, "
        f"which {missing_bits(group):.1f} bits more would make up. "
        f"{blame} {_saturation(group)} Against independent roundings "
        f"{100 * mean(group, FIVE):.0f} % of the frames are safe by 5 sigma."
    )


def _saturation(group: Group) -> str:
    """Say from where on the proven bound no longer grows towards the input."""
    count = len(group[0]["proven"])
    bounds = [mean(group, at("proven", number, "bound")) for number in range(count)]
    last = max(number for number in range(count) if bounds[number] >= SATURATED * bounds[0])
    margin = mean(group, at("margin"))
    return (
        f"The relaxation is blunt besides: the proven bound is {bounds[-1]:.2g} where only what "
        f"comes after the last block is free, against a margin of {margin:.2g}, and with "
        f"{bounds[last]:.3g} it is within {100 - 100 * SATURATED:.0f} % of its value for the whole "
        f"network, {bounds[0]:.3g}, {count - 1 - last} block(s) before the end: there it is no "
        "more than what the grids of the last layers can hold, whatever comes before."
    )


def _limits(groups: Groups) -> str:
    group = next(iter(groups.values()))
    frames, images = group[0]["frames"], group[0]["test_images"]
    doubts = [standard_error(each) for each in groups.values()]
    return (
        f"Figures on {frames} frames: a share has a standard error of up to "
        f"{100 * 0.5 / frames**0.5:.1f} points; accuracy, on {images:,} images, of up to "
        f"{100 * max(doubts):.1f}. A network that is trained briefly has small margins, which "
        "lowers every share here; so only networks of one recipe are compared: bundles, runs and "
        "the small networks each among themselves."
    )


def _quotient(group: Group) -> float:
    return mean(group, lambda row: row["margin"] / row["first_order"])


def _points(group: Group, base: Group, figure: Figure) -> str:
    return f"{100 * (mean(group, figure) - mean(base, figure)):+.1f} points"
