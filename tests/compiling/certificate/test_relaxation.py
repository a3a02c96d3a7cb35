"""Linear relaxation of clipping."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from qpde_perception.compiling.certificate.relaxation import Interval, relax  # noqa: E402

NUMBERS = st.floats(-300, 300).map(lambda x: round(x, 3))


def relaxed(v, ends, limits):
    low, high = sorted(ends)
    wrap = [torch.tensor([x], dtype=torch.float64) for x in (v, low, high)]
    return relax(wrap[0], Interval(wrap[1], wrap[2]), limits)


@given(
    v=NUMBERS,
    ends=st.tuples(NUMBERS, NUMBERS),
    share=st.floats(0, 1),
    limits=st.sampled_from([(-128.0, 127.0), (0.0, 255.0), (float("-inf"), float("inf"))]),
)
def test_every_difference_lies_within_the_relaxation(v, ends, share, limits):
    low, high = sorted(ends)
    d = low + share * (high - low)
    change = min(max(v + d, limits[0]), limits[1]) - min(max(v, limits[0]), limits[1])
    found = relaxed(v, ends, limits)
    error = change - found.slope.item() * d
    assert found.low.item() - 1e-9 <= error <= found.high.item() + 1e-9


@given(v=st.floats(1, 254), reach=st.floats(0, 1))
def test_what_cannot_switch_is_exact(v, reach):
    found = relaxed(v, (-reach, reach), (0.0, 255.0))
    assert found.slope.item() == 1.0
    assert (found.low.item(), found.high.item()) == pytest.approx((0.0, 0.0), abs=1e-12)


@given(v=st.floats(-50, -2), reach=st.floats(0, 1))
def test_what_stays_clipped_passes_nothing(v, reach):
    found = relaxed(v, (-reach, reach), (0.0, 255.0))
    assert (found.slope.item(), found.low.item(), found.high.item()) == (0.0, 0.0, 0.0)
