"""A line on a terminal that says how far an export is."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final, TextIO

EVERY_S: Final = 0.2
WIDTH: Final = 30
LOOK_AT_CLOCK: Final = 100
"""Readings between two looks at the clock."""


class Progress:
    """A bar that fills from ``start`` to ``end``; silent where nobody looks."""

    def __init__(
        self,
        screen: TextIO,
        start: datetime,
        end: datetime,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen = screen if screen.isatty() else None
        self._start = start
        self._end = end
        self._clock = clock
        self._next = clock()

    def at(self, when: datetime, readings: int) -> None:
        """Show that a time is reached, and how many readings came before it."""
        if self._screen and readings % LOOK_AT_CLOCK == 0 and self._clock() >= self._next:
            self._next = self._clock() + EVERY_S
            done = (when - self._start) / (self._end - self._start)
            bar = "#" * int(done * WIDTH)
            shown = f"{when:%Y-%m-%d %H:%M}"
            self._screen.write(f"\r[{bar:{WIDTH}}] {done:4.0%}  {shown}  {readings:,} readings ")
            self._screen.flush()

    def close(self) -> None:
        """Take the bar away."""
        if self._screen:
            self._screen.write("\r\x1b[K")
            self._screen.flush()
