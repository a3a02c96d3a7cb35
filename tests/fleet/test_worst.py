"""The worst frames: what they are, their order, and how few of them are enough."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.fleet.worst import KINDS, PER_KIND, worst_frames
from qpde_perception.reports.accuracy import UNKNOWN, Judged

SECOND = 10**9


def region(class_index, probability):
    return {
        "box": [0.0, 0.0, 4.0, 4.0],
        "label": str(class_index),
        "class_index": class_index,
        "probability": round(probability, 6),
    }


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Write what a replay leaves: results as (stamp, class, probability), and stamps of drops."""

    def write(results, dropped=()):
        path = tmp_path_factory.mktemp("replay")
        lines = [
            {"topic": "cam", "stamp_ns": stamp, "regions": [region(seen, probability)]}
            for stamp, seen, probability in results
        ]
        drops = [
            {"topic": "cam", "stamp_ns": stamp, "reason": "malformed", "fault": "cut off"}
            for stamp in dropped
        ]
        for name, content in (("results", lines), ("dropped", drops)):
            (path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in content))
        return path

    return write


def judged(stamp, truth, predicted, probability):
    return Judged(stamp, truth, predicted, predicted, probability)


def chosen(frames, kind):
    return [(frame.stamp_ns, frame.probability) for frame in frames if frame.kind == kind]


def test_each_kind_is_led_by_its_worst(folder):
    results = [(n * SECOND, 1, 0.1 * n) for n in range(1, 10)]
    truth = [
        judged(n * SECOND, 2 if n < 4 else UNKNOWN if n < 7 else 1, 1, 0.1 * n)
        for n in range(1, 10)
    ]
    frames = worst_frames(truth, folder(results, [20 * SECOND, 11 * SECOND]), range(9))
    assert [frame.kind for frame in frames] == sorted(
        (frame.kind for frame in frames), key=KINDS.index
    )
    assert [stamp // SECOND for stamp, _ in chosen(frames, "wrong")] == [3, 2, 1]
    assert [stamp // SECOND for stamp, _ in chosen(frames, "unknown")] == [6, 5, 4]
    assert [stamp // SECOND for stamp, _ in chosen(frames, "unsure")] == [7, 8, 9]
    assert [stamp // SECOND for stamp, _ in chosen(frames, "dropped")] == [11, 20]
    assert frames[-1].fault == "malformed: cut off"


def test_a_frame_has_what_it_takes_to_draw_it(folder):
    (frame,) = worst_frames([], folder([(5 * SECOND, 3, 0.25)]), [77])
    assert (frame.log_time_ns, frame.regions) == (77, (((0.0, 0.0, 4.0, 4.0), "3", 0.25),))


def test_of_an_object_seen_alike_within_a_second_only_the_worst_frame_is_shown(folder):
    results = [(n * SECOND // 10, 1, 0.5 - n / 100) for n in range(10)]
    frames = worst_frames([], folder(results), range(10))
    assert chosen(frames, "unsure") == [(9 * SECOND // 10, 0.41)]


OBJECTS = st.lists(
    st.tuples(st.integers(0, 10**12), st.integers(0, 3), st.floats(0, 1), st.integers(-1, 3)),
    max_size=60,
    unique_by=lambda one: one[0],
)


@given(OBJECTS)
def test_few_are_chosen_none_twice_and_none_worse_of_an_alike_object_is_left(folder, objects):
    results = [(stamp, seen, probability) for stamp, seen, probability, _ in objects]
    truth = [judged(stamp, true, seen, probability) for stamp, seen, probability, true in objects]
    frames = worst_frames(truth, folder(results), range(len(objects)))
    assert len({frame.stamp_ns for frame in frames}) == len(frames)
    for kind in KINDS:
        of_kind = [frame for frame in frames if frame.kind == kind]
        assert len(of_kind) <= PER_KIND
        assert [frame.rank for frame in of_kind] == sorted(frame.rank for frame in of_kind)
    wrong = [one for one in truth if one.truth not in (UNKNOWN, one.predicted)]
    if wrong:
        worst = max(round(one.probability, 6) for one in wrong)
        assert chosen(frames, "wrong")[0][1] == worst
    else:
        assert not chosen(frames, "wrong")
