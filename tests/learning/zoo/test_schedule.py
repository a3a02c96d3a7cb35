"""Bits over the epochs, and norms that follow the precision."""

from __future__ import annotations

import pytest

from qpde_perception.learning.zoo import BitSchedule, set_bits
from qpde_perception.learning.zoo.certified import GradientStep


def test_one_bit_goes_every_ten_epochs_until_the_target():
    schedule = BitSchedule(4, 8)
    assert schedule.at(0) == schedule.at(9) == (16, 16)
    assert schedule.at(10) == (15, 15)
    assert schedule.at(80) == (8, 8)
    assert schedule.at(90) == (7, 8)
    assert schedule.at(119) == (5, 8)
    assert schedule.at(120) == schedule.at(199) == (4, 8)


def test_floating_point_stays_so():
    assert BitSchedule(4, None, epochs_per_bit=1).at(50) == (4, None)


def test_certified_norms_follow_the_rounded_weights(small):
    network = small("resnet20", "certified").eval()
    blocks = [part for part in network.modules() if isinstance(part, GradientStep)]
    before = [block.norm.squared.item() for block in blocks]
    set_bits(network, 2, None)
    after = [block.norm.squared.item() for block in blocks]
    set_bits(network, None, None)
    assert all(a != pytest.approx(b, rel=0.02) for a, b in zip(after, before, strict=True))
    again = [block.norm.squared.item() for block in blocks]
    assert again == pytest.approx(before, rel=0.01)
