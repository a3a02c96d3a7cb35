"""The classifier's executor: it waits once for each callback, and whoever else asks wakes it."""

import threading
import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")

from rclpy.node import Node  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402

from ros2_nodes.executor import NodeExecutor  # noqa: E402


class Counting(NodeExecutor):
    """Counts how often it gathers what there is to wait for."""

    gathered = 0

    def get_nodes(self):
        self.gathered += 1
        return super().get_nodes()


@pytest.fixture
def node():
    """A node of this process, which nobody spins yet."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("executed")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def test_it_gathers_what_to_wait_for_once_for_each_callback(node):
    done, calls = threading.Event(), []

    def call():
        calls.append(executor.gathered)
        if len(calls) == 40:
            done.set()

    executor = Counting(apart=None)
    node.create_timer(0.01, call)
    with executor.serving(node):
        assert done.wait(30)
    assert (calls[-1] - calls[0]) / (len(calls) - 1) < 1.5


def test_work_of_another_thread_wakes_it_at_once(node):
    executor, done = NodeExecutor(apart=None), threading.Event()
    with executor.serving(node):
        time.sleep(0.3)  # it waits, for nothing that will come by itself
        executor.create_task(done.set)
        assert done.wait(10)


def test_what_a_callback_creates_is_served(node):
    done = threading.Event()

    def create():
        first.cancel()
        node.create_timer(0.01, done.set)

    first = node.create_timer(0.01, create)
    with NodeExecutor(apart=None).serving(node):
        assert done.wait(10)
