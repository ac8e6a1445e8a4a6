"""Sends again what one store lacks and another one has, and waits until it is there.

Stores pass over what they have, so it may be interrupted and begun again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from raven_verify.bus import Buried, Bus, Publication
from raven_verify.inventory import RunReport
from ravenbus.errors import RetryableError
from ravenbus.messages import dead_letter_id, encode
from ravenbus.ranges import Range, common, count, merged, without
from ravenbus.readback import Store, chunks
from ravenbus.topics import READING, RUN, Topics

STORED_S: Final = 60.0
"""Longest time that a store may take for one more of what was sent."""
LOOK_EVERY_S: Final = 0.3


class Repaired(NamedTuple):
    """Outcome for the numbers that a store lacked."""

    run: RunReport
    store: str
    stored: list[Range]
    buried: list[Range]
    nowhere: list[Range]
    """No other store has them."""


class Repair:
    """Sends to the stores over a bus; raises RetryableError if one of the parts is away."""

    def __init__(
        self,
        stores: Sequence[Store],
        bus: Bus,
        topics: Topics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stores = {store.name: store for store in stores}
        self._bus = bus
        self._topics = topics
        self._clock = clock

    def repair(self, run: RunReport) -> Iterator[Repaired]:
        """Yield for each store what became of what it lacked of a run."""
        for name, report in run.stores.items():
            if report.lacking:
                yield self._store(run, self._stores[name], report.lacking)

    def _store(self, run: RunReport, store: Store, lacking: list[Range]) -> Repaired:
        others = [self._stores[name] for name in run.stores if name != store.name]
        self._announce(run.hash, store, others)
        stored: list[Range] = []
        buried: list[Range] = []
        # What is lacking may be more numbers than anybody ever used: only what others have counts.
        elsewhere = merged(one for other in others for one in other.holding(run.hash).held)
        for chunk in chunks(common(lacking, elsewhere)):
            there, dead = self._send(run.hash, store, others, chunk)
            stored += there
            buried += dead
        settled = merged([*stored, *buried])
        return Repaired(run, store.name, merged(stored), merged(buried), without(lacking, settled))

    def _announce(self, hash_: str, store: Store, others: Sequence[Store]) -> None:
        """Send what another store knows of a run of which this one knows nothing."""
        if store.run(hash_):
            return
        run = next((found for other in others if (found := other.run(hash_))), None)
        if run:
            self._bus.send([Publication(self._topics.of(RUN, node=run.node), encode(run))])

    def _send(
        self, hash_: str, store: Store, others: Sequence[Store], seqs: Sequence[int]
    ) -> tuple[list[Range], list[Range]]:
        """Send what others have of some numbers; return what is stored then, and what is buried."""
        messages: dict[int, Publication] = {}
        for other in others:
            rest = [seq for seq in seqs if seq not in messages]
            for seq, reading in other.readings(hash_, rest) if rest else ():
                if reading:
                    topic = self._topics.of(READING, node=reading.envelope.node, kind=reading.kind)
                    messages[seq] = Publication(topic, encode(reading))
        self._bus.send(messages.values())
        ids = {
            Buried(store.service, dead_letter_id(message.topic, message.payload)): seq
            for seq, message in messages.items()
        }
        sent = merged((seq, seq) for seq in messages)
        there: list[Range] = []
        end = self._clock() + STORED_S
        while True:
            buried = merged((ids[one], ids[one]) for one in ids.keys() & self._bus.buried.keys())
            missing = without(without(sent, there), buried)
            if not missing:
                return there, without(buried, there)
            if self._clock() > end:
                raise RetryableError(
                    f"{store.name} has not stored {count(missing)} readings that were sent again "
                    f"{STORED_S:.0f} s ago: is {store.service} running?"
                )
            self._bus.listen(LOOK_EVERY_S)
            came = common(missing, store.having(hash_, missing))
            if came:
                end = self._clock() + STORED_S
            there = merged([*there, *came])
