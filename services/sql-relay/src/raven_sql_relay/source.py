"""The rows as they are read, identified and made into entries, and what is marked on them."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge

from raven_sql_relay.claims import Block
from ravenbus.errors import ContractError
from ravenbus.logs import Sparse
from ravenbus.messages import DeadLetter, Reading, Run, decode_reading, encode, now
from ravenbus.metrics import PublisherMetrics
from ravenbus.publisher import Entry
from ravenbus.topics import Topics
from ravensql import readings, rows
from ravensql.database import Cursor

log = logging.getLogger(__name__)

SERVICE: Final = "sql-relay"

NEW: Final = "relayed IS NULL"
KEPT: Final = "relayed = 0"
NOBODY, TAKEN, LEFT_OUT = 0, 1, 2
"""What is marked on a row, as the migration says."""

DEMAND: Final = "instantaneous_demand"
"""The table in which python-raven's scripts insert rows without an identity."""

BY_ID: Final = "FORCE INDEX (PRIMARY)"
"""A scan of the table would wait for what others have not committed."""

_SELECTED: Final = {
    table: (*columns, *(("relay_seq", "placeholder") if table == DEMAND else ()))
    for table, columns in readings.COLUMNS.items()
}
_SEQ: Final = readings.COLUMNS[DEMAND].index("seq")
_RUN: Final = itemgetter(
    readings.COLUMNS[DEMAND].index("run"), readings.COLUMNS[DEMAND].index("hash")
)
_TIME: Final = readings.COLUMNS[DEMAND].index("time")


