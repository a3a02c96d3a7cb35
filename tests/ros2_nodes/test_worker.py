"""The worker's thread: it outlives whatever goes wrong with one frame."""

import gc
import weakref
from queue import Queue

import numpy as np
import pytest

from qpde_perception.frames import CameraFrame
from qpde_perception.monitoring import DropReason
from qpde_perception.perception import Classifier, NoFilter, Perception
from ros2_nodes.worker import EngineLine, Job, Loss, Worker


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
