"""Read access to the messages stored in MySQL or MariaDB.

A unique key of a table is ``(hash, seq, time)``, because a table's partitions go by time.  So the
server does not exclude a number that is there twice with other times, or in two tables; the
writer does, and here it is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from ravenbus.archived import Archived, File, Stream, Wanted
from ravenbus.errors import ContractError
from ravenbus.messages import DeadLetter, Reading, Run
from ravenbus.notifications import KINDS
from ravenbus.ranges import Range, common, merged
from ravenbus.readback import ANSWER_TIMEOUT_S, Choice, Holding, Known, chunks, place_of, time_of
from ravensql import readings, rows, schema
from ravensql.archiving import RECORDS, Record
from ravensql.database import Database
from ravensql.settings import MysqlUrl

WINDOW: Final = 200_000
"""Numbers that the server sorts at once."""
PAGE: Final = 2000
"""Rows of a span that are read at once."""
LETTERS_AT_ONCE: Final = 200
SMALL: Final = 65_536
"""Bytes; of larger payloads there is one in memory at a time."""

_SECOND: Final = timedelta(seconds=1)
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)

_NUMBERS: Final = " UNION ALL ".join(
    f"SELECT seq FROM {table} WHERE hash = %s AND seq BETWEEN %s AND %s"  # noqa: S608 - our names
    for table in rows.COLUMNS
)
_THESE: Final = " UNION ALL ".join(
    f"SELECT seq FROM {table} WHERE hash = %s AND seq IN %s"  # noqa: S608 - our names
    for table in rows.COLUMNS
)
_HELD: Final = (
    # Numbers that follow each other are as far from their rank as the first of them.
    "SELECT MIN(seq), MAX(seq), COUNT(*) FROM (SELECT seq, "  # noqa: S608 - our names
    f"seq - DENSE_RANK() OVER (ORDER BY seq) AS distance FROM ({_NUMBERS}) AS every) AS measured "
    "GROUP BY distance"
)
_DUPLICATE: Final = f"SELECT seq FROM ({_NUMBERS}) AS every GROUP BY seq HAVING COUNT(*) > 1"  # noqa: S608 - our names
_NEXT: Final = " UNION ALL ".join(
    f"SELECT MIN(seq) FROM {table} WHERE hash = %s AND seq >= %s"  # noqa: S608 - our names
    for table in rows.COLUMNS
)
_HASHES: Final = " UNION ".join(
    f"SELECT hash, MAX(run), MAX(node) FROM {table} WHERE seq IS NOT NULL GROUP BY hash"  # noqa: S608 - our names
    for table in rows.COLUMNS
)
_LETTERS: Final = f"SELECT {', '.join(rows.LETTER_COLUMNS)} FROM dead_letter "  # noqa: S608 - our names


class _Condition(NamedTuple):
    """A condition, and the values of its places."""

    text: str
    arguments: tuple[Any, ...] = ()


_ALL: Final = _Condition("TRUE")


class MysqlStore:
    """The tables that ``ravensql`` describes, and a folder with the months that left them."""

    name = "MySQL"
    service = "sql-writer"

    def __init__(
        self,
        url: MysqlUrl,
        archive: Path | None = None,
        answer_timeout_s: int = ANSWER_TIMEOUT_S,
    ) -> None:
        self._archive = archive
        self._database = Database(
            url, answer_timeout_s=answer_timeout_s, on_connect=schema.require_current
        )
        self._relayed: frozenset[str] = frozenset()

    def runs(self) -> dict[str, Known]:
        """Return the runs of which there are readings, or were."""
        self._relayed = frozenset(hash_ for (hash_,) in self._rows("SELECT hash FROM relay_run"))
        known = self._rows("SELECT hash, name, node FROM run_info WHERE node IS NOT NULL")
        unknown = self._rows(_HASHES)
        return {hash_: Known(name, node) for hash_, name, node in (*unknown, *known)}

    def passes_over(self, hash_: str) -> bool:
        """Say whether the relay made the run, for rows of another program that have no number."""
        return hash_ in self._relayed

    def holding(self, hash_: str) -> Holding:
        """Return which numbers are in the tables, and which in the archive."""
        held, doubled = self._held(hash_)
        return Holding(held, self._archived(hash_), doubled)

    def having(self, hash_: str, wanted: Sequence[Range]) -> list[Range]:
        """Return those of the numbers that are in the tables or in the archive."""
        found = [
            (seq, seq)
            for chunk in chunks(wanted)
            for (seq,) in self._rows(_THESE, (hash_, chunk) * len(rows.COLUMNS))
        ]
        return common(wanted, merged([*found, *self._archived(hash_)]))

    def readings(self, hash_: str, seqs: Sequence[int]) -> Iterator[tuple[int, Reading | None]]:
        """Yield what the tables have; what is archived is in files."""
        for table in rows.COLUMNS:
            what = readings.selected(table)
            query = f"SELECT {what} FROM {table} WHERE hash = %s AND seq IN %s"  # noqa: S608 - our names
            for (text,) in self._rows(query, (hash_, seqs)):
                found = readings.record(table, text)
                try:
                    yield found["seq"], readings.reading(table, found)
                except ContractError:
                    yield found["seq"], None

    def between(
        self, kind: str, meter: str | None, start: datetime, end: datetime
    ) -> Iterator[Reading]:
        """Yield what the tables have."""
        its = _Condition("meter <=> %s", (meter,))
        if kind in rows.COLUMNS:
            return self._pages(kind, its, _ALL, start, end)
        return self._pages("notification", _Condition("kind = %s", (kind,)), its, start, end)

    def span(
        self, kinds: Collection[str], nodes: Collection[str] | None, start: datetime, end: datetime
    ) -> Iterator[Reading]:
        """Yield what the tables and the archive's files have.

        Raises RetryableError at the end if a month was archived or restored meanwhile.
        """
        wanted = Wanted(kinds, nodes, start, end)
        archive = Archived(self._archive, "RAVEN_SQL_ARCHIVE", self._files, _archived)
        return archive.span(wanted, self._streams(wanted))

    def as_stored(self, reading: Reading) -> Reading:
        """Return a reading as its row says it; raise PoisonError if no row can hold it."""
        return readings.as_stored(reading)

    def run(self, hash_: str) -> Run | None:
        """Return what table ``run_info`` says; it keeps the start to the second."""
        return next(self._announced("hash = %s", hash_), None)

    def _announced(self, condition: str, *arguments: str) -> Iterator[Run]:
        """Yield the rows of ``run_info`` that are of a node and meet a condition."""
        for node, name, hash_, time, meter in self._rows(
            "SELECT node, name, hash, time, meter_id FROM run_info "  # noqa: S608 - our conditions
            f"WHERE node IS NOT NULL AND {condition} ORDER BY id",
            arguments,
        ):
            started, its_meter = time.replace(tzinfo=UTC), readings.old_meter(meter)
            yield Run(node=node, run=name, hash=hash_, started=started, meter=its_meter)

    def letters(self, choice: Choice) -> Iterator[DeadLetter]:
        """Yield dead letters, a page in memory at a time."""
        conditions, arguments = ["TRUE"], list[Any]()
        for name, value in (("reason = %s", choice.reason), ("service = %s", choice.service)):
            if value is not None:
                conditions.append(name)
                arguments.append(value)
        if choice.since:
            conditions.append("at >= %s")
            arguments.append(choice.since.astimezone(UTC).replace(tzinfo=None))
        where = " AND ".join(conditions)
        order = f"SELECT id, at, size FROM dead_letter WHERE {where} AND (at, id) > (%s, %s) ORDER BY at, id LIMIT %s"  # noqa: S608 - our names
        after = ("1970-01-01 00:00:01", "")
        while page := self._rows(order, (*arguments, *after, LETTERS_AT_ONCE)):
            small = [letter_id for letter_id, _, size in page if size <= SMALL]
            found = {one.id: one for one in self._letters("id IN %s", small)} if small else {}
            for letter_id, *_ in page:
                yield from (
                    [found[letter_id]]
                    if letter_id in found
                    else self._letters("id = %s", letter_id)
                )
            after = (page[-1][1], page[-1][0])

    def letters_called(self, prefix: str) -> list[DeadLetter]:
        """Return the dead letters whose id begins so."""
        return list(self._letters("id LIKE %s ORDER BY at", f"{prefix}%"))

    def remove(self, letter_id: str) -> None:
        """Remove a dead letter."""
        with self._database.transaction() as cursor:
            cursor.execute("DELETE FROM dead_letter WHERE id = %s", (letter_id,))

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def _held(self, hash_: str) -> tuple[list[Range], list[Range]]:
        """Walk the numbers that are there, however far apart they are."""
        held: list[Range] = []
        doubled: list[Range] = []
        start = 1
        while (first := self._next(hash_, start)) is not None:
            start = first + WINDOW
            arguments = (hash_, first, start - 1) * len(rows.COLUMNS)
            for first_of, last_of, count in self._rows(_HELD, arguments):
                held.append((first_of, last_of))
                if count > last_of - first_of + 1:
                    where = (hash_, first_of, last_of) * len(rows.COLUMNS)
                    doubled += [(seq, seq) for (seq,) in self._rows(_DUPLICATE, where)]
            held = merged(held)
        return held, merged(doubled)

    def _next(self, hash_: str, start: int) -> int | None:
        found = self._rows(_NEXT, (hash_, start) * len(rows.COLUMNS))
        return min((seq for (seq,) in found if seq is not None), default=None)

    def _pages(
        self,
        table: str,
        index: _Condition,
        others: _Condition,
        start: datetime,
        end: datetime,
    ) -> Iterator[Reading]:
        """Yield rows in order, a PAGE, or those of one second, in memory at a time.

        ``index`` and the time are in an index of the table, which alone says where a page ends: to
        sort what is left for each page would take for ever.
        """
        since = rows.seconds(start.astimezone(UTC).replace(tzinfo=None))
        last = rows.seconds(end.astimezone(UTC).replace(tzinfo=None)) + _SECOND
        where = f"FROM {table} WHERE {index.text} AND time >= %s AND time < %s"
        page_end = f"SELECT time {where} ORDER BY time LIMIT 1 OFFSET %s"
        page = f"SELECT {readings.selected(table)} {where} AND {others.text} AND seq IS NOT NULL"
        while since < last:
            far = self._rows(page_end, (*index.arguments, since, last, PAGE))
            until = max(far[0][0], since + _SECOND) if far else last
            found = self._rows(page, (*index.arguments, since, until, *others.arguments))
            known = [one for (text,) in found if (one := _reading(table, text))]
            yield from sorted((r for r in known if start <= time_of(r) < end), key=place_of)
            since = until

    def _streams(self, wanted: Wanted) -> Iterator[Stream]:
        """Yield what is wanted of each table."""
        kinds, nodes, start, end = wanted
        of_nodes = _Condition("node IN %s", (nodes,)) if nodes else _ALL
        for table in rows.COLUMNS:
            if table in kinds:
                yield start, self._pages(table, _ALL, of_nodes, start, end)
        if others := [kind for kind in kinds if kind not in rows.COLUMNS]:
            of_kind = _Condition(f"kind IN %s AND {of_nodes.text}", (others, *of_nodes.arguments))
            yield start, self._pages("notification", _ALL, of_kind, start, end)

    def _files(self) -> list[File]:
        """Return the files on record that can have readings."""
        found = []
        for row in self._rows(f"{RECORDS} ORDER BY oldest, of_table"):
            month, table, name, _, sha256, oldest, newest = Record(*row)
            kinds = {table} if table in KINDS else KINDS.keys() - rows.COLUMNS.keys()
            if table in rows.COLUMNS:
                # A time of zero is a text.
                times = (
                    time.replace(tzinfo=UTC) if isinstance(time, datetime) else _EARLIEST
                    for time in (oldest, newest)
                )
                found.append(File(month, table, frozenset(kinds), name, sha256, *times))
        return found

    def _archived(self, hash_: str) -> list[Range]:
        query = "SELECT first_seq, last_seq FROM archived_run WHERE hash = %s"
        return merged((first, last) for first, last in self._rows(query, (hash_,)))

    def _letters(self, condition: str, value: Any) -> Iterator[DeadLetter]:
        for row in self._rows(f"{_LETTERS} WHERE {condition}", (value,)):
            columns = dict(zip(rows.LETTER_COLUMNS, row, strict=True))
            columns["at"] = columns["at"].replace(tzinfo=UTC)
            yield DeadLetter(**columns)

    def _rows(self, query: str, arguments: Sequence[Any] = ()) -> Sequence[rows.Row]:
        with self._database.transaction() as cursor:
            cursor.execute(query, arguments)
            return cursor.fetchall()


def _reading(table: str, text: str) -> Reading | None:
    try:
        return readings.reading(table, readings.record(table, text))
    except ContractError:
        return None


def _archived(table: str, columns: Mapping[str, str | None]) -> Reading | None:
    if columns["seq"] is None:
        return None
    return readings.reading(table, readings.written(table, columns))
