"""Sends messages to stores and waits until a store has each, or has buried it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from ravenbus.errors import RetryableError
from ravenbus.messages import Reading, Run, dead_letter_id, encode
from ravenbus.ranges import Range, common, count, merged, without
from ravenbus.readback import Store
from ravenbus.topics import READING, RUN, Topics
from raventools.bus import Buried, Bus, Publication

STORED_S: Final = 60.0
"""Longest time that a store may take for one more of what was sent."""
LOOK_EVERY_S: Final = 0.3


class Outcome(NamedTuple):
    """Numbers of a run that a store has now, and those that it has as dead letters."""

    stored: list[Range]
    buried: list[Range]


class Sender:
    """Sends over a bus; raises RetryableError if a store or the broker is away."""

    def __init__(
        self, bus: Bus, topics: Topics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bus = bus
        self._topics = topics
        self._clock = clock

    def announce(self, run: Run, stores: Iterable[Store]) -> None:
        """Send a run, not retained, if one of the stores does not know it, and wait for those."""
        lacking = [store for store in stores if not store.run(run.hash)]
        if not lacking:
            return
        topic, payload = self._topics.of(RUN, node=run.node), encode(run)
        self._bus.send([Publication(topic, payload)])
        id_ = dead_letter_id(topic, payload)
        end = self._clock() + STORED_S
        while lacking := [
            store
            for store in lacking
            if Buried(store.service, id_) not in self._bus.buried and not store.run(run.hash)
        ]:
            if self._clock() > end:
                raise _late(lacking[0], "a run")
            self._bus.listen(LOOK_EVERY_S)

    def send(self, readings: Mapping[int, Reading]) -> None:
        """Send readings of a run, by their numbers."""
        self._bus.send(self._publication(one) for one in readings.values())

    def wait(self, store: Store, hash_: str, readings: Mapping[int, Reading]) -> Outcome:
        """Wait until a store has settled readings of a run that were sent."""
        ids = {
            Buried(store.service, dead_letter_id(topic, payload)): seq
            for seq, (topic, payload, _) in (
                (seq, self._publication(one)) for seq, one in readings.items()
            )
        }
        sent = merged((seq, seq) for seq in readings)
        there: list[Range] = []
        end = self._clock() + STORED_S
        while True:
            buried = merged((ids[one], ids[one]) for one in ids.keys() & self._bus.buried.keys())
            missing = without(without(sent, there), buried)
            if not missing:
                return Outcome(there, without(buried, there))
            if self._clock() > end:
                raise _late(store, f"{count(missing)} readings")
            self._bus.listen(LOOK_EVERY_S)
            came = common(missing, store.having(hash_, missing))
            if came:
                end = self._clock() + STORED_S
            there = merged([*there, *came])

    def _publication(self, reading: Reading) -> Publication:
        topic = self._topics.of(READING, node=reading.node, kind=reading.kind)
        return Publication(topic, encode(reading))


def _late(store: Store, what: str) -> RetryableError:
    return RetryableError(
        f"{store.name} has not stored {what} that was sent {STORED_S:.0f} s ago: "
        f"is {store.service} running?"
    )
