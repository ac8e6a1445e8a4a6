"""The rows that the broker upstream took and that stores there have yet to confirm.

They wait in memory, in the order in which they went.  Those that lack only stores that are away
are parked in the table ``relay_waiting``, so that the others need not wait for these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from raven_sql_relay.source import PARKED, TAKEN, Identity, Ref, mark
from ravenbus.messages import Confirmation
from ravenbus.resending import Sent
from ravensql.database import Cursor, Database

AT_ONCE: Final = 2000
"""Parked rows that are settled in one transaction."""


class _Row:
    """A row that waits: when it was sent, first and for this time, and the stores that have it."""

    __slots__ = ("at", "confirmed", "first", "identity")

    def __init__(self, identity: Identity, first: int, at: int) -> None:
        self.identity = identity
        self.first = first
        self.at = at
        self.confirmed = 0


class Waiting:
    """What waits in memory, and what is parked; used by one thread.

    Stores are bits, which are this process's own.
    """

    def __init__(self, database: Database, names: dict[int, str]) -> None:
        self.required = 0
        """The stores that have to confirm, as bits."""
        self._database = database
        self._names = names
        self._rows: dict[Ref, _Row] = {}
        self._refs: dict[str, dict[int, list[Ref]]] = defaultdict(dict)
        self._again: dict[Ref, int] = {}
        self._parked: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, ref: Ref, identity: Identity, turn: int) -> None:
        """Wait for a row's confirmations."""
        hash_, seq = identity
        self._rows[ref] = _Row(identity, self._again.get(ref, turn), turn)
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
        self.take(done)
        for ref in done:
            self._again.pop(ref, None)
        return done

    def take(self, refs: Iterable[Ref]) -> None:
        """Take rows out of what waits in memory."""
        for ref in refs:
            hash_, seq = self._rows.pop(ref).identity
            self._refs[hash_][seq].remove(ref)
            if not self._refs[hash_][seq]:
                del self._refs[hash_][seq]
            if not self._refs[hash_]:
                del self._refs[hash_]

    def leave(self, refs: Iterable[Ref]) -> None:
        """Hear that rows are not sent another time any more, because nobody took them."""
        for ref in refs:
            self._again.pop(ref, None)

    # Parking

    def look(self, cursor: Cursor) -> None:
        """Learn for which stores rows are parked, by any relay; settle those of a store that is none."""
        cursor.execute("SELECT DISTINCT store FROM relay_waiting")
        parked = {store for (store,) in cursor.fetchall()}
        for store in parked - {name for bit, name in self._names.items() if bit & self.required}:
            while self._settle(cursor, "store = %s", (store,)):
                pass
            parked.discard(store)
        self._parked = parked

    def parked_for(self, store: str) -> bool:
        """Return whether rows are parked for a store."""
        return store in self._parked

    def to_park(self, absent: int, before: int) -> list[Ref]:
        """Return what was sent before a turn and lacks only stores that are away."""
        found: list[Ref] = []
        for ref, row in self._rows.items():
            if row.at >= before:
                break
            if not self.required & ~row.confirmed & ~absent:
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
        self._parked |= {
            name
            for bit, name in self._names.items()
            if any(bit & self.required & ~self._rows[ref].confirmed for ref in refs)
        }
        self.take(refs)
        self.leave(refs)

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

    def unpark(self, cursor: Cursor, refs: Sequence[Ref]) -> dict[Ref, int]:
        """Mark rows as never sent, wherever they wait; return when those were sent first."""
        found = {ref: self._rows[ref].first for ref in refs if ref in self._rows}
        for table, of_table in _by_table(refs):
            ids = {ref.id: ref for ref in of_table}
            which = (table, list(ids))
            cursor.execute(
                "SELECT id, MIN(sent) FROM relay_waiting WHERE of_table = %s AND id IN %s GROUP BY id",
                which,
            )
            found |= {ids[id_]: int(sent) for id_, sent in cursor.fetchall()}
            cursor.execute("DELETE FROM relay_waiting WHERE of_table = %s AND id IN %s", which)
        for table, of_table in _by_table(found):
            mark(cursor, table, None, of_table)
        return found

    def unparked(self, firsts: dict[Ref, int]) -> None:
        """Hear that rows are to be sent another time."""
        self.take(ref for ref in firsts if ref in self._rows)
        self._again |= firsts

    def _settle(self, cursor: Cursor, condition: str, arguments: Sequence[Any]) -> list[int]:
        """Take some of what is parked from a store's, and mark what no other store lacks."""
        columns = "store, of_table, id, time, sent"
        cursor.execute(
            f"SELECT {columns} FROM relay_waiting WHERE {condition} LIMIT %s FOR UPDATE",  # noqa: S608 - ours
            (*arguments, AT_ONCE),
        )
        found = cursor.fetchall()
        for store, refs in _by_store(found):
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
            elif ref in self._again:
                found.append(Sent(ref, None, 0))
        return found

    def last(self) -> Sent[Ref] | None:
        """Return what was sent last."""
        for ref in reversed(self._rows):
            row = self._rows[ref]
            return Sent(ref, row.at, row.confirmed)
        return None

    def owed(self, bit: int, since: float, until: float, most: int) -> list[Ref]:
        """Return the oldest of what a store has not confirmed and was sent until a turn."""
        found: list[Ref] = []
        if self.parked_for(self._names[bit]):
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
        """Return when the oldest of what a store has not confirmed was sent first."""
        turns = [row.first for row in self._rows.values() if not row.confirmed & bit]
        if self.parked_for(self._names[bit]):
            with self._database.transaction() as cursor:
                cursor.execute(
                    "SELECT MIN(sent) FROM relay_waiting WHERE store = %s", (self._names[bit],)
                )
                turns += [turn for (turn,) in cursor.fetchall() if turn is not None]
        return min(turns, default=None)


def _by_table(refs: Iterable[Ref]) -> Iterator[tuple[str, list[Ref]]]:
    found: dict[str, list[Ref]] = defaultdict(list)
    for ref in refs:
        found[ref.table].append(ref)
    yield from found.items()


def _by_store(found: Iterable[tuple[Any, ...]]) -> Iterator[tuple[str, list[Ref]]]:
    refs: dict[str, list[Ref]] = defaultdict(list)
    for store, table, id_, time, _ in found:
        refs[store].append(Ref.at(table, id_, time))
    yield from refs.items()
