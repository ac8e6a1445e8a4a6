"""The outbox of the relay: the rows of every table of readings, by what is marked on each.

``relayed`` is empty in a row that was never sent, whoever inserted it and whenever that commits,
so nothing is missed that has a low id and comes late.  A row is marked as taken when a subscriber
took it and every required store has confirmed it.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from raven_sql_relay.claims import SIZE, Block, Claims
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
from raven_sql_relay.waiting import Waiting
from ravenbus.confirming import AUTO, STORES_MAX, Stores
from ravenbus.errors import PoisonError, RetryableError
from ravenbus.health import Health
from ravenbus.messages import Confirmation
from ravenbus.publisher import Entry
from ravenbus.resending import FORGOTTEN, TURN_S, Resending
from ravenbus.topics import Topics
from ravensql import rows, schema
from ravensql.database import Cursor, Database
from ravensql.settings import MysqlUrl

log = logging.getLogger(__name__)

POLL_S: Final = 0.2
"""Interval between looks for new rows in the tables when there were none."""
FROM_START_S: Final = 1.0
"""Interval between looks that begin at the lowest id, where rows are that committed late."""
MARK_AT: Final = 1000
MARK_AFTER_S: Final = 0.2
"""Rows are marked together, because each commit waits for the disk."""
REOPEN_S: Final = 900.0
"""Longest time between tries of what nobody took; another relay that tried it may be gone."""
WAITING_MAX: Final = 20_000
"""Rows that wait in memory for a confirmation; while there are more, no others are read."""
ABSENT_TURNS: Final = int(60 / TURN_S)
"""A store that confirmed nothing for so long, while rows wait for it, is away."""
FORGET_BATCHES: Final = 5
"""Transactions of a turn that settle what is parked for a store that is forgotten."""
SAVE_TURNS: Final = int(60 / TURN_S)
"""Turns after which the database learns again which turn it is, and that a store goes on confirming."""
TRIES: Final = 8
"""Blocks of other relays that are passed over in one look."""


class _Lane:
    """The rows of one table that were sent before and that nobody took.

    They are tried again with each connection, a block at a time from where the last one ended,
    for as long as somebody takes any: nobody may have subscribed to a million of them.  What the
    account may not write is tried in the first of these, and passed over in those that follow.
    """

    def __init__(self) -> None:
        self.start = 0
        self.open = False
        self.block: Block | None = None
        self.goes_on = False
        self.passed_over = False
        """A block since the lowest id had nothing but what may not be written."""
        self.is_others = False
        """What is left is among the rows of another relay."""

    def reopen(self) -> None:
        """Try again what nobody took, whatever becomes of a block tried before."""
        self.open, self.block, self.goes_on = True, None, False
        self.passed_over = False

    def settled(self, block: Block) -> None:
        """Go on if somebody took a row of the block that was tried, or may not be given one."""
        if block == self.block:
            self.open = self.goes_on
            self.block, self.goes_on = None, False


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
        health: Health | None = None,
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
        self._learns = stores.names is None
        self._named = stores.names or frozenset()
        self._bits: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._heard: dict[int, int] = {}
        self._saved: dict[int, int] = {}
        self._known: set[str] = set()
        self._has_fewer = False
        self._turn = 1
        self._turn_at = clock() + TURN_S
        self._waiting = Waiting(self._database, self._names)
        self._resending: Resending[Ref] = Resending(self._waiting, health or Health())
        self._in_hand: dict[Block, set[int]] = defaultdict(set)
        self._marks: dict[tuple[str, int | None], list[Ref]] = defaultdict(list)
        self._handed = 0
        self._forbidden: frozenset[str] = frozenset()
        self._look_at = self._from_start_at = self._mark_at = self._reopen_at = 0.0
        self._start: dict[str, int] = {}
        self._lanes = {table: _Lane() for table in rows.COLUMNS}

    def begin(self) -> None:
        """Begin a connection, in which what nobody took is tried again."""
        self._source.announced.clear()
        self._forbidden = frozenset()
        self._reopen()

    def tend(self) -> None:
        """Mark what is due, and let a turn pass when it is time."""
        if self._clock() >= self._reopen_at:
            self._reopen()
        if self._clock() >= self._turn_at:
            self._turn_at = self._clock() + TURN_S
            self._pass_turn()
        self._mark_when_due()

    def entries(self, after: int, limit: int) -> list[Entry]:
        """Return the next entries: of each table the newest rows, then the oldest."""
        found = self._ready(after, limit)
        if not found and self._clock() >= self._look_at and len(self._waiting) < WAITING_MAX:
            self._look()
            found = self._ready(after, limit)
        if found:
            self._handed = max(self._handed, found[-1].key)
        return found

    def taken(self, keys: list[int]) -> None:
        """Mark rows as taken upstream, or have them wait for the stores there."""
        for key in keys if self._waiting.required else ():
            if identity := self._identities.pop(key, None):
                entry = self._entries.pop(key)
                self._waiting.add(self._refs.pop(key), identity, entry, self._turn)
        self._settle((key for key in keys if key in self._entries), TAKEN)
        self._mark_when_due()

    def kept(self, keys: list[int]) -> None:
        """Mark rows that nobody took, or that were refused."""
        self._waiting.leave(self._refs[key] for key in keys if key in self._refs)
        for key in keys:
            if key in self._refs and self._entries[key].topic in self._forbidden:
                self._goes_on(self._refs[key])
        self._settle(keys, NOBODY)

    def forbidden(self, topics: frozenset[str]) -> None:
        """Pass over, in this connection, what was refused before and goes to these topics."""
        self._forbidden = topics

    def confirmed(self, said: Confirmation) -> None:
        """Mark the rows as taken that every required store has.

        Raise RetryableError, and PoisonError for one store too many.
        """
        bit = self._bits.get(said.store, 0)
        if self._learns and not bit & self._waiting.required:
            bit = self._require(said.store)
        if not bit & self._waiting.required:
            return
        self._heard[bit] = self._turn
        self._waiting.since.pop(bit, None)
        refs = self._waiting.confirm(said, bit)
        turns = [self._waiting.first_sent(refs)]
        done = self._waiting.complete(refs)
        self._metrics.confirmed.inc(len(done))
        self._settle_refs(done, TAKEN)
        if said.store in self._waiting.parked_stores:
            with self._database.transaction() as cursor:
                turns += self._waiting.confirm_parked(cursor, said)
        for turn in turns:
            if turn is not None:
                self._resending.confirmed(bit, turn, self._turn)

    def gone(self, stores: frozenset[str]) -> None:
        """Wait no more for these stores, once they were silent for a day."""
        self._resending.gone = stores

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
        self._claims.connected(cursor)
        first = self._claims.leads(cursor)
        self._source.connected(cursor, self._database.payload_max, first=first)
        for name in sorted(self._named):
            cursor.execute("INSERT IGNORE INTO relay_store (name) VALUES (%s)", (name,))
        cursor.execute("SELECT turn FROM relay")
        ((turn,),) = cursor.fetchall()
        self._turn = max(self._turn, int(turn) + 1)
        self._learn_stores(cursor)
        self._waiting.look(cursor)
        for lane in self._lanes.values():
            lane.block = None
        for key in [key for key in self._entries if key > self._handed]:
            del self._entries[key]
            self._identities.pop(key, None)
            if ref := self._refs.pop(key, None):
                self._in_hand[ref.block].discard(ref.id)
                self._waiting.leave([ref])

    def _reopen(self) -> None:
        """Try again what nobody took."""
        self._reopen_at = self._clock() + REOPEN_S
        for lane in self._lanes.values():
            lane.reopen()

    # The stores

    def _learn_stores(self, cursor: Cursor) -> None:
        """Learn from the database whom this relay waits for: others learn and forget too."""
        cursor.execute("SELECT name, heard, waits FROM relay_store ORDER BY since, name")
        found = {
            name: (heard, waits)
            for name, heard, waits in cursor.fetchall()
            if name in self._named or (self._learns and heard != FORGOTTEN)
        }
        self._known = set(found)
        required = 0
        for name, (heard, waits) in found.items():
            if name not in self._bits and len(self._bits) == STORES_MAX:
                continue
            bit = self._bit(name)
            required |= bit
            said = self._turn if heard in (None, FORGOTTEN) else int(heard)
            if bit not in self._heard and waits is not None:
                self._waiting.since[bit] = int(waits)
            if bit not in self._heard or heard not in (None, FORGOTTEN):
                self._heard[bit] = max(said, self._heard.get(bit, said))
        self._require_these(required)

    def _require_these(self, stores: int) -> None:
        self._has_fewer |= bool(self._waiting.required & ~stores)
        self._resending.required = self._waiting.required = stores

    def _bit(self, name: str) -> int:
        """Return what stands for a store in this process; raise PoisonError for one too many."""
        if name not in self._bits and len(self._bits) == STORES_MAX:
            raise PoisonError("too-many-stores", f"{name!r} is one more than {STORES_MAX} stores")
        bit = self._bits.setdefault(name, 1 << len(self._bits))
        self._names[bit] = name
        return bit

    def _require(self, name: str) -> int:
        """Have rows wait until a store has confirmed them."""
        bit = self._bit(name)
        with self._database.transaction() as cursor:
            cursor.execute(
                "INSERT INTO relay_store (name, heard) VALUES (%s, %s) "
                "ON DUPLICATE KEY UPDATE heard = VALUES(heard)",
                (name, self._turn),
            )
        self._require_these(self._waiting.required | bit)
        log.info("rows wait until this store confirms them", extra={"store": name})
        return bit

    def _pass_turn(self) -> None:
        """Send again what was lost, and park what waits only for stores that are away."""
        self._turn += 1
        heard = {b: t for b, t in self._heard.items() if t >= self._saved.get(b, 0) + SAVE_TURNS}
        waits = {
            bit: since
            for bit in self._heard
            if bit & self._waiting.required
            and bit not in self._waiting.since
            and (since := self._waiting.oldest(bit)) is not None
            and since <= self._turn - SAVE_TURNS
        }
        with self._database.transaction() as cursor:
            self._claims.leads(cursor)
            if self._turn % SAVE_TURNS == 0 or waits:
                cursor.execute("UPDATE relay SET turn = GREATEST(turn, %s)", (self._turn,))
            cursor.execute("SELECT turn FROM relay")
            self._turn = max([self._turn, *(int(turn) for (turn,) in cursor.fetchall())])
            for bit, turn in heard.items():
                cursor.execute(
                    "UPDATE relay_store SET heard = %s, waits = NULL "
                    "WHERE name = %s AND NOT heard <=> %s",
                    (turn, self._names[bit], FORGOTTEN),
                )
            for bit, since in waits.items():
                cursor.execute(
                    "UPDATE relay_store SET waits = %s WHERE name = %s", (since, self._names[bit])
                )
            self._learn_stores(cursor)
            self._waiting.look(cursor)
        self._saved |= heard
        self._waiting.since |= waits
        if self._has_fewer:
            self._has_fewer = False
            self._settle_refs(self._waiting.complete(), TAKEN)
        self._forget_parked()
        if self._waiting.required:
            self._send_again()
            self._park()
            self._forget_silent()

    def _forget_parked(self) -> None:
        """Settle some of what is parked for stores that nobody waits for any longer."""
        for store in self._waiting.parked_stores - self._known:
            for _ in range(FORGET_BATCHES):
                with self._database.transaction() as cursor:
                    if not self._waiting.forget_some(cursor, store):
                        break

    def _send_again(self) -> None:
        lost = self._resending.lost(self._turn)
        here = [ref for ref in lost.keys if ref in self._waiting]
        read = self._read_again(lost.keys.difference(here))
        for ref, identity, entry in self._waiting.send_again(here):
            self._take_in([Found(self._source.renewed(entry), ref, identity)])
        self._metrics.sent_again.inc(len(here) + len(read))
        self._resending.sent_again(lost, [*here, *read])

    def _read_again(self, parked: Collection[Ref]) -> list[Ref]:
        """Read parked rows that are to be sent again, but for those in another relay's blocks."""
        if not parked:
            return []
        found: list[Found] = []
        with self._database.transaction() as cursor:
            blocks = {ref.block for ref in parked}
            ours = {
                block
                for block in blocks
                if block in self._claims or self._claims.claim(cursor, block)
            }
            known = self._waiting.unpark(cursor, [ref for ref in parked if ref.block in ours])
            for block in {ref.block for ref in known}:
                found += self._source.entries(cursor, block, NEW, self._in_hand.get(block, ()))
        self._take_in(found)
        self._release()
        known = {ref: one for ref, one in known.items() if ref.id in self._in_hand[ref.block]}
        self._waiting.unparked(known)
        return list(known)

    def _park(self) -> None:
        """Have what lacks only stores that are away wait in the database, unless all are away."""
        before = self._turn - ABSENT_TURNS
        required = self._waiting.required
        absent = sum(bit for bit, heard in self._heard.items() if bit & required and heard < before)
        if not absent or absent == required:
            return
        if refs := self._waiting.to_park(absent, before):
            with self._database.transaction() as cursor:
                self._waiting.park(cursor, refs)
            self._waiting.parked(refs)
            for ref in refs:
                self._goes_on(ref)
            self._let_go(refs)

    def _forget_silent(self) -> None:
        """Let nothing wait any longer for a store that was silent for too long."""
        heard = [(self._names[bit], bit, turn) for bit, turn in self._heard.items()]
        for name in self._resending.silent(heard, self._turn, forgets=self._learns):
            with self._database.transaction() as cursor:
                cursor.execute(
                    "UPDATE relay_store SET heard = %s WHERE name = %s", (FORGOTTEN, name)
                )
            self._require_these(self._waiting.required & ~self._bits[name])

    def _ready(self, after: int, limit: int) -> list[Entry]:
        found = [entry for key, entry in self._entries.items() if key > after]
        return found[:limit]

    # From the tables to entries

    def _look(self) -> None:
        """Read what nobody else is sending; when there is nothing, let some time pass."""
        from_start = self._clock() >= self._from_start_at
        if from_start:
            self._from_start_at = self._clock() + FROM_START_S
            self._start.clear()
        found: list[Found] = []
        with self._database.transaction() as cursor:
            for table in rows.COLUMNS:
                for block, condition in self._claimed(cursor, table, own=from_start):
                    in_hand = self._in_hand.get(block, ())
                    entries = self._source.entries(cursor, block, condition, in_hand)
                    if condition == KEPT:
                        entries = self._allowed(table, entries)
                    found += entries
        self._take_in(found)
        self._release()
        if not found:
            self._look_at = self._clock() + POLL_S
            self._metrics.oldest.set(0)

    def _allowed(self, table: str, entries: Sequence[Found]) -> list[Found]:
        """Return what may be sent of a block that is to be tried again."""
        found = [one for one in entries if one.entry.topic not in self._forbidden]
        lane = self._lanes[table]
        if not any(one.ref for one in found):
            lane.block = None  # or another relay was faster
            lane.passed_over |= len(found) < len(entries)
        return found

    def _take_in(self, found: Iterable[Found]) -> None:
        """Have entries to send, and their rows in hand."""
        for entry, ref, identity in found:
            self._entries[entry.key] = entry
            if ref and identity:
                self._identities[entry.key] = identity
                self._refs[entry.key] = ref
                self._in_hand[ref.block].add(ref.id)

    def _claimed(self, cursor: Cursor, table: str, *, own: bool) -> Iterator[tuple[Block, str]]:
        """Claim blocks of a table and yield each with the condition of the rows wanted of it.

        With ``own`` those too that are ours already, because of rows that wait for their stores.
        """
        # While there is a long way to go, what is new comes first.
        newest = self._source.newest(cursor, table)
        block = Block.of(table, newest)
        unread = newest and newest not in self._in_hand.get(block, ())
        if unread and (block in self._claims or self._claims.claim(cursor, block)):
            yield block, NEW
        ours = [one for one in self._claims if one.table == table and one != block] if own else ()
        for one in ours:
            in_hand = self._in_hand.get(one, ())
            if len(in_hand) < SIZE and self._source.unread(cursor, one, in_hand):
                yield one, NEW
        oldest = self._claim(cursor, table, NEW, self._start.get(table, 0))
        if not oldest and self._start.pop(table, 0):
            oldest = self._claim(cursor, table, NEW, 0)
        if oldest:
            self._start[table] = oldest.last + 1
            yield oldest, NEW
        lane = self._lanes[table]
        # What may be among another relay's rows is not asked for at each look.
        if lane.open and not lane.block and (own or not lane.is_others):
            lane.block = self._claim(cursor, table, KEPT, lane.start)
            if lane.block:
                lane.start = lane.block.last + 1
                yield lane.block, KEPT
            else:
                # From the lowest id once more, or later what is among rows on their way.
                again = lane.start > 0 or any(b.table == table for b in self._claims)
                lane.is_others = not again
                lane.open = not lane.passed_over and (
                    again or self._source.first(cursor, table, KEPT, 0) is not None
                )
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
        for key in keys:
            self._entries.pop(key, None)
            self._identities.pop(key, None)
            if ref := self._refs.pop(key, None):
                self._settle_refs([ref], state)

    def _settle_refs(self, refs: Iterable[Ref], state: int) -> None:
        if not self._marks:
            self._mark_at = self._clock() + MARK_AFTER_S
        for ref in refs:
            self._marks[ref.table, state].append(ref)
            if state == TAKEN:
                self._goes_on(ref)

    def _goes_on(self, ref: Ref) -> None:
        """Go on after the block that is tried, if the row is of that."""
        lane = self._lanes[ref.table]
        lane.goes_on |= ref.block == lane.block

    def _mark_when_due(self) -> None:
        count = sum(map(len, self._marks.values()))
        if count >= MARK_AT or (count and self._clock() >= self._mark_at):
            self._mark()

    def _mark(self) -> None:
        with self._database.transaction() as cursor:
            for (table, state), refs in self._marks.items():
                mark(cursor, table, state, refs)
        marked = [ref for refs in self._marks.values() for ref in refs]
        self._marks.clear()
        self._let_go(marked)

    def _let_go(self, refs: Iterable[Ref]) -> None:
        """Have rows that are marked in hand no longer."""
        for ref in refs:
            self._in_hand[ref.block].discard(ref.id)
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
