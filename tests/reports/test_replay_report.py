"""The report: one file that needs nothing else, whatever the drive was like."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from qpde_perception.bundles import calibration_of
from qpde_perception.frames import CameraFrame
from qpde_perception.monitoring import DriftCourse, DriftMonitor, Observation
from qpde_perception.perception import Perception, RegionResult
from qpde_perception.reports import ReplayReport, SampleFrames, Summary
from qpde_perception.reports.plots import confusion_plot, latency_plot, timeline_plot

LABELS = ("stop", "yield", "<script>alert(1)</script>")
SUMMARY = Summary(
    drive="drive.mcap",
    cameras=("/camera/front/image",),
    model="signs",
    model_sha256="0" * 64,
    engine="openvino",
    engine_version="1",
    package_version="0",
    filter="none",
    received=3,
    published=2,
    dropped={"malformed": 1},
    objects=2,
    rejected_regions=0,
    frames_per_second=100.0,
    accuracy=None,
    accuracy_filtered=None,
    known_objects=0,
    unknown_objects=0,
    unknown_mean_probability=None,
    unmatched_objects=0,
    drift={},
    stages={"total": {"p50": 1.0, "p90": 1.0, "p99": 2.0, "max": 2.0, "mean": 1.2}},
    results_sha256="1" * 64,
    losses=(),
    interrupted=False,
)


def region(index, box=(10.0, 10.0, 40.0, 30.0)):
    return RegionResult(
        box=box,
        track_id="",
        class_index=index,
        label=LABELS[index],
        probability=0.97,
        filtered_class_index=index,
        filtered_probability=0.97,
        probabilities=np.full(2, 0.5),
        filtered_probabilities=np.full(2, 0.5),
    )


def perception(stamp_ns, *regions):
    return Perception(stamp_ns, "front", regions, {"total": 1.0})


def frame(stamp_ns=0, encoding="bgr8", size=(60, 120)):
    height, width = size
    pixels = np.full((height, width, 3), 200, np.uint8)
    data = memoryview(pixels.reshape(-1))
    return CameraFrame(stamp_ns, "front", encoding, height, width, 3 * width, data)


class Reader(HTMLParser):
    """Collects what a browser would load, run, and show."""

    def __init__(self):
        super().__init__()
        self.sources, self.tags, self.text, self.open = [], Counter(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if tag not in {"meta", "img", "wbr"}:
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def full_report():
    report = ReplayReport(LABELS)
    samples = SampleFrames(expected=2)
    for stamp, index in enumerate((0, 2)):
        seen = perception(stamp * 10**9, region(index))
        report.add(seen)
        report.score.add_results("/camera", stamp, seen.regions)
        report.score.add_truth("/camera", stamp, [seen.regions[0].box], [0])
        samples.offer(frame(), seen, "/camera")
    return report, samples


def test_the_report_loads_nothing_from_outside_and_every_picture_decodes():
    report, samples = full_report()
    summary = replace(SUMMARY, accuracy=0.5, accuracy_filtered=0.5, known_objects=2)
    reader = read(report.html(summary, samples.samples, DriftCourse()))
    assert len(reader.sources) == 3 + len(samples.samples) == 5
    for source in reader.sources:
        kind, content = re.fullmatch(r"data:image/(jpeg|svg\+xml);base64,(.+)", source).groups()
        picture = base64.b64decode(content, validate=True)
        if kind == "jpeg":
            assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) is not None
        else:
            assert ET.fromstring(picture).tag.endswith("svg")


def test_names_from_outside_are_shown_not_run():
    report, samples = full_report()
    hostile = replace(SUMMARY, drive="<img src=x onerror=alert(1)>", losses=("<b>cut</b>",))
    reader = read(report.html(hostile, samples.samples, DriftCourse()))
    assert reader.tags["script"] == 0
    assert not [source for source in reader.sources if not source.startswith("data:")]
    shown = "".join(reader.text)
    assert hostile.drive in shown
    assert "<b>cut</b>" in shown
    assert LABELS[2] in shown


def test_the_figures_of_the_summary_stand_in_the_report():
    report, samples = full_report()
    summary = replace(
        SUMMARY, accuracy=0.875, known_objects=8, unknown_objects=2, unknown_mean_probability=0.4
    )
    shown = "".join(read(report.html(summary, samples.samples, DriftCourse())).text)
    for figure in ("87.5%", "1 malformed", "100 /s", "1.00 ms", "40.0%", "1" * 64):
        assert figure in shown


def test_a_long_topic_breaks_at_its_slashes():
    html = ReplayReport(LABELS).html(SUMMARY, [], DriftCourse())
    assert "<small><wbr>/camera<wbr>/front<wbr>/image</small>" in html


def test_several_cameras_are_counted_above_and_named_below():
    html = ReplayReport(LABELS).html(
        replace(SUMMARY, cameras=("/left", "/right")), [], DriftCourse()
    )
    assert "<small>of 2 cameras</small>" in html
    assert "<dd>/left, /right</dd>" in html


def test_a_replay_without_a_single_result_still_gives_a_report():
    empty = replace(SUMMARY, published=0, stages={}, interrupted=True, losses=("cut off",))
    shown = "".join(read(ReplayReport(LABELS).html(empty, [], DriftCourse())).text)
    assert "interrupted" in shown
    assert "cut off" in shown


def test_frames_without_objects_give_a_report_without_a_timeline():
    report = ReplayReport(LABELS)
    report.add(perception(0))
    reader = read(report.html(SUMMARY, [], DriftCourse()))
    assert len(reader.sources) == 1


def test_the_summary_is_a_json_object_with_the_promised_keys():
    document = json.loads(json.dumps(SUMMARY.document(), allow_nan=False))
    promised = {
        "received",
        "published",
        "dropped",
        "frames_per_second",
        "accuracy",
        "stages",
        "results_sha256",
        "engine",
        "model",
    }
    assert promised <= document.keys()


def test_samples_are_spread_over_the_drive_and_limited():
    samples = SampleFrames(expected=100)
    for stamp in range(300):
        samples.offer(frame(), perception(stamp, region(0)), str(stamp))
    stamps = [int(sample.caption.split(":")[0]) for sample in samples.samples]
    assert stamps == [0, 13, 25, 38, 50, 63, 75, 88]


def test_a_frame_that_shows_its_damage_only_when_drawn_costs_a_sample_and_not_the_report():
    samples = SampleFrames(expected=2)
    broken = CameraFrame(0, "front", "jpeg", 0, 0, 0, memoryview(b"\xff\xd8\xff"))
    samples.offer(broken, perception(0, region(0)), "broken")
    samples.offer(frame(), perception(1, region(0)), "whole")
    assert [sample.caption for sample in samples.samples] == ["whole: stop 97%"]


def test_samples_are_frames_that_show_something():
    samples = SampleFrames(expected=10)
    for stamp in range(10):
        objects = [region(1)] if stamp == 7 else []
        samples.offer(frame(), perception(stamp, *objects), str(stamp))
    assert [sample.caption for sample in samples.samples] == ["7: yield 97%"]


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8"])
def test_the_box_is_drawn_where_the_object_is_in_the_right_colours(encoding):
    pixels = np.zeros((300, 1280, 3), np.uint8)
    pixels[:] = (250, 20, 20) if encoding == "bgr8" else (20, 20, 250)
    data = memoryview(pixels.reshape(-1))
    picture = CameraFrame(0, "front", encoding, 300, 1280, 3 * 1280, data)
    samples = SampleFrames(expected=1)
    samples.offer(picture, perception(0, region(0, (600.0, 100.0, 800.0, 200.0))), "")
    drawn = cv2.imdecode(np.frombuffer(samples.samples[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (150, 640, 3)
    np.testing.assert_allclose(drawn[120, 50], (250, 20, 20), atol=12)
    np.testing.assert_allclose(drawn[75, 350], (250, 20, 20), atol=12)
    green = drawn[75, 398:403].max(axis=0)
    assert green[1] > 150


def test_a_box_far_beyond_the_frame_is_drawn_without_harm():
    samples = SampleFrames(expected=1)
    samples.offer(frame(), perception(0, region(0, (-1e30, -1e30, 1e30, 1e30))), "")
    assert len(samples.samples) == 1


@pytest.mark.parametrize(
    "plot",
    [
        lambda: latency_plot([0.0], [1.0]),
        lambda: latency_plot(np.arange(9000) / 10, np.full(9000, 2.5)),
        lambda: timeline_plot({"seen": ("#000000", [0.0, 1.0], [0, 2])}, LABELS),
        lambda: timeline_plot({"seen": ("#000000", np.arange(9000), [1] * 9000)}, LABELS),
        lambda: confusion_plot(Counter({(0, 0): 3, (0, 2): 1}), LABELS),
        lambda: confusion_plot(Counter({(1, 0): 1}), LABELS),
    ],
    ids=["one frame", "many frames", "timeline", "many marks", "confusion", "all wrong"],
)
def test_plots_are_svg_of_bounded_size(plot):
    svg = plot()
    assert ET.fromstring(svg).tag.endswith("svg")
    assert len(svg) < 400_000


def test_the_drift_of_a_drive_is_drawn_and_every_verdict_stands_below_with_its_remedy(
    shipped_bundle,
):
    calibration, course = calibration_of(shipped_bundle), DriftCourse()
    monitor = DriftMonitor(calibration, global_bound=None, alpha=0.001)
    healthy = Observation(
        squared_distance=calibration.noise.variance,
        disagrees=False,
        saturation=tuple(0.0 for _ in calibration.taps),
        statistics=tuple(
            each.quantiles[len(each.quantiles) // 2] for each in calibration.inputs.statistics
        ),
        class_index=0,
        entropy=0.1,
    )
    for number in range(10):
        monitor.observe(healthy)
        course.add(number / 10, monitor.report)
    plain = ReplayReport(LABELS).html(SUMMARY, [], course)
    assert "none found (10 items held against the float reference, 0 golden rounds)" in plain
    assert "Not watched: global bound" in plain
    monitor.golden(identical=False, rms_over_noise=0.1, max_over_noise=0.2, within_budget=True)
    course.add(1.0, monitor.report)
    reader = read(ReplayReport(LABELS).html(SUMMARY, [], course))
    (plot,) = reader.sources
    drawn = base64.b64decode(plot.split(",")[1]).decode()
    assert "engine changed (exact)" in drawn
    assert "noise over healthy" in drawn
    shown = "".join(reader.text)
    (verdict,) = monitor.report.causes
    assert f"{verdict.message} {verdict.remedy}" in shown
    assert "engine changed (10 items" in shown
