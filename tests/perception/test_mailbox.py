"""The mailbox: the newest item of every sender, each item read or handed back exactly once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Thread

from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.perception import Mailbox


def test_a_sender_supersedes_its_own_item_and_no_other():
    mailbox = Mailbox()
    assert mailbox.put("front", 1) is None
    assert mailbox.put("left", 2) is None
    assert mailbox.put("front", 3) == 1
    assert list(mailbox.take().items()) == [("left", 2), ("front", 3)]


def test_an_item_wakes_a_reader_that_waits():
    mailbox = Mailbox()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(mailbox.take)
        mailbox.put("front", 1)
        assert waiting.result(timeout=10) == {"front": 1}


def test_closing_wakes_the_reader_and_hands_back_what_is_unread():
    mailbox = Mailbox()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(mailbox.take)
        assert mailbox.close() == {}
        assert waiting.result(timeout=10) == {}
    assert mailbox.put("front", 1) == 1
    assert mailbox.take() == {}
    full = Mailbox()
    full.put("front", 2)
    assert full.close() == {"front": 2}


@given(st.lists(st.sampled_from(["put front", "put left", "take", "close"]), max_size=60))
def test_every_item_is_read_superseded_or_handed_back_exactly_once(steps):
    mailbox, left, sent, closed = Mailbox(), [], 0, False
    for step in steps:
        if step == "close":
            left += mailbox.close().values()
            closed = True
        elif step != "take":
            unread = mailbox.put(step, sent)
            left += [] if unread is None else [unread]
            sent += 1
        elif closed or set(left) != set(range(sent)):  # a reader would wait for ever
            left += mailbox.take().values()
    left += mailbox.close().values()
    assert sorted(left) == list(range(sent))


def test_nothing_is_lost_between_threads():
    mailbox, handed_back, read = Mailbox(), [], []

    def send(sender):
        for number in range(2000):
            unread = mailbox.put(sender, (sender, number))
            if unread is not None:
                handed_back.append(unread)

    def receive():
        while taken := mailbox.take():
            read.extend(taken.values())

    reader = Thread(target=receive)
    reader.start()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(send, ["front", "left"]))
    handed_back += mailbox.close().values()
    reader.join(timeout=10)
    assert not reader.is_alive()
    everything = [(sender, number) for sender in ("front", "left") for number in range(2000)]
    assert sorted(read + handed_back) == everything
