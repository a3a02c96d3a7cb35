"""The executor of the classifier: one thread for everything, and one for what takes long."""

from __future__ import annotations

import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Thread, get_ident
from typing import TYPE_CHECKING, Any

from rclpy.executors import (
    ConditionReachedException,
    Executor,
    ShutdownException,
    TimeoutException,
)
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rclpy.node import Node


class NodeExecutor(Executor):
    """Runs callbacks in the thread that spins, and those of one entity in a thread apart.

    rclpy's executor with a pool of threads hands every callback over: on a computer that is idle
    between two frames, waking those threads took longer than the work itself. No single callback
    can end this executor: a silent node would be worse.
    """

    def __init__(self, apart: Any) -> None:
        """Prepare.

        Args:
            apart: The entity, a service for example, whose callbacks may take long; they are run
                one after another.
        """
        super().__init__()
        self._apart = apart
        self._spinner: int | None = None
        guard = self._guard
        assert guard is not None
        self._wake, guard.trigger = guard.trigger, self._trigger  # type: ignore[method-assign]
        self._long = ThreadPoolExecutor(1, thread_name_prefix="transitions")

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a callback and have it executed; what callbacks raise is logged."""
        self._spinner = get_ident()
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (ShutdownException, TimeoutException, ConditionReachedException):
            return
        except rclpy_implementation.InvalidHandle:
            return  # destroyed by a transition, in another thread, while it was being looked at
        if entity is self._apart:
            self._long.submit(self._run, handler)
        else:
            self._run(handler)

    def _trigger(self) -> None:
        """Wake the executor, unless it is what asks.

        rclpy does so twice with every callback, for other threads to see what it kept from being
        served. The thread that spins looks anyway; woken, it would gather all that it waits for
        once more, which costs half as much as to take an image.
        """
        if get_ident() != self._spinner:
            self._wake()

    def do_apart(self, work: Callable[[], None]) -> None:
        """Have something done that may take long, after what is being done apart."""
        with suppress(RuntimeError):  # everything is being ended anyway
            self._long.submit(self._logged, work)

    @contextmanager
    def serving(self, node: Node) -> Iterator[None]:
        """Serve the callbacks of a node while the block runs, and finish what has begun."""
        self.add_node(node)
        spinning = Thread(target=self.spin, name="executor")
        spinning.start()
        try:
            yield
        finally:
            self.shutdown()
            spinning.join()
            self._long.shutdown()

    @classmethod
    def _run(cls, handler: Any) -> None:
        handler()
        cls._logged(handler.result)

    @staticmethod
    def _logged(work: Callable[[], Any]) -> None:
        try:
            work()
        except rclpy_implementation.InvalidHandle:
            pass
        except Exception:  # noqa: BLE001  (whatever a callback raised)
            get_logger("executor").error(traceback.format_exc())
