"""The rows as they are read, identified and made into entries, and what is marked on them."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from raven_sql_relay.claims import Block
from ravenbus.errors import ContractError, FatalError
from ravenbus.logs import Sparse
from ravenbus.messages import DeadLetter, Reading, Run, encode, now
from ravenbus.metrics import PublisherMetrics
from ravenbus.publisher import Entry
from ravenbus.topics import READING, RUN, Topics
from ravensql import readings, rows
from ravensql.database import Cursor
from ravensql.readings import Record

log = logging.getLogger(__name__)

SERVICE: Final = "sql-relay"

NEW: Final = "relayed IS NULL"
KEPT: Final = "relayed = 0"
NOBODY, TAKEN, LEFT_OUT, PARKED = 0, 1, 2, 3
"""Marks on a row; a row marked PARKED is in the table ``relay_waiting``."""

DEMAND: Final = "instantaneous_demand"
"""The table in which python-raven's scripts insert rows without an identity."""

BY_ID: Final = "FORCE INDEX (PRIMARY)"
"""A scan of the table would wait for what others have not committed."""

_THESE: Final = "id IN %s AND time BETWEEN %s AND %s"
_TIMELESS: Final = "id IN %s AND time < '1970-01-02'"
_MORE: Final = {
    table: ("relay_seq", "placeholder") if table == DEMAND else () for table in rows.COLUMNS
}


class RelayMetrics(PublisherMetrics):
    """Metrics of what becomes of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.left_out = self.counter("raven_left_out", "Rows that are no readings", ["reason"])
        self.oldest = self.gauge(
            "raven_unsent_oldest_timestamp_seconds",
            "Time of the oldest row that was never sent, 0 if there is none",
        )


class Ref(NamedTuple):
    """Reference to a row: its table, id and time."""

    table: str
    id: int
    time: datetime | None
    """None where the row has none."""

    @classmethod
    def of(cls, table: str, record: Record) -> Ref:
        """Return where the row is that a record was read from."""
        return cls(table, record["id"], record["time"])

    @classmethod
    def at(cls, table: str, id_: int, time: datetime | None) -> Ref:
        """Return the row that a table of the database names."""
        return cls(table, id_, time and time.replace(tzinfo=UTC))

    @property
    def block(self) -> Block:
        """The block that it is in."""
        return Block.of(self.table, self.id)


Identity = tuple[str, int]
"""Hash and seq."""


class Found(NamedTuple):
    """An entry, and the row and reading that it was made from; a run's was made from none."""

    entry: Entry
    ref: Ref | None = None
    identity: Identity | None = None


