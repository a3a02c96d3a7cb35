"""The worker's thread: it outlives whatever goes wrong with one frame."""

import gc
import weakref
from dataclasses import replace
from queue import Queue

import numpy as np
import pytest

from qpde_perception.engines import REFERENCE, EngineError
from qpde_perception.engines.registry import UNROUNDED_GRAPH
from qpde_perception.frames import CameraFrame
from qpde_perception.monitoring import DropReason
from qpde_perception.perception import Classifier, NoFilter, Perception
from ros2_nodes.engine_line import EngineLine
from ros2_nodes.worker import Job, Loss, Worker


@pytest.fixture
def start_worker(shipped_bundle):
    """Start workers that hand over to a function; their lines for the log are in a list."""
    line = EngineLine(shipped_bundle, ("onnxruntime",), threads=1)
    classifier = Classifier(shipped_bundle, line.advance(), NoFilter())
    workers = []

    def start(deliver):
        log = []
        worker = Worker(
            line, {"front": classifier}, deliver, admit=lambda _: None, report=log.append
        )
        worker.start(priority=0)
        workers.append(worker)
        return worker, log

    yield start
    for worker in workers:
        worker.stop()
    line.close()


def job_of(pixels):
    height, width, _ = pixels.shape
    frame = CameraFrame(1, "front", "bgr8", height, width, width * 3, memoryview(pixels).cast("B"))
    return Job("front", None, frame, None, 0)


def test_a_frame_that_breaks_the_code_is_lost_and_the_next_is_classified(start_worker):
    outcomes = Queue()
    worker, log = start_worker(lambda _, outcome: outcomes.put(outcome))
    worker.put(Job("front", None, None, None, 0))
    loss = outcomes.get(timeout=10)
    assert loss == Loss(DropReason.ENGINE_DOWN, loss.fault)
    assert "AttributeError" in loss.fault
    assert "Traceback" in log[0]
    worker.put(job_of(np.zeros((48, 48, 3), np.uint8)))
    assert isinstance(outcomes.get(timeout=10), Perception)


def test_a_result_that_cannot_be_handed_over_does_not_end_the_thread(start_worker):
    handed_over = Queue()

    def deliver(job, outcome):
        handed_over.put(outcome)
        if not job.frame.data[0]:
            msg = "publisher is gone"
            raise RuntimeError(msg)

    worker, log = start_worker(deliver)
    for number in range(2):
        worker.put(job_of(np.full((48, 48, 3), number, np.uint8)))
        handed_over.get(timeout=10)
    assert "publisher is gone" in log[0]


def test_no_frame_is_held_once_it_is_done(start_worker):
    outcomes = Queue()
    worker, _ = start_worker(lambda _, outcome: outcomes.put(outcome))
    pixels = np.zeros((48, 48, 3), np.uint8)
    held = weakref.ref(pixels)
    worker.put(job_of(pixels))
    del pixels
    outcomes.get(timeout=10)
    for _ in range(1000):
        gc.collect()
        if held() is None:
            return
    pytest.fail("the worker still holds the frame")


class Watch:
    """Somebody who watches the engine, and does what a test says."""

    def __init__(self):
        self.seen, self.faults, self.why, self.error = [], [], "", None

    def between(self, classifier):
        self.seen.append(classifier.engine.name)
        error, self.error = self.error, None
        if error is not None:
            raise error
        return len(self.seen) < 3

    def fail(self, fault):
        self.faults.append(fault)

    def objection(self):
        why, self.why = self.why, ""
        return why


@pytest.fixture
def watched_worker(shipped_bundle):
    """Start a worker whose engine is watched: it, its engines, the outcomes, and its log."""
    started = []

    def start(watch, bundle=shipped_bundle, names=("onnxruntime",)):
        line, log, outcomes = EngineLine(bundle, names, threads=1), [], Queue()
        classifier = Classifier(bundle, line.advance(), NoFilter())
        worker = Worker(
            line,
            {"front": classifier},
            lambda _, outcome: outcomes.put(outcome),
            admit=lambda _: None,
            report=log.append,
            watch=watch,
        )
        worker.start(priority=0)
        started.append((worker, line))
        return worker, line, outcomes, log

    yield start
    for worker, line in started:
        worker.stop()
        line.close()


def classified(worker, outcomes):
    worker.put(job_of(np.zeros((48, 48, 3), np.uint8)))
    return isinstance(outcomes.get(timeout=10), Perception)


def test_the_engine_is_looked_at_before_the_first_frame_and_after_every_one(watched_worker):
    watch = Watch()
    worker, _, outcomes, log = watched_worker(watch)
    for count in (4, 5):
        assert classified(worker, outcomes)
        assert classified(worker, outcomes)
        assert len(watch.seen) >= count
    assert log == []


def test_an_engine_that_fails_while_it_is_looked_at_is_replaced(watched_worker):
    watch = Watch()
    worker, line, outcomes, log = watched_worker(watch, names=("onnxruntime", "openvino"))
    assert classified(worker, outcomes)
    watch.error = EngineError("golden frames are\nnot answered")
    assert classified(worker, outcomes)
    assert classified(worker, outcomes)
    assert line.engine.name == "openvino"
    assert line.refusals == {"onnxruntime": "golden frames are not answered"}
    assert watch.faults == ["golden frames are not answered"]
    assert log == ["golden frames are not answered", "engine openvino serves now"]


def test_a_fault_of_the_watch_is_logged_and_frames_go_on(watched_worker):
    watch = Watch()
    worker, line, outcomes, log = watched_worker(watch)
    watch.error = ZeroDivisionError("nothing to divide by")
    for _ in range(3):
        assert classified(worker, outcomes)
    assert "nothing to divide by" in log[0]
    assert (len(log), line.engine.name, watch.faults) == (1, "onnxruntime", [])


@pytest.mark.parametrize("missing", [False, True])
def test_the_float_reference_stands_in_on_demand_where_the_model_has_one(
    watched_worker, shipped_bundle, missing
):
    contents = dict(shipped_bundle.contents)
    if missing:
        del contents[UNROUNDED_GRAPH]
    watch = Watch()
    worker, line, outcomes, log = watched_worker(watch, replace(shipped_bundle, contents=contents))
    watch.why = "engine changed"
    for _ in range(3):
        assert classified(worker, outcomes)
    if missing:
        assert (line.engine.name, line.refusals) == ("onnxruntime", {})
        assert log[0].startswith(f"{REFERENCE} cannot stand in: ")
        assert UNROUNDED_GRAPH in log[0]
    else:
        assert (line.engine.name, watch.seen[-1]) == (REFERENCE, REFERENCE)
        assert line.refusals == {"onnxruntime": "engine changed"}
        assert log == [f"engine {REFERENCE} serves now"]
    assert watch.faults == []
