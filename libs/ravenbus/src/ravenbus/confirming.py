"""End-to-end confirmation: stores say what they have, and only then does an outbox forget it.

A PUBACK says that the broker has a message, and brokers lose their disks.  So each store says on a
topic of the node's what it has committed, found committed or buried.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Protocol

from msgspec import Meta

from ravenbus.errors import PoisonError, RetryableError
from ravenbus.logs import Sparse
from ravenbus.messages import Confirmation, DeadLetter, Reading, Run, encode
from ravenbus.mqtt import Received
from ravenbus.ranges import Range, merged
from ravenbus.topics import GONE, STORED, Topics

log = logging.getLogger(__name__)

CONFIRM_S: Final = 5.0
"""Interval of a store's confirmations, and the number of noted items that brings one forward."""
CONFIRM_AT: Final = 1000
SAID_BYTES: Final = 50_000
"""Bytes of a confirmation, also where the broker takes more."""
STORES_MAX: Final = 32
"""Stores that are waited for: whoever may confirm cannot fill a memory with names."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Stores:
    """The stores that must confirm: those named, or (``names`` None) each that ever confirmed."""

    ALLOWED = (
        "auto (each that has ever confirmed anything to this service), or client ids of at most 32 "
        "stores, divided by commas"
    )

    def __init__(self, text: str) -> None:
        """Read a list; raise ValueError if it is none."""
        self.names: Final = None if text == "auto" else frozenset(text.split(","))
        names = self.names or ()
        if len(names) > STORES_MAX or not all(_NAME.fullmatch(name) for name in names):
            raise ValueError(self.ALLOWED)

    def __str__(self) -> str:
        return "auto" if self.names is None else ",".join(sorted(self.names))

    __repr__ = __str__


AUTO: Final = Stores("auto")

RequiredStores = Annotated[
    Stores,
    Meta(
        description="stores that must confirm a reading before it is forgotten here; "
        "it is sent again until they do"
    ),
]


_Item = tuple[str, Range | None]
"""A run's hash with numbers of it, or the id of a dead letter."""


class Confirmations:
    """Items that a store has and has not confirmed yet; used by one thread."""

    def __init__(self, store: str, topics: Topics) -> None:
        self._store = store
        self._topics = topics
        self._runs: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        self._letters: dict[str, list[str]] = defaultdict(list)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def note(self, item: Reading | Run | DeadLetter) -> None:
        """Note what is committed; a run is answered too, so that its node knows of the store."""
        match item:
            case Reading(envelope):
                self._runs[envelope.node][envelope.hash].append(envelope.seq)
            case Run(node=node):
                self._runs[node].update()
            case DeadLetter(node=str(node)):
                self._letters[node].append(item.id)
        self._count += 1

    def take(self, most: int) -> list[tuple[str, bytes]]:
        """Return what there is to say, topics with payloads of at most ``most`` bytes; forget it."""
        found: list[tuple[str, bytes]] = []
        for node in self._runs.keys() | self._letters.keys():
            runs = self._runs[node]
            items: list[_Item] = [(h, one) for h in runs for one in merged((n, n) for n in runs[h])]
            items += [(letter, None) for letter in self._letters.get(node, [])]
            topic = self._topics.of(STORED, node=node, store=self._store)
            found += [(topic, one) for one in self._said(node, items, min(most, SAID_BYTES))]
        self._runs.clear()
        self._letters.clear()
        self._count = 0
        return found

    def _said(self, node: str, items: Sequence[_Item], most: int) -> Iterator[bytes]:
        """Yield confirmations of a node's items; halve what is too much for one."""
        runs: dict[str, list[Range]] = defaultdict(list)
        letters = [name for name, seqs in items if not seqs]
        for name, seqs in items:
            if seqs:
                runs[name].append(seqs)
        said = encode(Confirmation(node=node, store=self._store, runs=runs, letters=letters))
        half = len(items) // 2
        if half and len(said) > most:
            yield from self._said(node, items[:half], most)
            yield from self._said(node, items[half:], most)
        else:
            yield said


class Waiter(Protocol):
    """Receiver of confirmations, which waits for the stores."""

    def confirmed(self, said: Confirmation) -> None:
        """Note what a store has; raise PoisonError or RetryableError."""

    def gone(self, stores: frozenset[str]) -> None:
        """Hear which stores are gone for good."""


class StoreListener:
    """Hands what can be believed of stores to who waits; called on the publisher's thread."""

    def __init__(self, topics: Topics, waiter: Waiter) -> None:
        self._topics = topics
        self._waiter = waiter
        self._gone: frozenset[str] = frozenset()
        self._sparse = Sparse(log)

    def confirmed(self, message: Received) -> None:
        """Take a confirmation; what is lost here makes the store be asked again."""
        try:
            said = self._topics.read(STORED, message.topic, message.payload)
            self._waiter.confirmed(said)
            if said.store in self._gone:
                # It took that back while nobody here was connected.
                self._say(self._gone - {said.store})
        except PoisonError as error:
            self._sparse.warning("confirmation passed over", error.reason, detail=error.detail)
        except RetryableError as error:
            self._sparse.warning("confirmation not noted", "retryable", detail=str(error))

    def gone(self, message: Received) -> None:
        """Take the message that a store is gone, or, without a payload, that it is not."""
        try:
            store = self._topics.names(GONE, message.topic)["store"]
            if message.payload:
                self._topics.read(GONE, message.topic, message.payload)
        except PoisonError as error:
            self._sparse.warning("message passed over", error.reason, detail=error.detail)
            return
        others = self._gone - {store}
        self._say(others | {store} if message.payload and len(others) < STORES_MAX else others)

    def _say(self, gone: frozenset[str]) -> None:
        self._gone = gone
        self._waiter.gone(gone)