class Source:
    """The tables of readings; each call is part of its caller's transaction."""

    def __init__(
        self, topics: Topics, metrics: RelayMetrics, upstream: str, node: str | None
    ) -> None:
        self.announced: dict[str, str | None] = {}
        """The runs that were sent, by hash, each with its meter."""
        self._topics = topics
        self._metrics = metrics
        self._upstream = upstream
        self._node = node or ""
        self._source = ""
        self._payload_max = 0
        self._last_key = 0
        self._sparse = Sparse(log)

    def connected(self, cursor: Cursor, payload_max: int, *, first: bool) -> None:
        """Enter the relay in the database, and learn what it is called there.

        Raise FatalError if another relay, the ``first``, sends the rows elsewhere.
        """
        cursor.execute("SELECT upstream FROM relay")
        for (other,) in cursor.fetchall():
            if not first and other != self._upstream:
                raise FatalError(
                    f"another relay sends this database's rows to {other}, and each row goes to "
                    f"one broker: stop that relay, or set UPSTREAM_MQTT_URL of both to the same"
                )
        self.announced.clear()
        self._payload_max = payload_max
        made = f"raven-{uuid.uuid4().hex[:8]}"
        cursor.execute(
            "INSERT INTO relay (id, source, node, upstream) VALUES (1, %s, %s, %s) "
            "ON DUPLICATE KEY UPDATE upstream = VALUES(upstream), node = COALESCE(%s, node)",
            (str(uuid.uuid4()), self._node or made, self._upstream, self._node or None),
        )
        cursor.execute("SELECT source, node FROM relay")
        ((self._source, self._node),) = cursor.fetchall()

    def first(self, cursor: Cursor, table: str, condition: str, start: int) -> int | None:
        """Return the lowest id from ``start`` on of a row that meets the condition."""
        cursor.execute(
            f"SELECT id FROM {table} WHERE {condition} AND id >= %s ORDER BY id LIMIT 1",  # noqa: S608 - our names
            (start,),
        )
        found = cursor.fetchall()
        return found[0][0] if found else None

    def newest(self, cursor: Cursor, table: str) -> int:
        """Return the highest id of a row that was never sent, 0 if there is none."""
        cursor.execute(f"SELECT id FROM {table} WHERE {NEW} ORDER BY id DESC LIMIT 1")  # noqa: S608 - our names
        found = cursor.fetchall()
        return found[0][0] if found else 0

    def unread(self, cursor: Cursor, block: Block, in_hand: Collection[int]) -> bool:
        """Return whether rows of a block were never sent and are not in hand."""
        cursor.execute(
            f"SELECT id FROM {block.table} WHERE {NEW} AND id BETWEEN %s AND %s",  # noqa: S608 - our names
            (block.first, block.last),
        )
        return any(id_ not in in_hand for (id_,) in cursor.fetchall())

    def entries(
        self, cursor: Cursor, block: Block, condition: str, in_hand: Collection[int]
    ) -> list[Found]:
        """Return the block's rows that meet the condition, as entries with their runs.

        What is no reading is marked and buried.
        """
        table, more = block.table, _MORE[block.table]
        cursor.execute(
            f"SELECT {readings.selected(table, more)} FROM {table} "  # noqa: S608 - our names
            f"WHERE {condition} AND id BETWEEN %s AND %s ORDER BY id",
            (block.first, block.last),
        )
        found = [readings.record(table, text, more) for (text,) in cursor.fetchall()]
        found = [record for record in found if record["id"] not in in_hand]
        for record in [one for one in found if one["time"] is None]:
            found.remove(record)
            why = ContractError("not-contract", "the row has no time")
            self._bury(cursor, Ref.of(table, record), record, why)
        if found and condition == NEW:
            self._metrics.oldest.set(min(record["time"] for record in found).timestamp())
        if table == DEMAND:
            found = self._identified(cursor, found)
        return list(self._entries(cursor, table, found))

    def _entries(self, cursor: Cursor, table: str, found: Iterable[Record]) -> Iterator[Found]:
        for record in found:
            ref = Ref.of(table, record)
            try:
                reading = readings.reading(table, record)
            except ContractError as error:
                self._bury(cursor, ref, record, error)
                continue
            e, meter = reading.envelope, reading.notification.meter
            known = self.announced.get(e.hash, "not yet")
            if known == "not yet" or (known is None and meter):
                yield Found(self._run(cursor, reading, record.get("old_hash", e.hash)))
            topic = self._topics.of(READING, node=e.node, kind=reading.kind)
            yield Found(self._entry(topic, encode(reading)), ref, (e.hash, e.seq))

    def _entry(self, topic: str, payload: bytes) -> Entry:
        self._last_key += 1
        return Entry(self._last_key, topic, payload)

    def renewed(self, entry: Entry) -> Entry:
        """Return an entry with a key of its own, to be sent another time."""
        return self._entry(entry.topic, entry.payload)

    def _run(self, cursor: Cursor, reading: Reading, hash_: str) -> Entry:
        """Return what the database knows of a reading's run."""
        e = reading.envelope
        cursor.execute(
            "SELECT MIN(time), MAX(meter_id) FROM run_info WHERE hash = %s AND name = %s",
            (hash_, e.run),
        )
        ((started, meter),) = cursor.fetchall()
        run = Run(
            node=e.node,
            run=e.run,
            hash=e.hash,
            started=started.replace(tzinfo=UTC) if started else e.received,
            meter=readings.old_meter(meter) or reading.notification.meter,
        )
        self.announced[e.hash] = run.meter
        return self._entry(self._topics.of(RUN, node=e.node), encode(run))

    def _identified(self, cursor: Cursor, found: Iterable[Record]) -> list[Record]:
        """Return demands that have an identity of their own or were given one."""
        whole: list[Record] = []
        made_up: list[Ref] = []
        foreign: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for record in found:
            if record["placeholder"]:
                made_up.append(Ref.of(DEMAND, record))
            elif record["seq"] is None:
                foreign[record["run"], record["hash"]].append(record)
            else:
                whole.append(record)
        if made_up:
            mark(cursor, DEMAND, LEFT_OUT, made_up)
            self._metrics.left_out.labels(reason="made-up").inc(len(made_up))
            self._sparse.warning("rows that a script made up are left out", "made-up")
        for (run, hash_), records in foreign.items():
            self._adopt(cursor, run, hash_, records)
            whole += records
        return whole

    def _adopt(self, cursor: Cursor, run: str, hash_: str, records: Sequence[Record]) -> None:
        """Give the rows of a run of another program an identity, once and for good."""
        made = readings.made_hash(self._source, run, hash_)
        cursor.execute(
            "SELECT MAX(meter_id) FROM run_info WHERE hash = %s AND name = %s", (hash_, run)
        )
        ((meter,),) = cursor.fetchall()
        unnumbered = [record for record in records if record["relay_seq"] is None]
        if unnumbered:
            first = _reserve(cursor, made, len(unnumbered)) + 1
            _number(cursor, [Ref.of(DEMAND, record) for record in unnumbered], first)
            for seq, record in enumerate(unnumbered, first):
                record["relay_seq"] = seq
        for record in records:
            record["old_hash"] = hash_
            seq = record["relay_seq"]
            readings.adopt(record, node=self._node, hash_=made, seq=seq, meter=meter)

    def _bury(self, cursor: Cursor, ref: Ref, record: Record, error: ContractError) -> None:
        payload = msgspec.json.encode(record)
        letter = DeadLetter(
            id=hashlib.sha256(f"{self._source}/{ref.table}/{ref.id}".encode()).hexdigest()[:32],
            service=SERVICE,
            at=now(),
            reason=error.reason,
            detail=f"{ref.table}, id {ref.id}: {error.detail}"[:1024],
            payload=payload,
            size=len(payload),
        )
        cursor.executemany(rows.INSERT_LETTER, [rows.letter_row(letter, self._payload_max)])
        mark(cursor, ref.table, LEFT_OUT, [ref])
        self._metrics.left_out.labels(reason=error.reason).inc()
        self._sparse.warning("row left out", error.reason, detail=letter.detail)


