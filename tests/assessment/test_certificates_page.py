"""What the page says follows from its rows."""

from __future__ import annotations

import pytest

from qpde_perception.assessment.certificates_page import gains_of, label_of, present
from qpde_perception.assessment.certificates_reading import growth, standard_error
from qpde_perception.assessment.figures import grouped_by


def row(model, *, kind="network", penalty=0.0, seed=1, **changes):
    """A row of round figures."""
    trained = kind == "network"
    return {
        "kind": kind,
        "model": model,
        "noise_penalty": penalty,
        "seed": seed,
        "parameters": 1000,
        "val_top1": 0.9,
        "test_top1": 0.9,
        "test_images": 900,
        "frames": 100,
        "certified_share": 0.0,
        "refuted_share": 1.0,
        "covered_share": 0.1,
        "margin": 5.0,
        "first_order": 40.0,
        "five_sigma_share": 0.8,
        "noise_ratio": 1.0,
        "global_bound": 1e9,
        "observed_max": 1.0,
        "broken_bounds": 0,
        "blocks": [{"name": name, "gain": gain} for name, gain in (("stem", 6.0), ("b", 2.0))],
        "stages": [{"name": "stage0", "lipschitz": 3.0}],
        "proven": [{"name": "stem", "bound": 50.0}, {"name": "b", "bound": 20.0}],
        "predicted": 0.5,
        "limits": {"stem": 0.5, "x": 0.3, "y": 0.1, "z": 0.1},
        "training_seconds": 10.0 if trained else None,
        "measuring_minutes": 1,
        "machine": "a CPU",
        "trained_on": "a CPU" if trained else None,
        "learned_every": 4 if trained else None,
        **changes,
    }


def reading(*rows):
    return present(rows).reading


def the_one(lines, beginning):
    (found,) = [line for line in lines if line.startswith(beginning)]
    return found


def test_names_are_those_of_configurations_with_their_penalty():
    assert label_of(row("twin_mobilenet_v2")) == "twin"
    assert label_of(row("gain4_mobilenet_v2_small", penalty=0.5)) == "gain4_small, penalty 0.5"


def test_seeds_share_a_line_with_their_deviation():
    shown = present([row("a", test_top1=0.8), row("a", seed=2, test_top1=0.9), row("b")])
    assert [line[0] for line in shown.table] == ["a", "b"]
    assert shown.table[0][3] == "85.0 ± 7.1"
    assert all(len(line) == len(shown.head) for line in shown.table)
    for section in shown.sections:
        assert all(len(line) == len(section.head) for line in section.table)


def test_gains_are_averaged_block_by_block_and_growth_seed_by_seed():
    steep = [{"name": "stem", "gain": 8.0}, {"name": "b", "gain": 1.0}]
    group = [row("a"), row("a", seed=2, blocks=steep)]
    assert gains_of(group) == [7.0, 1.5]
    assert growth(group) == pytest.approx((3.0 + 8.0) / 2)


def test_forms_are_held_against_the_symmetric_network_of_their_own_kind():
    flat = [{"name": "stem", "gain": 2.0}, {"name": "b", "gain": 2.0}]
    lines = reading(
        row("symmetric_mobilenet_v2", kind="run"),
        row("twin_mobilenet_v2", kind="run", test_top1=0.95, first_order=80.0),
        row("symmetric_mobilenet_v2_small"),
        row("stable_mobilenet_v2_small", test_top1=0.7, blocks=flat, first_order=20.0),
    )
    full, small = (line for line in lines if line.startswith("**Forms**"))
    assert "against symmetric: twin +5.0 points on test-a" in full
    assert "x0.50" in full
    assert "against symmetric_small: stable_small -20.0 points" in small
    assert "the largest quotient of margin and bound has stable_small, which is -20.0" in small
    depth = [line for line in lines if line.startswith("**Depth.**")]
    assert "least in stable_small and most in symmetric_small" in depth[1]


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        (0.9, "at no accuracy beyond two standard errors"),
        (0.89, "at no accuracy beyond two standard errors"),
        (0.8, "at a price in accuracy"),
        (0.97, "and accuracy rose"),
    ],
)
def test_a_penalty_is_held_against_the_same_network_without(accuracy, verdict):
    lines = reading(
        row("symmetric_mobilenet_v2_small"),
        row("symmetric_mobilenet_v2_small", penalty=1.0, test_top1=accuracy, predicted=0.25),
    )
    line = the_one(lines, "**Penalty.**")
    assert verdict in line
    assert "predicted deviation x0.50" in line
    assert not [line for line in lines if line.startswith("**Forms**")]


def test_the_local_bound_names_the_largest_share_and_the_bits_that_are_missing():
    none = the_one(reading(row("a"), row("b", first_order=160.0)), "**Local bound (b).**")
    assert "No network has a certified frame, and at least 100 %" in none
    assert "Nearest to a certificate is a" in none
    assert "x8 its median margin, which grids finer by 3.0 bits" in none
    some = the_one(reading(row("a"), row("b", certified_share=0.25)), "**Local bound (b).**")
    assert "largest certified share is 25.0 % (b)" in some


def test_a_broken_bound_is_said():
    assert "3 bounds broke" in the_one(reading(row("a", broken_bounds=3)), "**Model of the noise")
    assert "No bound was broken" in the_one(reading(row("a")), "**Model of the noise")


def test_of_a_bundle_it_is_said_what_limits_its_bound():
    line = the_one(reading(row("signs", kind="bundle")), "**What limits (b) for signs.**")
    assert "80 times as far as the predicted deviation, the median margin is 10" in line
    assert "90 % of it come from stem, x, y" in line
    assert "within 10 % of its value for the whole network, 50, 1 block(s) before the end" in line
    many = {f"q{i}": 0.05 for i in range(20)}
    spread = the_one(reading(row("signs", kind="bundle", limits=many)), "**What limits")
    assert "No few quantizers are to blame" in spread
    assert "make up 15 %" in spread


def test_the_standard_error_is_that_of_all_images_of_all_seeds():
    assert standard_error([row("a")]) == pytest.approx(0.01)
    assert standard_error([row("a")] * 4) == pytest.approx(0.005)


def test_rows_are_grouped_in_order_of_appearance():
    assert grouped_by([3, 1, 4, 6, 5], lambda value: value % 2) == {1: [3, 1, 5], 0: [4, 6]}
