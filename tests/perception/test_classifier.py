"""The classifier, with a small engine whose answers can be worked out by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from mean_colour import MeanColourEngine, bundle
from numpy.testing import assert_allclose

from qpde_perception.engines import EngineError
from qpde_perception.frames import CameraFrame, FrameError, Regions
from qpde_perception.perception import (
    Classifier,
    ExponentialFilter,
    NoFilter,
    Request,
    classify_together,
    softmax,
)

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
STAGES = {"decode", "prepare", "infer", "postprocess", "total"}
SECOND_NS = 1_000_000_000


def flag():
    """Return a picture (BGR) with three upright bands: red, green, blue."""
    bands = [np.full((90, 40, 3), colour[::-1], np.uint8) for colour in COLOURS.values()]
    return np.hstack(bands)


def raw(pixels, stamp_ns=5):
    height, width, channels = pixels.shape
    data = memoryview(pixels.tobytes())
    return CameraFrame(stamp_ns, "front", "bgr8", height, width, width * channels, data)


def bands(*names, ids=None):
    left = [40.0 * list(COLOURS).index(name) for name in names]
    boxes = np.array([[x + 4, 10, x + 36, 80] for x in left], np.float32).reshape(-1, 4)
    return Regions(boxes, ids or ("",) * len(names))


def test_each_region_gets_the_class_that_it_shows():
    engine = MeanColourEngine()
    regions = bands("blue", "red", "green", ids=("x", "y", ""))
    perception = Classifier(bundle(), engine, NoFilter()).classify(raw(flag()), regions)

    assert (perception.stamp_ns, perception.frame_id) == (5, "front")
    assert [result.label for result in perception.regions] == ["blue", "red", "green"]
    assert [result.class_index for result in perception.regions] == [2, 0, 1]
    assert [result.filtered_class_index for result in perception.regions] == [2, 0, 1]
    assert [result.track_id for result in perception.regions] == ["x", "y", ""]
    assert perception.regions[1].box == (4.0, 10.0, 36.0, 80.0)
    sure = softmax(np.array([10.0, 0.0, 0.0]))[0]
    assert_allclose([result.probability for result in perception.regions], sure)
    assert perception.rejected == ()
    (batch,) = engine.batches
    assert batch.shape == (3, 8, 8, 3)
    assert batch.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_frame_gets_the_classes_of_the_raw_one(suffix):
    large = cv2.resize(flag(), (960, 720), interpolation=cv2.INTER_NEAREST)
    data = memoryview(cv2.imencode(suffix, large)[1])
    frame = CameraFrame(5, "front", "jpeg" if suffix == ".jpg" else "png", 0, 0, 0, data)
    boxes = Regions(8 * bands("green", "blue").boxes, ("", ""))
    perception = Classifier(bundle(), MeanColourEngine(), NoFilter()).classify(frame, boxes)

    assert [result.label for result in perception.regions] == ["green", "blue"]


def test_whole_frame_is_one_region_without_a_box():
    reddish = np.hstack([flag(), flag()[:, :40]])
    perception = Classifier(bundle(), MeanColourEngine(), NoFilter()).classify(raw(reddish))

    (result,) = perception.regions
    assert (result.box, result.track_id, result.label) == (None, "", "red")
    logits = np.array([5.0, 2.5, 2.5])
    assert result.probability == pytest.approx(softmax(logits)[0], rel=0.02)


def test_frame_without_regions_is_published_without_inference():
    engine = MeanColourEngine()
    perception = Classifier(bundle(), engine, NoFilter()).classify(raw(flag()), bands())

    assert perception.regions == ()
    assert set(perception.stages_ms) == STAGES - {"infer"}
    assert engine.batches == []


@pytest.mark.parametrize("regions", [None, bands()], ids=["whole frame", "no regions"])
def test_damaged_frame_is_malformed_whether_or_not_a_detector_found_something(regions):
    broken = CameraFrame(0, "front", "jpeg", 0, 0, 0, memoryview(b"\xff\xd8\xff"))
    with pytest.raises(FrameError):
        Classifier(bundle(), MeanColourEngine(), NoFilter()).classify(broken, regions)


def test_frame_whose_regions_all_lie_outside_is_published_without_inference():
    engine = MeanColourEngine()
    outside = Regions(np.array([[500, 500, 600, 600]], np.float32), ("x",))
    perception = Classifier(bundle(), engine, NoFilter()).classify(raw(flag()), outside)

    assert (perception.regions, perception.rejected) == ((), (0,))
    assert engine.batches == []


def test_one_bad_region_does_not_cost_the_others():
    boxes = np.vstack([[[np.nan, 0, 9, 9]], bands("green").boxes]).astype(np.float32)
    classifier = Classifier(bundle(), MeanColourEngine(), NoFilter())
    perception = classifier.classify(raw(flag()), Regions(boxes, ("bad", "good")))

    assert perception.rejected == (0,)
    assert [(r.track_id, r.label) for r in perception.regions] == [("good", "green")]


def test_filter_smooths_over_frames_and_the_raw_class_stays_visible():
    temporal_filter = ExponentialFilter(time_constant_s=10.0, reset_after_s=60.0)
    classifier = Classifier(bundle(), MeanColourEngine(), temporal_filter)
    classifier.classify(raw(flag(), stamp_ns=0), bands("red", ids=("sign",)))
    later = classifier.classify(raw(flag(), stamp_ns=SECOND_NS), bands("blue", ids=("sign",)))

    (result,) = later.regions
    assert (result.label, result.class_index, result.filtered_class_index) == ("blue", 2, 0)
    assert result.filtered_probability == pytest.approx(np.exp(-0.1), rel=1e-3)


def test_frame_without_regions_tells_the_filter_that_nothing_was_there():
    temporal_filter = ExponentialFilter(time_constant_s=10.0, reset_after_s=60.0)
    classifier = Classifier(bundle(), MeanColourEngine(), temporal_filter)
    classifier.classify(raw(flag(), stamp_ns=0), bands("red"))
    classifier.classify(raw(flag(), stamp_ns=1), bands())
    repainted = raw(flag()[..., ::-1], stamp_ns=2)
    (result,) = classifier.classify(repainted, bands("red")).regions

    assert result.filtered_class_index == result.class_index == 2


def test_stages_are_positive_and_add_up_to_the_total():
    perception = Classifier(bundle(), MeanColourEngine(), NoFilter()).classify(raw(flag()))

    stages_ms = dict(perception.stages_ms)
    assert set(stages_ms) == STAGES
    total_ms = stages_ms.pop("total")
    assert all(duration_ms > 0 for duration_ms in stages_ms.values())
    assert sum(stages_ms.values()) <= total_ms


def test_same_frames_give_the_same_results():
    def drive():
        temporal_filter = ExponentialFilter(time_constant_s=0.5, reset_after_s=2.0)
        classifier = Classifier(bundle(), MeanColourEngine(), temporal_filter)
        noise = np.random.default_rng(4)
        return [
            classifier.classify(
                raw(noise.integers(0, 256, (90, 120, 3), np.uint8), stamp_ns), bands("red", "blue")
            ).regions
            for stamp_ns in range(0, SECOND_NS, SECOND_NS // 10)
        ]

    assert drive() == drive()


def test_malformed_frame_raises_frame_error_and_the_next_one_is_classified():
    classifier = Classifier(bundle(), MeanColourEngine(), NoFilter())
    broken = CameraFrame(0, "front", "jpeg", 0, 0, 0, memoryview(b"\xff\xd8\xff"))
    with pytest.raises(FrameError):
        classifier.classify(broken)

    assert classifier.classify(raw(flag()), bands("red")).regions[0].label == "red"


def test_engine_that_does_not_belong_to_the_bundle_is_an_engine_error():
    classifier = Classifier(bundle(labels=("a", "b")), MeanColourEngine(), NoFilter())
    with pytest.raises(EngineError, match=r"shape \(1, 3\), expected \(1, 2\)"):
        classifier.classify(raw(flag()))


def test_logits_that_are_not_finite_are_an_engine_error():
    class BrokenEngine(MeanColourEngine):
        def infer(self, batch):
            return super().infer(batch) * np.float32(np.nan)

    with pytest.raises(EngineError, match="not finite"):
        Classifier(bundle(), BrokenEngine(), NoFilter()).classify(raw(flag()))


@pytest.mark.parametrize("threads", [0, 2])
def test_frames_of_several_cameras_are_one_batch_and_the_same_as_one_by_one(threads):
    engine = MeanColourEngine()
    asked = [
        (raw(flag(), 7), bands("blue", "red")),
        (raw(flag()[:, :40], 9), None),
        (raw(flag()), bands()),
    ]
    alone = [Classifier(bundle(), engine, NoFilter()).classify(*each) for each in asked]
    engine.batches.clear()
    requests = [Request(Classifier(bundle(), engine, NoFilter()), *each) for each in asked]
    with ThreadPoolExecutor(threads or 1, "decoder") as pool:
        together = classify_together(requests, pool if threads else None)
        assert bool(pool._threads) == bool(threads)
    assert [len(batch) for batch in engine.batches] == [3]
    for one, other in zip(together, alone, strict=True):
        assert (one.stamp_ns, one.regions) == (other.stamp_ns, other.regions)
        assert set(one.stages_ms) == set(other.stages_ms)
        assert one.stages_ms["total"] >= sum(one.stages_ms.values()) - one.stages_ms["total"] - 1e-6


def test_a_damaged_frame_of_one_camera_costs_no_frame_of_another():
    engine = MeanColourEngine()
    damaged = CameraFrame(5, "left", "bgr8", 10, 10, 30, memoryview(b"short"))
    classifiers = [Classifier(bundle(), engine, NoFilter()) for _ in range(2)]
    fault, seen = classify_together(
        [Request(classifiers[0], damaged), Request(classifiers[1], raw(flag()[:, :40]))]
    )
    assert isinstance(fault, FrameError)
    assert seen.regions[0].label == "red"
    assert [type(each) for each in classify_together([Request(classifiers[0], damaged)])] == [
        FrameError
    ]
    assert len(engine.batches) == 1


def test_an_observer_sees_every_batch_once_with_its_logits_and_only_what_was_answered():
    seen, engine = [], MeanColourEngine()

    def observe(batch, logits):
        seen.append((batch.copy(), logits.copy()))

    pair = [Classifier(bundle(), engine, NoFilter(), observe) for _ in range(2)]
    frame = raw(flag())
    plain = classify_together([Request(Classifier(bundle(), engine, NoFilter()), frame)])
    assert seen == []
    both = classify_together([Request(each, frame) for each in pair])
    assert [each.regions for each in both] == [plain[0].regions] * 2
    ((batch, logits),) = seen
    assert len(batch) == len(logits) == 2
    assert_allclose(logits, engine.infer(batch))
    pair[0].classify(frame)
    assert len(seen) == 2
    engine.infer = lambda _: np.full((1, 3), np.nan, np.float32)
    with pytest.raises(EngineError, match="not finite"):
        pair[0].classify(frame)
    assert len(seen) == 2