class RelayMetrics(PublisherMetrics):
    """What becomes of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.left_out = Counter(
            "raven_left_out", "Rows that are no readings", ["reason"], registry=self.registry
        )
        self.oldest = Gauge(
            "raven_unsent_oldest_timestamp_seconds",
            "Time of the oldest row that was never sent, 0 if there is none",
            registry=self.registry,
        )


class Ref(NamedTuple):
    """Where a row is; the time spares the server the other months."""

    table: str
    id: int
    time: datetime

    @property
    def block(self) -> Block:
        """The block that it is in."""
        return Block.of(self.table, self.id)


class Found(NamedTuple):
    """An entry and the row that it was made from, none for a run."""

    ref: Ref | None
    entry: Entry


class _Foreign(NamedTuple):
    """A row without an identity of its own, and its number if it was given one before."""

    row: rows.Row
    seq: int | None


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

    def connected(self, cursor: Cursor, payload_max: int) -> None:
        """Enter the relay in the database, and learn what it is called there."""
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

    def entries(
        self, cursor: Cursor, block: Block, condition: str, in_hand: Collection[int]
    ) -> list[Found]:
        """Return the block's rows that meet the condition, as entries with their runs.

        What is no reading is marked and buried.
        """
        columns = ", ".join(_SELECTED[block.table])
        cursor.execute(
            f"SELECT {columns} FROM {block.table} "  # noqa: S608 - our names
            f"WHERE {condition} AND id BETWEEN %s AND %s ORDER BY id",
            (block.first, block.last),
        )
        found = [row for row in cursor.fetchall() if row[0] not in in_hand]
        if found and condition == NEW:
            self._metrics.oldest.set(
                min(row[_TIME] for row in found).replace(tzinfo=UTC).timestamp()
            )
        return self._entries_of(cursor, block.table, found)

    def _entries_of(self, cursor: Cursor, table: str, found: list[rows.Row]) -> list[Found]:
        whole = self._identified(cursor, found) if table == DEMAND else [(row, "") for row in found]
        entries: list[Found] = []
        for row, old_hash in whole:
            ref = Ref(table, row[0], row[_TIME])
            try:
                reading = readings.reading(table, row)
                payload = encode(reading)
                decode_reading(payload)  # another program may have written anything
            except ContractError as error:
                self._bury(cursor, ref, row, error)
                continue
            e, meter = reading.envelope, reading.notification.meter
            known = self.announced.get(e.hash, "not yet")
            if known == "not yet" or (known is None and meter):
                entries.append(Found(None, self._run(cursor, reading, old_hash or e.hash)))
            topic = self._topics.reading(e.node, reading.kind)
            entries.append(Found(ref, self._entry(topic, payload)))
        return entries

    def _entry(self, topic: str, payload: bytes) -> Entry:
        self._last_key += 1
        return Entry(self._last_key, topic, payload)

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
        return self._entry(self._topics.of_node(e.node, "run"), encode(run))

    def _identified(self, cursor: Cursor, found: Iterable[rows.Row]) -> list[tuple[rows.Row, str]]:
        """Return demands that have an identity, some with the hash that they had before."""
        whole: list[tuple[rows.Row, str]] = []
        made_up: list[Ref] = []
        foreign: dict[tuple[str, str], list[_Foreign]] = defaultdict(list)
        for *columns, relay_seq, placeholder in found:
            row = tuple(columns)
            if placeholder:
                made_up.append(Ref(DEMAND, row[0], row[_TIME]))
            elif row[_SEQ] is None:
                foreign[_RUN(row)].append(_Foreign(row, relay_seq))
            else:
                whole.append((row, ""))
        if made_up:
            mark(cursor, DEMAND, LEFT_OUT, made_up)
            self._metrics.left_out.labels(reason="made-up").inc(len(made_up))
            self._sparse.warning("rows that a script made up are left out", "made-up")
        for (run, hash_), members in foreign.items():
            whole += [(row, hash_) for row in self._adopted(cursor, run, hash_, members)]
        return sorted(whole)

    def _adopted(
        self, cursor: Cursor, run: str, hash_: str, members: list[_Foreign]
    ) -> Iterator[rows.Row]:
        """Give the rows of a run of another program an identity, once and for good."""
        made = readings.made_hash(self._source, run, hash_)
        cursor.execute(
            "SELECT MAX(meter_id) FROM run_info WHERE hash = %s AND name = %s", (hash_, run)
        )
        ((meter,),) = cursor.fetchall()
        unnumbered = [row for row, seq in members if seq is None]
        numbers = {row[0]: seq for row, seq in members if seq is not None}
        if unnumbered:
            first = _reserve(cursor, made, len(unnumbered)) + 1
            _number(cursor, unnumbered, first)
            numbers |= {row[0]: seq for seq, row in enumerate(unnumbered, first)}
        for row, _ in members:
            yield readings.adopted(
                row, node=self._node, hash_=made, seq=numbers[row[0]], meter=meter
            )

    def _bury(self, cursor: Cursor, ref: Ref, row: rows.Row, error: ContractError) -> None:
        payload = json.dumps(
            dict(zip(readings.COLUMNS[ref.table], row, strict=True)), default=str
        ).encode()
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


def mark(cursor: Cursor, table: str, state: int, refs: Sequence[Ref]) -> None:
    """Mark rows with what became of them."""
    times = [ref.time for ref in refs]
    cursor.execute(
        f"UPDATE {table} {BY_ID} SET relayed = %s WHERE id IN %s AND time BETWEEN %s AND %s",  # noqa: S608 - our names
        (state, [ref.id for ref in refs], min(times), max(times)),
    )


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


def _number(cursor: Cursor, found: Sequence[rows.Row], first: int) -> None:
    """Give rows, which are in the order of their ids, the numbers from ``first`` on."""
    ids, times = [row[0] for row in found], [row[_TIME] for row in found]
    order = ", ".join(map(str, ids))
    cursor.execute(
        f"UPDATE {DEMAND} {BY_ID} SET relay_seq = %s + FIELD(id, {order}) "  # noqa: S608 - our ids
        "WHERE id IN %s AND time BETWEEN %s AND %s",
        (first - 1, ids, min(times), max(times)),
    )
