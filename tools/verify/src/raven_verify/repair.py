"""Sends again what one store lacks and another one has, and waits until it is there.

Stores pass over what they have, so it may be interrupted and begun again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from raven_verify.inventory import RunReport
from ravenbus.messages import Reading
from ravenbus.ranges import Range, common, merged, without
from ravenbus.readback import Store, chunks
from raventools.sending import Outcome, Sender


class Repaired(NamedTuple):
    """Outcome for the numbers that a store lacked."""

    run: RunReport
    store: str
    stored: list[Range]
    buried: list[Range]
    nowhere: list[Range]
    """No other store has them."""


class Repair:
    """Sends to the stores; raises RetryableError if one of the parts is away."""

    def __init__(self, stores: Sequence[Store], sender: Sender) -> None:
        self._stores = {store.name: store for store in stores}
        self._sender = sender

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
        run = next((found for other in others if (found := other.run(hash_))), None)
        if run:
            self._sender.announce(run, [store])

    def _send(
        self, hash_: str, store: Store, others: Sequence[Store], seqs: Sequence[int]
    ) -> Outcome:
        """Send what others have of some numbers; return what became of them in the store."""
        readings: dict[int, Reading] = {}
        for other in others:
            rest = [seq for seq in seqs if seq not in readings]
            found = other.readings(hash_, rest) if rest else ()
            readings |= {seq: reading for seq, reading in found if reading}
        self._sender.send(readings)
        return self._sender.wait(store, hash_, readings)
