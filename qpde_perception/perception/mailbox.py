"""The mailbox between those who receive frames and the one who classifies them."""

from __future__ import annotations

from threading import Condition
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """Holds the newest item of every sender, and nothing older.

    Senders and the one reader may be in different threads. A sender that is faster than the reader
    supersedes its own items, never those of another.
    """

    def __init__(self) -> None:
        """Make an empty, open mailbox."""
        self._changed = Condition()
        self._items: dict[str, Item] = {}
        self._closed = False

    def put(self, sender: str, item: Item) -> Item | None:
        """Leave an item.

        Returns:
            What will never be read because of it: the sender's item that still lay there, or the
            item itself where the mailbox is closed.
        """
        with self._changed:
            if self._closed:
                return item
            # Taken out and put back: senders are read in the order of their newest items.
            superseded = self._items.pop(sender, None)
            self._items[sender] = item
            self._changed.notify()
            return superseded

    def take(self) -> dict[str, Item]:
        """Wait for an item, and return the newest one of every sender, in order of arrival.

        Returns:
            Items by sender; empty once the mailbox is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            taken, self._items = self._items, {}
            return taken if not self._closed else {}

    def close(self) -> dict[str, Item]:
        """Wake the reader for the last time; what still lay there is returned, unread."""
        with self._changed:
            self._closed = True
            left, self._items = self._items, {}
            self._changed.notify_all()
            return left
