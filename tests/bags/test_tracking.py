"""One sign keeps one identifier through a burst."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.bags.tracking import Tracker


def _box(x, y=0.0):
    return (x - 5.0, y - 5.0, x + 5.0, y + 5.0)


def test_signs_of_one_label_are_told_apart_by_their_distance():
    tracker = Tracker("7")
    assert tracker.update([_box(0), _box(100)], ["stop", "stop"]) == ("7.0", "7.1")
    assert tracker.update([_box(90), _box(20)], ["stop", "stop"]) == ("7.1", "7.0")


def test_sign_that_moves_far_keeps_its_identifier_by_its_label():
    tracker = Tracker("7")
    tracker.update([_box(0), _box(300)], ["stop", "speed_50"])
    assert tracker.update([_box(290), _box(10)], ["stop", "speed_50"]) == ("7.0", "7.1")


def test_new_sign_gets_a_new_identifier_and_a_lost_one_is_not_reused():
    tracker = Tracker("7")
    tracker.update([_box(0)], ["stop"])
    assert tracker.update([_box(0)], ["speed_50"]) == ("7.1",)
    assert tracker.update([_box(0)], ["stop"]) == ("7.2",)


@given(st.lists(st.lists(st.tuples(st.floats(0, 99), st.sampled_from("ab")), max_size=6)))
def test_identifiers_of_a_frame_are_never_equal(frames):
    tracker = Tracker("1")
    for frame in frames:
        ids = tracker.update([_box(x) for x, _ in frame], [label for _, label in frame])
        assert len(set(ids)) == len(ids) == len(frame)
