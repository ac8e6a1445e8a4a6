"""What is dear to ask a store, remembered for a moment for whoever asks next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """An answer that is asked for anew after ``for_s`` seconds, by one thread at a time.

    Who comes meanwhile gets the old one, and waits only where there is none.
    """

    def __init__(self, for_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._for_s = for_s
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[float, T] | None = None

    def __call__(self, ask: Callable[[], T]) -> T:
        """Return what is known, or what is answered; whatever ``ask`` raises is not remembered."""
        if not self._lock.acquire(blocking=not self._known):
            assert self._known  # noqa: S101 - else it would have waited
            return self._known[1]
        try:
            if not self._known or self._clock() - self._known[0] >= self._for_s:
                self._known = (self._clock(), ask())
            return self._known[1]
        finally:
            self._lock.release()
