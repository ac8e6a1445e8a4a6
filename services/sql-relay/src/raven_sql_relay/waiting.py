"""The rows that the broker upstream took and that stores there have yet to confirm.

They wait in memory, in the order in which they went.  Those that lack only stores that are away
are parked in the table ``relay_waiting``, so that the others need not wait for these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from raven_sql_relay.source import PARKED, TAKEN, Identity, Ref, mark
from ravenbus.messages import Confirmation
from ravenbus.publisher import Entry
from ravenbus.resending import Sent
from ravensql.database import Cursor, Database

AT_ONCE: Final = 2000
"""Parked rows that are settled in one transaction."""


class Before(NamedTuple):
    """What is known of a row that is sent another time: its first turn, and the stores that have it."""

    first: int
    confirmed: int


class _Row:
    """A row that waits: when it was sent, first and for this time, and the stores that have it."""

    __slots__ = ("at", "confirmed", "entry", "first", "identity")

    def __init__(self, identity: Identity, entry: Entry, before: Before, at: int) -> None:
        self.identity = identity
        self.entry = entry
        self.first, self.confirmed = before
        self.at = at


class Waiting:
    """Rows that wait in memory, and rows that are parked; used by one thread.

    Stores are bits, which are this process's own.
    """

    def __init__(self, database: Database, names: dict[int, str]) -> None:
        self.required = 0
        """The stores that have to confirm, as bits."""
        self.since: dict[int, int] = {}
        """The turn from which on rows wait for a store that says nothing."""
        self._database = database
        self._names = names
        self._rows: dict[Ref, _Row] = {}
        self._refs: dict[str, dict[int, list[Ref]]] = defaultdict(dict)
        self._again: dict[Ref, Before] = {}
        self.parked_stores: set[str] = set()
        """The stores for which rows are parked."""

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, ref: Ref) -> bool:
        return ref in self._rows

    def add(self, ref: Ref, identity: Identity, entry: Entry, turn: int) -> None:
        """Wait for the confirmations of a row that was sent as an entry."""
        hash_, seq = identity
        before = self._again.pop(ref, Before(turn, 0))
        self._rows[ref] = _Row(identity, entry, before, turn)
        self._refs[hash_].setdefault(seq, []).append(ref)

    def confirm(self, said: Confirmation, bit: int) -> list[Ref]:
        """Note what a store has, and return it."""
        found: dict[Ref, None] = {}
        for hash_, ranges in said.runs.items():
            refs = self._refs.get(hash_, {})
            for first, last in ranges:
                # A range may be longer than what waits, and two may overlap.
                near = range(first, last + 1) if last - first < len(refs) else list(refs)
                found |= {r: None for n in near if first <= n <= last for r in refs.get(n, ())}
        new = [ref for ref in found if not self._rows[ref].confirmed & bit]
        for ref in new:
            self._rows[ref].confirmed |= bit
        return new

    def first_sent(self, refs: Iterable[Ref]) -> int | None:
        """Return the last turn in which one of some rows was sent first."""
        return max((self._rows[ref].first for ref in refs), default=None)

    def complete(self, refs: Iterable[Ref] | None = None) -> list[Ref]:
        """Take out, of some rows or all, what every store that has to confirm has confirmed."""
        refs = self._rows if refs is None else refs
        done = [ref for ref in refs if not self.required & ~self._rows[ref].confirmed]
        self._take(done)
        return done

    def _take(self, refs: Iterable[Ref]) -> None:
        for ref in refs:
            hash_, seq = self._rows.pop(ref).identity
            self._refs[hash_][seq].remove(ref)
            if not self._refs[hash_][seq]:
                del self._refs[hash_][seq]
            if not self._refs[hash_]:
                del self._refs[hash_]

    def leave(self, refs: Iterable[Ref]) -> None:
        """Hear that rows are not sent another time now: nobody took them, or they are to be read anew."""
        for ref in refs:
            self._again.pop(ref, None)

    # Parking

    def look(self, cursor: Cursor) -> None:
        """Learn for which stores rows are parked, by any relay."""
        parked: set[str] = set()
        store: str | None = ""
        while store is not None:
            # A DISTINCT would read every row.
            cursor.execute("SELECT MIN(store) FROM relay_waiting WHERE store > %s", (store,))
            ((store,),) = cursor.fetchall()
            if store is not None:
                parked.add(store)
        self.parked_stores = parked

    def forget_some(self, cursor: Cursor, store: str) -> bool:
        """Wait no more for a store with some of what is parked; return whether there was any."""
        return bool(self._settle(cursor, "store = %s", (store,)))

    def to_park(self, absent: int, before: int) -> list[Ref]:
        """Return what was sent before a turn and lacks only stores that are away."""
        found: list[Ref] = []
        for ref, row in self._rows.items():
            if row.at >= before:
                break
            lacking = self.required & ~row.confirmed
            if lacking and not lacking & ~absent:
                found.append(ref)
        return found

    def park(self, cursor: Cursor, refs: Sequence[Ref]) -> None:
        """Note rows that wait in memory as parked."""
        entries: list[tuple[Any, ...]] = []
        for ref in refs:
            row = self._rows[ref]
            lacking = self.required & ~row.confirmed
            place = (*row.identity, ref.table, ref.id, ref.time and ref.time.replace(tzinfo=None))
            entries += [
                (name, *place, row.first) for bit, name in self._names.items() if bit & lacking
            ]
        cursor.executemany(
            "REPLACE INTO relay_waiting (store, hash, seq, of_table, id, time, sent) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s)",
            entries,
        )
        for table, of_table in _by_table(refs):
            mark(cursor, table, PARKED, of_table)

    def parked(self, refs: Sequence[Ref]) -> None:
        """Hear that rows are parked."""
        self.parked_stores |= {
            name
            for bit, name in self._names.items()
            if any(bit & self.required & ~self._rows[ref].confirmed for ref in refs)
        }
        self._take(refs)

    def confirm_parked(self, cursor: Cursor, said: Confirmation) -> list[int]:
        """Settle what a store has of what is parked; return the turns in which that was sent first."""
        found: list[int] = []
        for hash_, ranges in said.runs.items():
            within = " OR ".join(["seq BETWEEN %s AND %s"] * len(ranges))
            if ranges:
                numbers = [number for one in ranges for number in one]
                condition = f"store = %s AND hash = %s AND ({within})"
                while turns := self._settle(cursor, condition, (said.store, hash_, *numbers)):
                    found += turns
        return found

    def unpark(self, cursor: Cursor, refs: Iterable[Ref]) -> dict[Ref, Before]:
        """Mark parked rows as never sent; return what is known of those that were there."""
        found: dict[Ref, Before] = {}
        for table, of_table in _by_table(refs):
            ids = {ref.id: ref for ref in of_table}
            which = (table, list(ids))
            cursor.execute(
                "SELECT id, store, sent FROM relay_waiting WHERE of_table = %s AND id IN %s", which
            )
            parked: dict[Ref, Before] = {}
            for id_, store, sent in cursor.fetchall():
                first, confirmed = parked.get(ids[id_], Before(int(sent), self.required))
                lacks = sum(bit for bit, name in self._names.items() if name == store)
                parked[ids[id_]] = Before(min(first, int(sent)), confirmed & ~lacks)
            if parked:
                cursor.execute("DELETE FROM relay_waiting WHERE of_table = %s AND id IN %s", which)
                mark(cursor, table, None, list(parked))
            found |= parked
        return found

    def unparked(self, known: dict[Ref, Before]) -> None:
        """Hear that rows are read again, to be sent another time."""
        self._again |= known

    def send_again(self, refs: Iterable[Ref]) -> list[tuple[Ref, Identity, Entry]]:
        """Take rows out of memory that are to be sent another time."""
        found = [(ref, self._rows[ref].identity, self._rows[ref].entry) for ref in refs]
        for ref, _, _ in found:
            self._again[ref] = Before(self._rows[ref].first, self._rows[ref].confirmed)
        self._take(ref for ref, _, _ in found)
        return found

    def _settle(self, cursor: Cursor, condition: str, arguments: Sequence[Any]) -> list[int]:
        """Take some of what is parked from a store's, and mark what no other store lacks."""
        columns = "store, of_table, id, time, sent"
        cursor.execute(
            f"SELECT {columns} FROM relay_waiting WHERE {condition} LIMIT %s FOR UPDATE",  # noqa: S608 - ours
            (*arguments, AT_ONCE),
        )
        found = cursor.fetchall()
        by_store: dict[str, list[Ref]] = defaultdict(list)
        for store, *place, _ in found:
            by_store[store].append(Ref.at(*place))
        for store, refs in by_store.items():
            for table, of_table in _by_table(refs):
                ids = [ref.id for ref in of_table]
                cursor.execute(
                    "DELETE FROM relay_waiting WHERE store = %s AND of_table = %s AND id IN %s",
                    (store, table, ids),
                )
                cursor.execute(
                    "SELECT DISTINCT id FROM relay_waiting WHERE of_table = %s AND id IN %s",
                    (table, ids),
                )
                lacking = {id_ for (id_,) in cursor.fetchall()}
                done = [ref for ref in of_table if ref.id not in lacking]
                if done:
                    mark(cursor, table, TAKEN, done)
        return [sent for *_, sent in found]

    # As Resending asks

    def under_way(self, keys: Sequence[Ref]) -> list[Sent[Ref]]:
        """Return those of some rows, sent again or to be so, that still wait."""
        found = []
        for ref in keys:
            if row := self._rows.get(ref):
                found.append(Sent(ref, row.at, row.confirmed))
            elif before := self._again.get(ref):
                found.append(Sent(ref, None, before.confirmed))
        return found

    def last(self) -> Sent[Ref] | None:
        """Return what was sent last, of what is parked if nothing waits in memory."""
        for ref in reversed(self._rows):
            row = self._rows[ref]
            return Sent(ref, row.at, row.confirmed)
        for bit, name in self._names.items():
            if not (bit & self.required and name in self.parked_stores):
                continue
            with self._database.transaction() as cursor:
                cursor.execute(
                    "SELECT of_table, id, time, sent FROM relay_waiting "
                    "WHERE store = %s ORDER BY sent DESC LIMIT 1",
                    (name,),
                )
                for *place, sent in cursor.fetchall():
                    return Sent(Ref.at(*place), int(sent), self.required & ~bit)
        return None

    def owed(self, bit: int, since: float, until: float, most: int) -> list[Ref]:
        """Return the oldest of what a store has not confirmed and was sent until a turn."""
        found: list[Ref] = []
        if self._names[bit] in self.parked_stores:
            with self._database.transaction() as cursor:
                cursor.execute(
                    "SELECT of_table, id, time FROM relay_waiting "
                    "WHERE store = %s AND sent <= %s ORDER BY sent LIMIT %s",
                    (self._names[bit], int(until), most),
                )
                found += [Ref.at(*one) for one in cursor.fetchall()]
        for ref, row in self._rows.items():
            if len(found) >= most or row.at > until:
                break
            if row.at > since and not row.confirmed & bit:
                found.append(ref)
        return found

    def oldest(self, bit: int) -> int | None:
        """Return since when rows wait for a store, over restarts, if any do now."""
        turns = [row.first for row in self._rows.values() if not row.confirmed & bit]
        if self._names[bit] in self.parked_stores:
            with self._database.transaction() as cursor:
                cursor.execute(
                    "SELECT MIN(sent) FROM relay_waiting WHERE store = %s", (self._names[bit],)
                )
                turns += [turn for (turn,) in cursor.fetchall() if turn is not None]
        return min(*turns, self.since.get(bit, min(turns))) if turns else None


def _by_table(refs: Iterable[Ref]) -> Iterator[tuple[str, list[Ref]]]:
    found: dict[str, list[Ref]] = defaultdict(list)
    for ref in refs:
        found[ref.table].append(ref)
    yield from found.items()
