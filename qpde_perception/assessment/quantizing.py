"""What quantizing costs against the network as it was after its float epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpde_perception.assessment.candidates import Role
from qpde_perception.assessment.figures import (
    at,
    changes,
    of_model,
    percent,
)
from qpde_perception.assessment.post_training import CALIBRATION_IMAGES
from qpde_perception.learning.experiments.experiment import Section, deviation_of, mean_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qpde_perception.assessment.figures import Group, Groups

FULL_PRECISION = "W8A8"
GOAL, GOAL_OF_FEWER_BITS = 0.1, 0.3
"""What quantizing may cost on test-a, points: with eight bits and with fewer."""
SETS = {
    "val": at("val_top1"),
    "test-a": at("test_top1"),
    "corrupted": at("robustness", "mean"),
    "other country": at("boxes", "all"),
}
QUANTIZED = {Role.DEPLOYED: "deployed", Role.POST_TRAINING: "post-training"}


def section_of(groups: Groups) -> Section | None:
    """Return the table of what quantizing costs; None where no model kept its float network."""
    table = [
        (
            *(model, group[0]["precision"], percent(floating, SETS["test-a"], 2)),
            *(_points(changes(group, floating, figure)) for figure in SETS.values()),
            f"{goal_of(group):g}",
            "yes" if is_reached(group, floating) else "no",
        )
        for model, _, group, floating in _pairs(groups)
    ]
    if not table:
        return None
    return Section(
        "What quantizing costs",
        "Top-1 minus that of the float network, in points, seed by seed: of the deployed integers, "
        "whose training had quantization in the loop; and of what one would do instead, ONNX "
        "Runtime's static quantizer on the float network (QDQ, int8, a scale for every output "
        "channel of a weight; activations from their smallest to their largest value on "
        f"{CALIBRATION_IMAGES} images of train, prepared as the vehicle does). The float network "
        "is the one at the end of the float epochs. The goal is a loss on test-a of no more than "
        "so many points.",
        (
            *("model", "precision", "float on test-a, %"),
            *(f"{name}, points" for name in SETS),
            *("goal, points", "reached"),
        ),
        table,
    )


def sentences_of(groups: Groups) -> list[str]:
    """Say of every model that kept its float network what quantizing costs, and sum it up."""
    parts: dict[str, list[str]] = {}
    reached: dict[Role, list[bool]] = {}
    for model, role, group, floating in _pairs(groups):
        found = is_reached(group, floating)
        reached.setdefault(role, []).append(found)
        parts.setdefault(model, []).append(
            f"{QUANTIZED[role]} {mean_of(changes(group, floating, SETS['test-a'])):+.2f} points "
            f"({'within' if found else 'beyond'} the {goal_of(group):g} aimed at)"
        )
    lines = [
        f"Against its float network, on test-a, {model}: {', '.join(said)}."
        for model, said in parts.items()
    ]
    sums = [
        f"{sum(found)} of {len(found)} {QUANTIZED[role]} network(s) reach the goal"
        for role, found in reached.items()
    ]
    return [*lines, f"{'; '.join(sums)}."] if lines else []


def goal_of(group: Group) -> float:
    """Return what quantizing may cost on test-a, in points."""
    return GOAL if group[0]["precision"].startswith(FULL_PRECISION) else GOAL_OF_FEWER_BITS


def is_reached(group: Group, floating: Group) -> bool:
    """Return whether quantizing costs no more than the goal, on the mean over seeds."""
    cost = mean_of(changes(group, floating, SETS["test-a"]))
    return cost is not None and cost >= -goal_of(group)


def _pairs(groups: Groups) -> Iterator[tuple[str, Role, Group, Group]]:
    """Yield model, role, rows and rows of the float network of all that is quantized."""
    for model in dict.fromkeys(model for model, _ in groups):
        floating = of_model(groups, model, Role.FLOAT)
        for role in QUANTIZED:
            group = of_model(groups, model, role)
            if floating is not None and group is not None:
                yield model, role, group, floating


def _points(differences: Sequence[float]) -> str:
    centre, deviation = mean_of(differences), deviation_of(differences)
    if centre is None:
        return "-"
    return f"{centre:+.2f}" if deviation is None else f"{centre:+.2f} ± {deviation:.2f}"
