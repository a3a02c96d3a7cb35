"""Rows of which evenly spread ones are kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.monitoring import Thinned


@given(st.integers(0, 500), st.integers(2, 40))
def test_every_nth_row_is_kept_and_never_more_than_wanted(count, most):
    rows = Thinned("qd", most)
    for number in range(count):
        rows.add(number, number / 2)
        assert len(rows) <= most
    numbers, halves = rows.columns

    assert list(numbers) == list(range(0, count, rows.every))
    assert list(halves) == [number / 2 for number in numbers]
    assert rows.every == 1 or len(rows) >= most // 2