def mark(cursor: Cursor, table: str, state: int | None, refs: Sequence[Ref]) -> None:
    """Mark rows with what became of them; None is what was never sent."""
    update = f"UPDATE {table} {BY_ID} SET relayed = %s WHERE"  # noqa: S608 - our names
    if timed := [ref for ref in refs if ref.time]:
        cursor.execute(f"{update} {_THESE}", (state, *_these(timed)))
    if timeless := [ref.id for ref in refs if not ref.time]:
        cursor.execute(f"{update} {_TIMELESS}", (state, timeless))


def _reserve(cursor: Cursor, hash_: str, count: int) -> int:
    """Take so many numbers of a run and return the last one before them."""
    cursor.execute(
        "INSERT INTO relay_run (hash, last_seq) VALUES (%s, %s) "
        "ON DUPLICATE KEY UPDATE last_seq = last_seq + VALUES(last_seq)",
        (hash_, count),
    )
    cursor.execute("SELECT last_seq FROM relay_run WHERE hash = %s", (hash_,))
    ((last,),) = cursor.fetchall()
    return int(last) - count


def _number(cursor: Cursor, refs: Sequence[Ref], first: int) -> None:
    """Give rows, which are in the order of their ids, the numbers from ``first`` on."""
    order = ", ".join(str(ref.id) for ref in refs)
    cursor.execute(
        f"UPDATE {DEMAND} {BY_ID} SET relay_seq = %s + FIELD(id, {order}) WHERE {_THESE}",  # noqa: S608 - our ids
        (first - 1, *_these(refs)),
    )


def _these(refs: Sequence[Ref]) -> tuple[list[int], datetime, datetime]:
    """Return the arguments of ``_THESE``; the times spare the server the other months."""
    times = [ref.time.replace(tzinfo=None) for ref in refs if ref.time]
    return [ref.id for ref in refs], min(times), max(times)
