"""The outbox of the relay: the rows of every table of readings, by what is marked on each.

``relayed`` is empty in a row that was never sent, whoever inserted it and whenever that commits,
so nothing is missed that has a low id and comes late.  A row is marked as taken when a subscriber
took it and every required store has confirmed it.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import takewhile
from typing import Final

from raven_sql_relay.claims import Block, Claims
from raven_sql_relay.source import (
    KEPT,
    NEW,
    NOBODY,
    TAKEN,
    Found,
    Identity,
    Ref,
    RelayMetrics,
    Source,
    mark,
)
from ravenbus.confirming import AUTO, RESEND_S, STORES_MAX, Stores
from ravenbus.errors import RetryableError
from ravenbus.messages import Confirmation
from ravenbus.publisher import Entry
from ravenbus.topics import Topics
from ravensql import rows, schema
from ravensql.database import Cursor, Database
from ravensql.settings import MysqlUrl

log = logging.getLogger(__name__)

POLL_S: Final = 0.2
"""How often the tables are looked at for new rows when there were none."""
FROM_START_S: Final = 1.0
"""How often the look begins at the lowest id, where rows are that committed late."""
MARK_AT: Final = 1000
MARK_AFTER_S: Final = 0.2
"""Rows are marked together, because each commit waits for the disk."""
REOPEN_S: Final = 900.0
"""How often what nobody took is tried at least; another relay that tried it may be gone."""
WAITING_MAX: Final = 20_000
"""Rows that were taken and not confirmed; while there are more, no others are read."""
TRIES: Final = 8
"""Blocks of other relays that are passed over in one look."""


class _Lane:
    """The rows of one table that were sent before and that nobody took.

    They are tried again with each connection, a block at a time from where the last one ended,
    for as long as somebody takes any: nobody may have subscribed to a million of them.
    """

    def __init__(self) -> None:
        self.start = 0
        self.open = False
        self.block: Block | None = None
        self.some_taken = False

    def reopen(self) -> None:
        """Try again what nobody took, whatever becomes of a block tried before."""
        self.open, self.block, self.some_taken = True, None, False

    def settled(self, block: Block) -> None:
        """Go on if somebody took a row of the block that was tried."""
        if block == self.block:
            self.open = self.some_taken
            self.block, self.some_taken = None, False


class _Waiting:
    """The rows that were taken, with the stores that confirmed them, in the order they went."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._keys: dict[str, dict[int, set[int]]] = defaultdict(dict)
        self._confirmed: dict[int, set[str]] = {}
        self._identities: dict[int, Identity] = {}

    def __len__(self) -> int:
        return len(self._since)

    def add(self, key: int, identity: Identity, since: float) -> None:
        """Wait for a row's confirmations."""
        hash_, seq = identity
        self._since[key] = since
        self._identities[key] = identity
        self._keys[hash_].setdefault(seq, set()).add(key)
        self._confirmed[key] = set()

    def confirm(self, said: Confirmation, required: AbstractSet[str]) -> list[int]:
        """Note what a store has; return the keys that every required store has confirmed."""
        found: set[int] = set()
        for hash_, ranges in said.runs.items():
            keys = self._keys.get(hash_, {})
            for first, last in ranges:
                # A range may be longer than what waits.
                near = range(first, last + 1) if last - first < len(keys) else list(keys)
                found.update(*(keys[n] for n in near if n in keys and first <= n <= last))
        for key in found:
            self._confirmed[key].add(said.store)
        return self._remove([key for key in sorted(found) if required <= self._confirmed[key]])

    def late(self, before: float) -> list[int]:
        """Return the keys that were taken before a time."""
        return self._remove([*takewhile(lambda key: self._since[key] < before, self._since)])

    def _remove(self, keys: list[int]) -> list[int]:
        for key in keys:
            hash_, seq = self._identities.pop(key)
            del self._since[key], self._confirmed[key]
            self._keys[hash_][seq].discard(key)
            if not self._keys[hash_][seq]:
                del self._keys[hash_][seq]
        return keys


