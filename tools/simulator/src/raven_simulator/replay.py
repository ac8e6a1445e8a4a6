"""A capture played back: the bytes as they are, a fragment at a time."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING

from raven_simulator.reports import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raven_simulator.commands import Command
    from raven_simulator.station import Moment

_START = re.compile(b"<(?:" + "|".join(KINDS).encode("ascii") + b")>")


def split(capture: bytes) -> list[bytes]:
    """Cut a capture before each root start tag; joined, the pieces are the capture."""
    starts = [found.start() for found in _START.finditer(capture)]
    edges = [0, *(start for start in starts if start), len(capture)]
    return [capture[start:end] for start, end in itertools.pairwise(edges) if start < end]


class Replay:
    """Sends one piece of a capture each interval_s wall seconds, and answers nothing."""

    def __init__(self, pieces: Sequence[bytes], interval_s: float) -> None:
        self._pieces = pieces
        self._interval_s = interval_s
        self._next = 0
        self._due_s = math.inf

    def start(self, moment: Moment) -> list[bytes]:
        """Start the interval; nothing is sent yet."""
        self._due_s = moment.elapsed_s + self._interval_s
        return []

    def restart(self, moment: Moment) -> list[bytes]:
        """Go on where the capture was left."""
        return self.start(moment)

    def due_s(self) -> float:
        """Elapsed wall seconds of the next piece; infinity after the last."""
        return self._due_s if self._next < len(self._pieces) else math.inf

    def due(self, moment: Moment) -> list[bytes]:
        """Next piece, if it is time."""
        if moment.elapsed_s < self.due_s():
            return []
        self._next += 1
        self._due_s += self._interval_s
        return [self._pieces[self._next - 1]]

    def skip(self, moment: Moment) -> None:
        """Wait: no byte of a capture is left out."""
        self._due_s = max(self._due_s, moment.elapsed_s)

    def answer(self, command: Command, moment: Moment) -> list[bytes]:
        """Answer nothing."""
        del command, moment
        return []
