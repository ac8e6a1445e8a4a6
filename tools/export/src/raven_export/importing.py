"""Publishes readings as their reader would, and waits until every store has them.

Stores pass over what they have, so it may be interrupted and begun again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from ravenbus.errors import PoisonError
from ravenbus.messages import Reading, Run
from ravenbus.ranges import count, merged, numbers
from ravenbus.readback import AT_ONCE, Store
from raventools.sending import Sender


@dataclass
class Outcome:
    """Numbers of readings: in the file, and of each store's those that were new or buried.

    ``differing`` have the identity of another reading that is in a store; they are not sent.
    """

    readings: int
    stored: dict[str, int]
    buried: dict[str, int]
    differing: int = 0

    @property
    def complete(self) -> bool:
        """True if every store has every reading."""
        return not self.differing and not any(self.buried.values())


def take_in(items: Iterable[Reading | Run], stores: Sequence[Store], sender: Sender) -> Outcome:
    """Send runs and readings; raise RetryableError if a store or the broker is away."""
    names = [store.name for store in stores]
    outcome = Outcome(0, dict.fromkeys(names, 0), dict.fromkeys(names, 0))
    every = iter(items)
    while batch := list(islice(every, AT_ONCE)):
        runs: dict[str, dict[int, Reading]] = defaultdict(dict)
        for item in batch:
            if isinstance(item, Run):
                sender.announce(item, stores)
            else:
                known = runs[item.envelope.hash].setdefault(item.envelope.seq, item)
                outcome.differing += known != item
                outcome.readings += 1
        for hash_, readings in runs.items():
            _send(hash_, readings, stores, sender, outcome)
    return outcome


def _send(
    hash_: str,
    readings: Mapping[int, Reading],
    stores: Sequence[Store],
    sender: Sender,
    outcome: Outcome,
) -> None:
    """Send what a store lacks of some readings of a run, and wait for it."""
    lacking: dict[str, set[int]] = {}
    differing: set[int] = set()
    for store in stores:
        found = dict(store.readings(hash_, list(readings)))
        others = merged((seq, seq) for seq in readings if seq not in found)
        archived = set(numbers(store.having(hash_, others)))
        lacking[store.name] = readings.keys() - found.keys() - archived
        differing |= {seq for seq, one in found.items() if one != _stored(store, readings[seq])}
    missing = set[int]().union(*lacking.values()) - differing
    sender.send({seq: readings[seq] for seq in sorted(missing)})
    for store in stores:
        waited_for = {seq: readings[seq] for seq in lacking[store.name] - differing}
        stored, buried = sender.wait(store, hash_, waited_for)
        outcome.stored[store.name] += count(stored)
        outcome.buried[store.name] += count(buried)
    outcome.differing += len(differing)


def _stored(store: Store, reading: Reading) -> Reading | None:
    try:
        return store.as_stored(reading)
    except PoisonError:
        return None