class SqlOutbox:
    """The rows of a database as an outbox; used by one thread.

    At most two blocks of each table are in memory, and what waits for stores.  Raises
    RetryableError while the database is away, FatalError when a newer program has changed it.
    """

    def __init__(
        self,
        url: MysqlUrl,
        topics: Topics,
        metrics: RelayMetrics,
        *,
        upstream: str,
        node: str | None = None,
        stores: Stores = AUTO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = Database(url, on_connect=self._connected)
        self._source = Source(topics, metrics, upstream, node)
        self._metrics = metrics
        self._clock = clock
        self._claims = Claims(url.database)
        self._entries: dict[int, Entry] = {}
        self._refs: dict[int, Ref] = {}
        self._identities: dict[int, Identity] = {}
        self._stores = stores
        self._required = set(stores.names or ())
        self._waiting = _Waiting()
        self._left = False
        self._in_hand: dict[Block, set[int]] = defaultdict(set)
        self._marks: dict[tuple[str, int], list[Ref]] = defaultdict(list)
        self._handed = 0
        self._look_at = self._from_start_at = self._mark_at = self._reopen_at = 0.0
        self._start: dict[str, int] = {}
        self._lanes = {table: _Lane() for table in rows.COLUMNS}

    def take(self, after: int, limit: int) -> list[Entry]:
        """Return the next entries: of each table the newest rows, then the oldest.

        ``after`` 0 is a new connection, in which what nobody took may be tried again.
        """
        if after == 0:
            self._source.announced.clear()
        if after == 0 or self._clock() >= self._reopen_at:
            self._reopen_at = self._clock() + REOPEN_S
            for lane in self._lanes.values():
                lane.reopen()
        if late := self._waiting.late(self._clock() - RESEND_S):
            self._left = True
            self._metrics.sent_again.inc(len(late))
            self._settle(late, NOBODY)
        self._mark_when_due()
        found = self._ready(after, limit)
        if not found and self._clock() >= self._look_at and len(self._waiting) < WAITING_MAX:
            self._look()
            found = self._ready(after, limit)
        if found:
            self._handed = max(self._handed, found[-1].key)
        return found

    def taken(self, keys: list[int]) -> None:
        """Mark rows as taken upstream, or have them wait for the stores there."""
        for key in keys if self._required else ():
            if identity := self._identities.pop(key, None):
                self._entries.pop(key, None)
                self._waiting.add(key, identity, self._clock())
        self._settle((key for key in keys if key in self._entries), TAKEN)
        self._mark_when_due()

    def confirm(self, said: Confirmation) -> None:
        """Mark the rows as taken that every required store has; raise RetryableError."""
        learns = self._stores.names is None and len(self._required) < STORES_MAX
        if learns and said.store not in self._required:
            with self._database.transaction() as cursor:
                cursor.execute("INSERT IGNORE INTO relay_store (name) VALUES (%s)", (said.store,))
            self._required.add(said.store)
            log.info("rows wait until this store confirms them", extra={"store": said.store})
        if said.store not in self._required:
            return
        done = self._waiting.confirm(said, self._required)
        self._metrics.confirmed.inc(len(done))
        self._settle(done, TAKEN)
        if self._left:
            # The store is there, so what it did not confirm it never got.
            self._left = False
            self._reopen_at = self._clock()

    def keep(self, keys: list[int]) -> None:
        """Mark rows that nobody took, or that were refused."""
        self._settle(keys, NOBODY)

    def close(self) -> None:
        """Mark what is known and close the connection."""
        try:
            if self._marks:
                self._mark()
        except RetryableError as error:
            log.warning("rows that were taken will be sent again", extra={"reason": str(error)})
        self._database.close()

    def _connected(self, cursor: Cursor) -> None:
        """Begin on a new connection: what was not handed out yet may be another relay's by now."""
        schema.require_current(cursor)
        self._source.connected(cursor, self._database.payload_max)
        if self._stores.names is None:
            cursor.execute("SELECT name FROM relay_store")
            self._required = {name for (name,) in cursor.fetchall()}
        self._claims.connected(cursor)
        for lane in self._lanes.values():
            lane.block = None
        for key in [key for key in self._entries if key > self._handed]:
            del self._entries[key]
            self._identities.pop(key, None)
            if ref := self._refs.pop(key, None):
                self._in_hand[ref.block].discard(ref.id)

    def _ready(self, after: int, limit: int) -> list[Entry]:
        found = [entry for key, entry in self._entries.items() if key > after]
        return found[:limit]

    # From the tables to entries

    def _look(self) -> None:
        """Read what nobody else is sending; when there is nothing, let some time pass."""
        if self._clock() >= self._from_start_at:
            self._from_start_at = self._clock() + FROM_START_S
            self._start.clear()
        found: list[Found] = []
        with self._database.transaction() as cursor:
            for table in rows.COLUMNS:
                for block, condition in self._claimed(cursor, table):
                    in_hand = self._in_hand.get(block, ())
                    entries = self._source.entries(cursor, block, condition, in_hand)
                    if condition == KEPT and not entries:
                        self._lanes[table].block = None  # another relay was faster
                    found += entries
        for entry, ref, identity in found:
            self._entries[entry.key] = entry
            if ref and identity:
                self._identities[entry.key] = identity
                self._refs[entry.key] = ref
                self._in_hand[ref.block].add(ref.id)
        self._release()
        if not found:
            self._look_at = self._clock() + POLL_S
            self._metrics.oldest.set(0)

    def _claimed(self, cursor: Cursor, table: str) -> Iterator[tuple[Block, str]]:
        """Claim blocks of a table and yield each with the condition of the rows wanted of it."""
        # While there is a long way to go, what is new comes first.
        newest = self._source.newest(cursor, table)
        block = Block.of(table, newest)
        unread = newest and newest not in self._in_hand.get(block, ())
        # The block may be ours because of rows that wait for their stores.
        if unread and (block in self._claims or self._claims.claim(cursor, block)):
            yield block, NEW
        oldest = self._claim(cursor, table, NEW, self._start.get(table, 0))
        if not oldest and self._start.pop(table, 0):
            oldest = self._claim(cursor, table, NEW, 0)
        if oldest:
            self._start[table] = oldest.last + 1
            yield oldest, NEW
        lane = self._lanes[table]
        if lane.open and not lane.block:
            lane.block = self._claim(cursor, table, KEPT, lane.start)
            if lane.block:
                lane.start = lane.block.last + 1
                yield lane.block, KEPT
            else:
                # From the lowest id once more, or later what is among rows on their way.
                lane.open = lane.start > 0 or any(b.table == table for b in self._claims)
                lane.start = 0

    def _claim(self, cursor: Cursor, table: str, condition: str, start: int) -> Block | None:
        """Claim the first block from ``start`` on that has such rows and that nobody has."""
        tries = TRIES
        while tries:
            first = self._source.first(cursor, table, condition, start)
            if first is None:
                break
            block = Block.of(table, first)
            if block not in self._claims:
                if self._claims.claim(cursor, block):
                    return block
                tries -= 1
            start = block.last + 1
        return None

    # From answers to marks

    def _settle(self, keys: Iterable[int], state: int) -> None:
        if not self._marks:
            self._mark_at = self._clock() + MARK_AFTER_S
        for key in keys:
            self._entries.pop(key, None)
            self._identities.pop(key, None)
            if ref := self._refs.pop(key, None):
                self._marks[ref.table, state].append(ref)
                lane = self._lanes[ref.table]
                lane.some_taken |= state == TAKEN and ref.block == lane.block

    def _mark_when_due(self) -> None:
        count = sum(map(len, self._marks.values()))
        if count >= MARK_AT or (count and self._clock() >= self._mark_at):
            self._mark()

    def _mark(self) -> None:
        with self._database.transaction() as cursor:
            for (table, state), refs in self._marks.items():
                mark(cursor, table, state, refs)
        for refs in self._marks.values():
            for ref in refs:
                self._in_hand[ref.block].discard(ref.id)
        self._marks.clear()
        self._release()

    def _release(self) -> None:
        """Give back the blocks of which no row is in hand."""
        self._in_hand = defaultdict(set, {b: ids for b, ids in self._in_hand.items() if ids})
        done = [block for block in self._claims if block not in self._in_hand]
        if done:
            with self._database.transaction() as cursor:
                self._claims.release(cursor, done)
            for block in done:
                self._lanes[block.table].settled(block)
