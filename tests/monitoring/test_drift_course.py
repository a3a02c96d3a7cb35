"""The course of a drive: what was said when, and for how long."""

import json
import math

from qpde_perception.monitoring import DriftCourse, DriftMonitor, Level


def monitor():
    return DriftMonitor(None, global_bound=None, alpha=0.001)


def golden(monitor, *, identical=True):
    monitor.golden(identical=identical, rms_over_noise=0.1, max_over_noise=0.3, within_budget=True)


def test_a_verdict_lasts_from_its_first_moment_to_the_first_without_it():
    course, seen = DriftCourse(), monitor()
    course.add(0.0, seen.report)
    seen.lose_reference("it is gone")
    course.add(1.0, seen.report)
    course.add(2.0, seen.report)
    course.add(3.0, monitor().report)
    course.add(4.0, seen.report)
    golden(seen, identical=False)
    course.add(5.0, seen.report)
    told = [
        (each.verdict.cause.value, each.verdict.rule, each.begin_s, each.end_s)
        for each in course.episodes
    ]
    assert told == [
        ("reference unavailable", "reference", 1.0, 3.0),
        ("reference unavailable", "reference", 4.0, None),
        ("engine changed", "exact", 5.0, None),
    ]
    assert list(course.times_s) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_the_level_is_the_worst_of_all_times():
    course, seen = DriftCourse(), monitor()
    assert course.level is Level.OK
    seen.lose_reference("it is gone")
    course.add(1.0, seen.report)
    assert course.level is Level.WARN
    golden(seen, identical=False)
    course.add(2.0, seen.report)
    course.add(3.0, monitor().report)
    assert course.level is Level.ERROR
    assert all(each.end_s == 3.0 for each in course.episodes)


def test_what_is_not_known_is_no_number_here_and_null_in_the_document():
    course, seen = DriftCourse(), monitor()
    assert course.document() == {"level": "OK", "verdicts": []}
    golden(seen)
    golden(seen, identical=False)
    course.add(1.0, seen.report)
    assert math.isnan(course.evidence[0])
    assert not course.known
    document = json.loads(json.dumps(course.document(), allow_nan=False))
    assert (document["level"], document["golden_checks"]) == ("ERROR", 2)
    assert document["noise_ratio"] is None
    (verdict,) = document["verdicts"]
    assert (verdict["cause"], verdict["level"], verdict["begin_s"], verdict["end_s"]) == (
        "engine changed",
        "ERROR",
        1.0,
        None,
    )
