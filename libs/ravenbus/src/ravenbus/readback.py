"""Interface for reading back what a store holds, whichever store it is.

The package of a store has a Sink, which writes, and a Store, which reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple, Protocol

from ravenbus.errors import PoisonError
from ravenbus.messages import DeadLetter, Item, Reading, Run
from ravenbus.ranges import Range, merged, numbers

ANSWER_TIMEOUT_S: Final = 600
"""Looking through the numbers of ten years takes a while on a small machine."""
AT_ONCE: Final = 500
"""Most readings, or numbers with gaps between them, that are asked for at once."""


class Known(NamedTuple):
    """A run's name and node, as a store has them."""

    name: str
    node: str


class Holding(NamedTuple):
    """The numbers of a run in a store: in its tables, in its archive, and those there twice."""

    held: list[Range]
    archived: list[Range]
    doubled: list[Range]

    @property
    def present(self) -> list[Range]:
        """The numbers that the store has, in its tables or its archive."""
        return merged([*self.held, *self.archived])

    @property
    def last(self) -> int:
        """The highest number, 0 for none."""
        return max((last for _, last in (*self.held[-1:], *self.archived[-1:])), default=0)


class Choice(NamedTuple):
    """Filter for dead letters; a field that is None chooses all."""

    reason: str | None = None
    service: str | None = None
    since: datetime | None = None


class Store(Protocol):
    """A store; every call but ``as_stored`` raises RetryableError when it cannot be reached.

    ``service`` is who stores and buries there.
    """

    name: str
    service: str

    def runs(self) -> dict[str, Known]:
        """Return the runs of which there are readings, by hash."""

    def passes_over(self, hash_: str) -> bool:
        """Say whether a run's readings do not belong in this store."""

    def holding(self, hash_: str) -> Holding:
        """Return which numbers of a run are there, and which are there more than once."""

    def having(self, hash_: str, wanted: Sequence[Range]) -> list[Range]:
        """Return those of the numbers that are there."""

    def readings(self, hash_: str, seqs: Sequence[int]) -> Iterator[tuple[int, Reading | None]]:
        """Yield what can be read of at most AT_ONCE numbers; None for what is no reading."""

    def between(
        self, kind: str, meter: str | None, start: datetime, end: datetime
    ) -> Iterator[Reading]:
        """Yield a meter's readings of a kind from ``start`` to before ``end``, in order of time.

        The time is ``time_of``; what has the same is in the order of run and number.
        """

    def span(
        self, kinds: Collection[str], nodes: Collection[str] | None, start: datetime, end: datetime
    ) -> Iterator[Reading]:
        """Yield every meter's readings of some kinds, of some nodes or all, as ``between`` does.

        Archived ones are among them; raises FatalError if they cannot be read.
        """

    def as_stored(self, reading: Reading) -> Reading:
        """Return a reading as it comes back from here; raise PoisonError if it cannot be stored.

        Times come back to the precision that the store keeps, and values that follow from others
        as they are derived here.
        """

    def run(self, hash_: str) -> Run | None:
        """Return what is known of a run."""

    def letters(self, choice: Choice) -> Iterator[DeadLetter]:
        """Yield dead letters, oldest first."""

    def letters_called(self, prefix: str) -> list[DeadLetter]:
        """Return the dead letters whose id begins so."""

    def remove(self, letter_id: str) -> None:
        """Remove a dead letter."""

    def close(self) -> None:
        """Give back what the store holds."""


def time_of(reading: Reading) -> datetime:
    """Return the device's time, or the reader's where the device has none."""
    return reading.notification.time or reading.envelope.received


def place_of(reading: Reading) -> tuple[datetime, str, int]:
    """Return what a span of time is sorted by: the time, then the run's hash and the number."""
    return time_of(reading), reading.envelope.hash, reading.envelope.seq


def in_order(store: Store, hash_: str) -> Iterator[Reading]:
    """Yield what can be read of a run, in order of number, AT_ONCE in memory at a time."""
    for chunk in chunks(store.holding(hash_).held):
        found = dict(store.readings(hash_, chunk))
        yield from (reading for seq in chunk if (reading := found.get(seq)))


def chunks(ranges: Sequence[Range]) -> Iterator[list[int]]:
    """Yield the numbers of ranges, AT_ONCE at a time."""
    every = numbers(ranges)
    while chunk := list(islice(every, AT_ONCE)):
        yield chunk


def has(store: Store, item: Item) -> bool:
    """Say whether a store has a message, as itself would say of a redelivery."""
    match item:
        case Reading(envelope):
            seq = envelope.seq
            if found := dict(store.readings(envelope.hash, [seq])).get(seq):
                return _received(store, found) == _received(store, item)
            return bool(store.having(envelope.hash, [(seq, seq)]))  # archived
        case Run():
            return store.run(item.hash) is not None
        case DeadLetter():
            return bool(store.letters_called(item.id))


def _received(store: Store, reading: Reading) -> datetime | None:
    try:
        return store.as_stored(reading).envelope.received
    except PoisonError:
        return None
