"""What a diagnostics task says, and how its values are written."""

from __future__ import annotations

import locale
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.monitoring.levels import Findings, Level, count, decimal, listed, truth


@given(st.floats(-1e7, 1e7))
def test_a_number_is_read_back_to_its_third_decimal(value):
    text = decimal(value)

    assert len(text.partition(".")[2]) == 3
    assert float(text) == pytest.approx(value, abs=0.000501)


@pytest.mark.parametrize("value", [-0.0, -0.0004, 0.0])
def test_zero_has_no_sign(value):
    assert decimal(value) == "0.000"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_missing(value):
    assert decimal(value) == "N/A"
    assert decimal(value, "n/a") == "n/a"


def test_a_number_has_a_point_where_the_locale_has_a_comma(monkeypatch):
    monkeypatch.setattr(locale, "localeconv", lambda: {"decimal_point": ",", "grouping": [3]})

    assert decimal(1234567.25) == "1234567.250"
    assert count(1234567) == "1234567"


def test_truth_and_lists_and_missing_counts_have_their_words():
    assert (truth(True), truth(False)) == ("True", "False")
    assert listed(("/front", "/left")) == "/front, /left"
    assert listed(()) == "none"
    assert count(None) == "N/A"


@given(st.lists(st.sampled_from(Level)))
def test_the_worst_level_wins_and_every_message_is_kept(levels):
    findings = Findings()
    for index, level in enumerate(levels):
        findings.add(level, f"finding {index}.")
    status = findings.status("task", {}, fine="All is well.")

    assert status.level == max(levels, default=Level.OK)
    expected = " ".join(f"finding {index}." for index in range(len(levels)))
    assert status.message == (expected or "All is well.")
