"""Matching of frames with regions: whichever comes first, each frame ends in exactly one way."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.frames import Regions
from qpde_perception.perception.matching import RegionMatcher


def regions(name):
    return Regions(np.zeros((1, 4), np.float32), (name,))


def names(matches):
    return [(item, found.ids[0]) for item, found in matches.pairs]


def test_regions_may_come_before_or_after_their_frame():
    matcher = RegionMatcher()
    assert names(matcher.add_frame(10, "a")) == []
    assert names(matcher.add_regions(10, regions("of a"))) == [("a", "of a")]
    assert names(matcher.add_regions(20, regions("of b"))) == []
    assert names(matcher.add_frame(20, "b")) == [("b", "of b")]


def test_another_stamp_is_another_frame_unless_there_is_slop():
    exact, loose = RegionMatcher(), RegionMatcher(slop_ns=5)
    for matcher, expected in ((exact, []), (loose, [("a", "near")])):
        matcher.add_frame(10, "a")
        assert names(matcher.add_regions(15, regions("near"))) == expected
    loose.add_frame(30, "b")
    loose.add_frame(34, "c")
    assert names(loose.add_regions(33, regions("nearest"))) == [("c", "nearest")]
    assert names(loose.add_regions(100, regions("far"))) == []


def test_frames_older_than_a_matched_one_are_passed():
    matcher = RegionMatcher()
    for stamp_ns in (10, 20, 30):
        matcher.add_frame(stamp_ns, stamp_ns)
    assert matcher.add_regions(20, regions("x")).passed == [10]
    assert names(matcher.add_regions(30, regions("y"))) == [(30, "y")]
    matcher.add_regions(50, regions("z"))
    matcher.add_frame(40, 40)
    assert matcher.add_frame(50, 50).passed == [40]


def test_frames_whose_regions_do_not_come_make_room_for_newer_ones():
    matcher = RegionMatcher(capacity=2)
    assert [matcher.add_frame(stamp, stamp).crowded for stamp in (1, 2, 3, 4)] == [[], [], [1], [2]]
    assert matcher.clear() == [3, 4]
    assert names(matcher.add_regions(3, regions("late"))) == []


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60),
    st.integers(0, 3),
    st.integers(1, 4),
)
def test_every_frame_is_paired_passed_crowded_or_still_waiting_exactly_once(
    events, slop_ns, capacity
):
    matcher, ended, frames = RegionMatcher(slop_ns=slop_ns, capacity=capacity), [], 0
    for is_frame, stamp_ns in events:
        if is_frame:
            matches = matcher.add_frame(stamp_ns, (frames, stamp_ns))
            frames += 1
        else:
            matches = matcher.add_regions(stamp_ns, regions(str(stamp_ns)))
        for (_, framed_ns), found in matches.pairs:
            assert abs(framed_ns - int(found.ids[0])) <= slop_ns
        paired = [item for item, _ in matches.pairs]
        ended += [number for number, _ in [*paired, *matches.passed, *matches.crowded]]
    waiting = matcher.clear()
    assert len(waiting) <= capacity
    ended += [number for number, _ in waiting]
    assert sorted(ended) == list(range(frames))
