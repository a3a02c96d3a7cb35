"""Playing at a rate: when messages are due, reading ahead, and what latched topics still give."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer

from qpde_perception.bags import Playback, Prefetch, Tick, latched_before, open_drive, typestore
from qpde_perception.bags.playback import Schedule

rates = st.floats(0.001, 1000.0)
moments = st.integers(0, 10**13)


def messages(*log_times_ms):
    return [SimpleNamespace(log_time_ns=time_ms * 1_000_000) for time_ms in log_times_ms]


def played_at_ms(playback, drive, start_ns=0):
    """Play, and return what came and when, milliseconds after the beginning."""
    begin = time.monotonic()
    return [
        (each, (time.monotonic() - begin) * 1000) for each in playback.play(iter(drive), start_ns)
    ]


@given(rates, moments, moments, st.lists(moments, min_size=2))
def test_distances_between_due_times_are_the_recorded_ones_by_the_rate(rate, start, now, positions):
    schedule = Schedule(start, now, rate, paused=False)
    due = [schedule.due_ns(position) for position in sorted(positions)]
    # From the first to the last, however many lie between: nothing adds up.
    recorded = max(positions) - min(positions)
    assert due[-1] - due[0] == pytest.approx(recorded / rate, abs=1 + 1e-9 * abs(due[-1]))
    assert due == sorted(due)


@given(rates, moments, moments)
def test_position_and_due_time_are_inverse(rate, start, later):
    schedule = Schedule(start, 0, rate, paused=False)
    due = schedule.due_ns(start + later)
    assert schedule.position_ns(due) == pytest.approx(start + later, abs=1 + rate)


@given(rates, moments, moments, moments)
def test_a_pause_delays_everything_after_it_by_its_length(rate, position, before, length):
    schedule = Schedule(0, 0, rate, paused=False)
    due = schedule.due_ns(position)
    schedule.pause(before)
    stood_at = schedule.position_ns(before + length // 2)
    assert schedule.due_ns(position) is None
    assert schedule.position_ns(before + length) == stood_at
    schedule.resume(before + length)
    # A moment of the pause is rounded to the nanosecond of the drive, which is longer when slow.
    assert schedule.due_ns(position) == pytest.approx(due + length, abs=2 + 1 / rate)


def test_messages_come_when_they_are_due_and_late_ones_at_once():
    drive = messages(0, 100, 200, 1200)
    seen = []
    begin = time.monotonic()
    for message in Playback(2.0).play(iter(drive), 0):
        seen.append((time.monotonic() - begin) * 1000)
        if message is drive[1]:
            time.sleep(0.25)  # the third becomes due meanwhile, the fourth does not
    # Never early; how late depends on what else the machine does.
    assert 50 <= seen[1] < 250
    assert 300 <= seen[2] < 500
    assert 600 <= seen[3] < 750  # 200 ms more, had the late one moved it


def test_the_silence_before_the_first_message_is_kept():
    ((_, at_ms),) = played_at_ms(Playback(1.0), messages(80), start_ns=0)
    assert 80 <= at_ms < 500


def test_ticks_come_between_messages_never_behind_the_next_and_none_without_a_clock():
    drive = messages(0, 200)
    events = [event for event, _ in played_at_ms(Playback(1.0, tick_hz=100.0), drive)]
    ticks = [event.position_ns for event in events if isinstance(event, Tick)]
    assert [event for event in events if not isinstance(event, Tick)] == drive
    assert 3 <= len(ticks) <= 22
    assert all(earlier <= later <= 200_000_000 for earlier, later in pairwise(ticks))
    assert [event for event, _ in played_at_ms(Playback(4.0), drive)] == drive


def test_paused_only_steps_let_messages_out_and_resuming_goes_on_from_there():
    drive = messages(0, 500, 700, 1000)
    playback = Playback(1.0, paused=True)
    came = []
    thread = threading.Thread(target=lambda: came.extend(played_at_ms(playback, drive)))
    assert playback.step()
    assert playback.step()
    thread.start()
    time.sleep(0.2)
    assert playback.paused
    resumed = time.monotonic()
    playback.resume()
    assert not playback.step()
    thread.join(10)
    assert [message for message, _ in came] == drive
    assert came[1][1] < 200 <= came[2][1]
    # From the message stepped to, 500 ms of the drive are left.
    assert 500 <= (time.monotonic() - resumed) * 1000 < 900


def test_stopping_ends_a_wait_and_gives_out_nothing_more():
    playback = Playback(0.001)
    threading.Timer(0.05, playback.stop).start()
    came = played_at_ms(playback, messages(0, 100))
    assert len(came) == 1
    assert playback.stopped


@given(st.lists(st.integers()), st.integers(1, 5))
def test_reading_ahead_gives_the_same_items_in_the_same_order(items, ahead):
    with Prefetch(items, ahead) as read:
        assert list(read) == items


def test_reading_ahead_takes_no_more_than_allowed_and_stops_when_closed():
    taken = []

    def source():
        for number in range(1000):
            taken.append(number)
            yield number

    with Prefetch(source(), ahead=3) as read:
        assert next(iter(read)) == 0
        time.sleep(0.1)
        assert len(taken) <= 1 + 3 + 1  # given out, waiting, and in the hand of the reader
    after = len(taken)
    time.sleep(0.05)
    assert len(taken) == after < 20


def test_what_reading_raises_comes_after_the_items_before_it():
    def source():
        yield 1
        msg = "cannot go on"
        raise ValueError(msg)

    with Prefetch(source(), ahead=2) as read:
        items = iter(read)
        assert next(items) == 1
        with pytest.raises(ValueError, match="cannot go on"):
            next(items)


@pytest.fixture
def latched_drive(tmp_path, make_qos):
    """A text every second on three topics: latched with depth 2, latched with 1, and not."""
    store = typestore()
    kind = "std_msgs/msg/String"
    path = tmp_path / "drive"
    offers = {"/two": make_qos(depth=2), "/one": make_qos(depth=1), "/none": None}
    with Rosbag2Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = [
            writer.add_connection(
                topic, kind, typestore=store, offered_qos_profiles=[offer] if offer else []
            )
            for topic, offer in offers.items()
        ]
        for second in range(5):
            text = store.types[kind](data=str(second))
            for connection in connections:
                time_ns = (100 + second) * 10**9
                writer.write(connection, time_ns, store.serialize_cdr(text, kind))
    return path


@pytest.mark.parametrize(
    ("start_s", "expected"),
    [
        (0.0, {}),
        (0.5, {"/two": "0", "/one": "0"}),
        (3.0, {"/two": "12", "/one": "2"}),
        (9.0, {"/two": "34", "/one": "4"}),
    ],
)
def test_latched_topics_give_their_last_messages_before_a_start(latched_drive, start_s, expected):
    given_out: dict[str, str] = {}
    with open_drive(latched_drive) as drive:
        for message in latched_before(drive, ["/two", "/one", "/none"], start_s):
            text = typestore().deserialize_cdr(message.cdr, "std_msgs/msg/String").data
            given_out[message.topic] = given_out.get(message.topic, "") + text
        assert given_out == expected
        assert not list(latched_before(drive, ["/none"], start_s))
