"""Accounting of frames."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from qpde_perception.monitoring import Accounting, DropReason

TOPICS = st.sampled_from(["/front", "/left", "/rear"])
ENDS = st.one_of(st.none(), st.sampled_from(DropReason))


def finish(accounting: Accounting, topic: str, end: DropReason | None) -> None:
    if end is None:
        accounting.published(topic)
    else:
        accounting.dropped(topic, end)


@given(st.lists(st.tuples(TOPICS, ENDS)), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_frames_that_all_end_once_are_balanced_in_any_order_of_events(frames, random):
    accounting = Accounting()
    waiting = []
    for topic, end in frames:
        accounting.received(topic)
        waiting.append((topic, end))
        random.shuffle(waiting)
        while waiting and random.random() < 0.5:
            finish(accounting, *waiting.pop())
        assert accounting.balanced == (not waiting)
    for topic, end in waiting:
        finish(accounting, topic, end)

    assert accounting.balanced
    totals = accounting.totals
    assert totals.received == len(frames)
    assert totals.published == sum(end is None for _, end in frames)
    for reason in DropReason:
        assert totals.dropped.get(reason, 0) == sum(end is reason for _, end in frames)


@given(st.lists(st.tuples(TOPICS, ENDS)))
@settings(deadline=None)
def test_totals_are_the_sum_of_the_topics(events):
    accounting = Accounting()
    for topic, end in events:
        accounting.received(topic)
        finish(accounting, topic, end)

    counts = accounting.topics.values()
    totals = accounting.totals
    assert totals.received == sum(count.received for count in counts)
    assert totals.published == sum(count.published for count in counts)
    assert sum(totals.dropped.values()) == sum(sum(c.dropped.values()) for c in counts)
    assert set(accounting.topics) == {topic for topic, _ in events}


@given(st.lists(st.tuples(TOPICS, ENDS), min_size=1), st.data())
@settings(deadline=None)
def test_a_frame_that_ends_twice_is_not_balanced(events, data):
    accounting = Accounting()
    for topic, end in events:
        accounting.received(topic)
        finish(accounting, topic, end)
    finish(accounting, *data.draw(st.sampled_from(events)))

    assert not accounting.balanced


def test_topics_do_not_make_up_for_each_other():
    accounting = Accounting()
    accounting.received("/front")
    accounting.received("/left")
    accounting.published("/front")
    accounting.published("/front")

    assert accounting.totals.balanced
    assert not accounting.balanced


def test_reasons_are_written_as_their_values():
    accounting = Accounting()
    accounting.received("/front")
    accounting.dropped("/front", DropReason.TOO_OLD)

    assert json.dumps(accounting.totals.dropped) == '{"too_old": 1}'


def test_nothing_received_is_balanced():
    assert Accounting().balanced
    assert Accounting().topics == {}
