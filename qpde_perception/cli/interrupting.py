"""Ctrl-C: the first one is a wish, which leaves everything valid."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERRUPTED = 130


@dataclass(slots=True)
class Wish:
    """Whether the user wants to stop."""

    requested: bool = False


@contextmanager
def interruptible() -> Iterator[Wish]:
    """Turn the first Ctrl-C, or request to terminate, into a wish; a second one interrupts."""
    wish = Wish()

    def note(_number: int, _frame: object) -> None:
        if wish.requested:
            raise KeyboardInterrupt
        wish.requested = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
