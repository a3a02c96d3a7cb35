"""Rows and reading of the experiment on graphs."""

from __future__ import annotations

import pytest

from qpde_perception.learning.experiments.graph import present, summarise
from qpde_perception.learning.experiments.jobs import Result
from qpde_perception.learning.experiments.runs import GraphRun, Outcome, Precision
from qpde_perception.learning.experiments.settings import GraphRecipe

RECIPE = GraphRecipe(float_epochs=1, quantized_epochs=1)


def result(flavour, precision, seed, top1):
    run = GraphRun("cora", flavour, Precision.parse(precision), seed, RECIPE, "tiny")
    return Result(run, Outcome(top1, top1, 100, 1, 1.0, diverged=False, machine="a CPU"), None)


@pytest.fixture
def rows():
    figures = {
        ("twin", "float"): (0.80, 0.70),
        ("twin", "W8A8"): (0.70, 0.62),
        ("twin", "W4A4"): (0.76, 0.66),
        ("paper", "float"): (0.78, 0.72),
        ("paper", "W8A8"): (0.77, 0.71),
        ("paper", "W4A4"): (0.76, 0.70),
    }
    return summarise(
        [
            result(flavour, precision, seed, top1)
            for (flavour, precision), values in figures.items()
            for seed, top1 in enumerate(values)
        ]
    )


def test_losses_are_paired_by_seed(rows):
    row = next(r for r in rows if (r["flavour"], r["precision"]) == ("twin", "W8A8"))
    assert row["test_top1"] == pytest.approx(0.66)
    assert row["loss"] == pytest.approx(0.09)
    assert row["loss_deviation"] == pytest.approx(0.02 / 2**0.5)


def test_the_reading_tells_the_losses_of_every_flavour(rows):
    reading = " ".join(present(rows).reading)
    assert "Lost against float, points: twin 9.0, paper 1.0." in reading
    assert "cora at float: paper leads twin by 0.0 points, no more than" in reading or (
        "cora at float: twin leads paper by 0.0 points, no more than" in reading
    )


def test_a_loss_that_grows_with_the_bits_is_laid_to_training(rows):
    remarks = [line for line in present(rows).reading if "training on" in line]
    assert len(remarks) == 1
    assert "cora, twin: W8A8 loses 5.0 points more than W4A4" in remarks[0]
