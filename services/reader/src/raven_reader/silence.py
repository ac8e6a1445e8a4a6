"""Steps for a device that says nothing: listen, then ask, then open the port again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Step(Enum):
    """The step to take now."""

    LISTEN = auto()
    ASK = auto()
    REOPEN = auto()


@dataclass
class Silence:
    """Watches the time since the last whole fragment; seconds of one monotonic clock.

    Querying disturbs an EMU-2 that reports well, so nothing is asked before ``ask_after_s``.
    """

    ask_after_s: float
    reopen_after_s: float
    heard_at: float
    asked: bool = False

    def heard(self, now: float) -> None:
        """Say that a whole fragment came."""
        self.heard_at = now
        self.asked = False

    def step(self, now: float) -> Step:
        """Return what to do; ``ASK`` once in each silence."""
        silent_s = now - self.heard_at
        if silent_s >= self.reopen_after_s:
            return Step.REOPEN
        if silent_s >= self.ask_after_s and not self.asked:
            self.asked = True
            return Step.ASK
        return Step.LISTEN
