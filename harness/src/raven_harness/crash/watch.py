"""Follows, while things break, what is accepted and which store still lacks some of it."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from raven_harness.crash.script import Fault
from raven_harness.crash.stores import AWAY, Behind, Store
from raven_harness.crash.system import System

LOOK_EVERY_S: Final = 0.5


class _Waiting(NamedTuple):
    kind: str
    since: float
    accepted: int


class Watch:
    """Looks at each store from a thread of its own, for one that is paused answers nothing."""

    def __init__(self, system: System, stores: Sequence[Store]) -> None:
        self.recoveries: dict[str, dict[str, list[float]]] = {
            store.name: defaultdict(list) for store in stores
        }
        """By store and kind of fault: seconds from its end until all accepted by then was there."""
        self.run = ""
        self._system = system
        self._behind = {store.name: Behind() for store in stores}
        self._waiting: dict[str, list[_Waiting]] = {store.name: [] for store in stores}
        self._lock = threading.Lock()
        self._accepted = 0
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, args=(store,), daemon=True) for store in stores
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def accepted(self) -> int:
        """Return how many readings the reader has accepted so far."""
        run, count = self._system.accepted()
        with self._lock:
            self.run = run or self.run
            self._accepted = max(self._accepted, count)
            return self._accepted

    def ended(self, fault: Fault) -> None:
        """Hear that a fault is over."""
        waiting = _Waiting(fault.kind, time.monotonic(), self.accepted())
        with self._lock:
            for those in self._waiting.values():
                those.append(waiting)

    def behind(self) -> dict[str, int]:
        """Return how many of the accepted readings each store is not known to have."""
        accepted = self.accepted()
        with self._lock:
            return {name: behind.by(accepted) for name, behind in self._behind.items()}

    def recovered(self) -> bool:
        """Return whether every store has what was accepted at the end of each fault."""
        with self._lock:
            return not any(self._waiting.values())

    def _follow(self, store: Store) -> None:
        behind = self._behind[store.name]
        while not self._closing.wait(LOOK_EVERY_S):
            accepted = self.accepted()
            with self._lock:
                wanted = behind.ask(accepted)
            try:
                found = store.has(self.run, wanted) if wanted else set()
            except AWAY:
                continue
            with self._lock:
                behind.found(found)
                self._note(store.name)

    def _note(self, store: str) -> None:
        now, still = time.monotonic(), []
        for one in self._waiting[store]:
            if self._behind[store].by(one.accepted):
                still.append(one)
            else:
                self.recoveries[store][one.kind].append(now - one.since)
        self._waiting[store] = still
