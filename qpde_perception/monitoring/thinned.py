"""Rows of numbers of which evenly spread ones are kept, however many come."""

from __future__ import annotations

from array import array

MOST = 20_000
"""Rows that are kept at most; a plot of more shows no more."""


class Thinned:
    """Columns of numbers: every row, then every second, every fourth and so on once there are many.

    Which rows are kept depends on their number alone.
    """

    def __init__(self, codes: str, most: int = MOST) -> None:
        """Start empty.

        Args:
            codes: One type code of `array` per column.
            most: Rows to keep at most, at least 2.
        """
        self._columns: tuple[array[float], ...] = tuple(array(code) for code in codes)
        self._most = most
        self._seen = 0
        self.every = 1
        """Of how many rows in a row one is kept."""

    def __len__(self) -> int:
        return len(self._columns[0])

    def add(self, *row: float) -> None:
        """Add a row, one number for each column."""
        if self._seen % self.every == 0:
            for column, value in zip(self._columns, row, strict=True):
                column.append(value)
            if len(self) > self._most:
                self._columns = tuple(column[::2] for column in self._columns)
                self.every *= 2
        self._seen += 1

    @property
    def columns(self) -> tuple[array[float], ...]:
        """What was kept, by column."""
        return self._columns
