"""When what a store has not confirmed counts as lost, and how much of it is sent again.

A broker hands a store what it was sent in order.  So the store itself says how far it has come:
once it has confirmed something, what was sent before that is stored, on its way through another
member of its group, or lost.  Time alone says nothing: a queue of an hour is not a loss.

Moments are numbers that grow, in whatever unit the outbox counts.
"""

from __future__ import annotations

from collections import deque
from typing import Final

NOTHING: Final = float("-inf")
PATIENCE_S: Final = 30.0
"""How long the other members of a group may take for what one of them has passed."""
ASK_FIRST_S: Final = 15.0
ASK_LAST_S: Final = 300.0
"""How long the last of what was sent waits to be sent again alone, when nothing follows it."""
AT_ONCE_FIRST: Final = 64
AT_ONCE_MAX: Final = 4096


class Progress:
    """How far one store has come, and how much may be on its way to it for another time."""

    def __init__(self, patience: float) -> None:
        self.lost_until = NOTHING
        """What was sent until this moment, and is not confirmed now, is lost."""
        self.passed = NOTHING
        """The store has confirmed what was sent first at this moment, and nothing later."""
        self._patience = patience
        self._steps: deque[tuple[float, float]] = deque()
        self._at_once = AT_ONCE_FIRST
        self._bound = False

    def confirmed(self, first_sent: float) -> None:
        """Hear that something is confirmed; of what was sent twice, either may have arrived."""
        self.passed = max(self.passed, first_sent)

    def turn(self, now: float) -> None:
        """Let what the store has passed long enough count."""
        if self.passed > (self._steps[-1][1] if self._steps else self.lost_until):
            self._steps.append((now, self.passed))
        while self._steps and self._steps[0][0] <= now - self._patience:
            self.lost_until = self._steps.popleft()[1]

    def room(self, under_way: int, lost_again: int) -> int:
        """Return how much more may be sent again, beside what is under way for another time.

        The bound halves when that is lost again, and doubles when the store kept up with it.
        """
        if lost_again:
            self._at_once = max(1, self._at_once // 2)
        elif self._bound and under_way <= self._at_once // 2:
            self._at_once = min(AT_ONCE_MAX, self._at_once * 2)
            self._bound = False
        return max(0, self._at_once - under_way)

    def sends_again(self, count: int, room: int) -> None:
        """Hear how much is sent again where there was room for so much."""
        self._bound |= 0 < room <= count


class Asking:
    """When the last of what was sent is sent again alone: nothing that follows shows its fate."""

    def __init__(self, first: float, last: float) -> None:
        self._first = self._every = first
        self._last = last
        self._at = NOTHING

    def heard(self, now: float) -> None:
        """Hear that a store goes on confirming: what it comes to shows by itself."""
        self._every = self._first
        self._at = now + self._first

    def is_due(self, last_sent: float, now: float) -> bool:
        """Say whether it is time, and wait twice as long for the next."""
        if now < max(self._at, last_sent + self._every):
            return False
        self._every = min(self._every * 2, self._last)
        self._at = now + self._every
        return True
