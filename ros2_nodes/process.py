"""What the processes of all nodes have in common: starting, failing, ending."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from qpde_perception.bags import BagError
from ros2_nodes.declarations import DeclarationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rclpy.node import Node

_WRONG_USE = 2


def run(name: str, body: Callable[[], None]) -> int:
    """Run a node's process, with ROS started before and shut down after.

    Args:
        name: What error lines begin with.
        body: Makes the node and returns when it is done.

    Returns:
        0 done or asked to end, 2 wrong use or bad input, told in one line.
    """
    try:
        rclpy.init()
    except RuntimeError as error:
        return _fail(name, error)
    try:
        body()
    except (BagError, DeclarationError) as error:
        return _fail(name, error)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        if rclpy.ok():
            raise
        # A message was on its way out when ROS was shut down.
    finally:
        rclpy.try_shutdown()
    return 0


@contextmanager
def spinning(node: Node) -> Iterator[None]:
    """Serve the callbacks of a node in a thread while the block runs."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, name="callbacks")
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join()


def report(node: Node, line: str, *, warning: bool = False) -> None:
    """Log a line at the end of a node, also where ROS has been shut down already."""
    if not node.context.ok():  # the logger would complain that nobody can read it any more
        sys.stderr.write(f"{node.get_name()}: {line}\n")
    elif warning:  # a place in the code always logs with the same severity
        node.get_logger().warning(line)
    else:
        node.get_logger().info(line)


def _fail(name: str, error: Exception) -> int:
    sys.stderr.write(f"{name}: error: {' '.join(str(error).split())}\n")
    return _WRONG_USE
