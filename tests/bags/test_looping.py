"""Frames over and over at a rate, and new stamps that keep together what belongs together."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.bags import NewStamps, at_rate, first_frames, stamp_in, typestore
from qpde_perception.bags.drive import SerializedMessage
from qpde_perception.bags.messages import header_of

CAMERA, BOXES = "/front/image", "/front/regions"


def message(topic, stamp_ns, log_time_ns=0):
    cdr = typestore().serialize_cdr(header_of(stamp_ns, "front"), "std_msgs/msg/Header")
    return SerializedMessage(topic, log_time_ns, bytes(cdr))


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_the_stamp_of_a_serialized_message_is_read_as_it_was_written(stamp_ns):
    assert stamp_in(message(CAMERA, stamp_ns).cdr) == stamp_ns


def test_a_frame_is_an_image_with_what_has_its_stamp_also_where_that_comes_later():
    recorded = [
        message(BOXES, 1),  # of an image before the drive began
        message(CAMERA, 10),
        message(CAMERA, 20),
        message(BOXES, 10),
        message(BOXES, 20),
        message(CAMERA, 30),
    ]
    frames = first_frames(recorded, CAMERA, most=3)
    told = [[(each.topic, stamp_in(each.cdr)) for each in frame] for frame in frames]
    assert told == [[(CAMERA, 10), (BOXES, 10)], [(CAMERA, 20), (BOXES, 20)], [(CAMERA, 30)]]


def test_no_more_frames_are_read_than_asked_for_or_than_memory_may_take():
    def endless():
        for number in range(1, 10_000):
            taken.append(number)
            yield message(CAMERA, number)

    taken = []
    assert len(first_frames(endless(), CAMERA, most=4)) == 4
    assert len(taken) < 12
    size = len(message(CAMERA, 1).cdr)
    assert len(first_frames(endless(), CAMERA, most=100, most_bytes=10 * size)) == 11


@given(st.integers(1, 7), st.floats(0.5, 5000.0), st.integers(1, 60))
def test_frames_come_in_turn_at_an_even_pace_without_drift(kinds, rate_hz, count):
    frames = [(message(CAMERA, number), message(BOXES, number)) for number in range(kinds)]
    sent = list(at_rate(frames, rate_hz, count))
    images = [each for each in sent if each.topic == CAMERA]
    assert len(images) == count
    assert [stamp_in(each.cdr) for each in images] == [number % kinds for number in range(count)]
    for number, (image, boxes) in enumerate(zip(sent[::2], sent[1::2], strict=True)):
        assert image.log_time_ns == boxes.log_time_ns
        assert image.log_time_ns == pytest.approx(number * 1e9 / rate_hz, abs=1)


def test_a_count_of_0_has_no_end():
    assert len(list(islice(at_rate([(message(CAMERA, 1),)], 10.0, 0), 1000))) == 1000


@given(
    st.lists(st.tuples(st.sampled_from([CAMERA, BOXES, "/c"]), st.integers(0, 5)), max_size=80),
    st.lists(st.integers(0, 3), min_size=80, max_size=80),
)
def test_new_stamps_never_repeat_on_a_topic_and_never_go_back_on_new_frames(sent, waits):
    stamps, now_ns, given_to = NewStamps(), 10**18, {}
    for (topic, recorded_ns), wait_ns in zip(sent, waits, strict=False):
        now_ns += wait_ns
        new_ns = stamps.stamp_ns(topic, recorded_ns, now_ns)
        assert new_ns >= 10**18
        assert new_ns not in given_to.setdefault(topic, [])
        given_to[topic].append(new_ns)


def test_an_image_and_its_boxes_get_one_stamp_whichever_comes_first_and_in_every_turn():
    stamps = NewStamps()
    order = [(CAMERA, 1), (BOXES, 1), (BOXES, 2), (CAMERA, 2), (CAMERA, 3), (CAMERA, 4), (BOXES, 3)]
    new = [
        [stamps.stamp_ns(topic, stamp, turn * 1000 + at) for at, (topic, stamp) in enumerate(order)]
        for turn in range(1, 4)
    ]
    for turn, (first, boxes, boxes_2, second, third, fourth, boxes_3) in enumerate(new, 1):
        assert first == boxes == turn * 1000
        assert boxes_2 == second == turn * 1000 + 2
        assert boxes_3 == third < fourth
    assert all(after[0] > before[-2] for before, after in pairwise(new))
