"""Reading ahead in a thread, so that a slow disk does not make a message late."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import sys
    from collections.abc import Iterable, Iterator

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

T = TypeVar("T")


class Prefetch(Generic[T]):
    """The items of an iterable, read ahead; close it, or use it as a context manager.

    What the iterable raises is raised here, after the items before it. While it is open, the
    iterable belongs to its thread.

    Args:
        items: What to read.
        ahead: How many items may wait to be taken, at least 1.
    """

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self._queue: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(items,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            got = self._queue.get()
            if got is None:
                return
            if isinstance(got, BaseException):
                raise got
            yield got[0]

    def close(self) -> None:
        """Stop reading, and wait until the iterable is free again."""
        self._closed.set()
        while self._thread.is_alive():
            with suppress(queue.Empty):  # with room again, the thread sees that it is over
                self._queue.get(timeout=0.01)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                self._queue.put((item,))
                if self._closed.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  # it is raised where the items are used
            self._queue.put(error)
        else:
            self._queue.put(None)
