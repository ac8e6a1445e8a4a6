"""Months that leave the tables for files, and come back.

At every instant a row is in its table, or in a file that was read back and compared and whose
record is committed.  What is interrupted is begun again with what is still in the tables.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from tenacity import (
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_fixed,
)

from ravenbus.errors import FatalError, RetryableError
from ravenbus.messages import now
from ravensql import archives, digests, energy, partitions, ranges, rollups, rows, schema
from ravensql.database import Cursor, sorted_errors
from ravensql.partitions import Month
from ravensql.settings import MysqlUrl

AT_ONCE: Final = 1000
"""Rows in memory."""
LOCK_WAIT_S: Final = 1
"""Whoever wants to write waits behind a lock that waits, so it gives up soon."""
LOCK_TRIES: Final = 5
LOCK_PAUSE_S: Final = 5.0

UNSENT: Final = "relayed IS NULL OR relayed IN (0, 3)"
PUT: Final = (
    "REPLACE INTO archive (month, of_table, file, readings, sha256, oldest, newest) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s)"
)
RECORDS: Final = "SELECT month, of_table, file, readings, sha256, oldest, newest FROM archive "


class Record(NamedTuple):
    """A file with a month of a table, as table ``archive`` has it."""

    month: str
    table: str
    file: str
    readings: int
    sha256: str
    oldest: str | datetime
    newest: str | datetime


class Column(NamedTuple):
    """A column that is no derived one, and the expression that reads it as exact text."""

    name: str
    text: str


class Retention:
    """The archive of a database in a folder; ``keep`` months before this one stay, None for all.

    Raises RetryableError for all that may go better another time, a full disk and a ``stop``
    included, and FatalError for what will not.
    """

    def __init__(
        self,
        url: MysqlUrl,
        folder: Path,
        keep: int | None,
        stop: threading.Event,
        utc: Callable[[], datetime] = now,
    ) -> None:
        self._url = url
        self._folder = folder
        self._keep = keep
        self._stop = stop
        self._utc = utc

    def due(self) -> list[Month]:
        """Return the months in the tables that are older than those to keep."""
        if self._keep is None:
            return []
        with self._session() as cursor:
            found = {month for table in rows.COLUMNS for month in partitions.months(cursor, table)}
        return partitions.due(found, self._utc(), self._keep)

    def archive(self, month: Month) -> int:
        """Move a month from the tables to files; return the rows that are in files now.

        The first month of a table has what is older, too.
        """
        if month >= Month.of(self._utc()):
            raise FatalError(f"{month} is not over: only months before this one can be archived")
        with self._session() as cursor:
            _require_none_restoring(cursor)
            last_ids = {
                table: self._last_id(cursor, table, month)
                for table in rows.COLUMNS
                if month in partitions.months(cursor, table)
            }
            relay = _relay(cursor)
            filled = {table: last for table, last in last_ids.items() if last is not None}
            self._require_settled(cursor, month, filled, relay)
            records = [self._written(cursor, month, *one) for one in filled.items()]
            if records:
                cursor.executemany(PUT, records)
                for one in filled.items():
                    digests.record(cursor, month, *one, self._go_on)
                ranges.record(cursor, month, filled)
                cursor.execute("COMMIT")
            for table, last_id in last_ids.items():
                self._drop(cursor, month, table, last_id, relay)
        return sum(record.readings for record in records)

    def restore(self, month: Month) -> int:
        """Put the rows of a month back as they were and return how many; the files stay."""
        with self._session() as cursor:
            records = _records(cursor, [month])
            if not records:
                raise FatalError(f"{month} is not archived")
            faults = [
                f"{record.file}: {wrong}" for record in records if (wrong := self._fault(record))
            ]
            if faults:
                raise FatalError(f"{month} cannot be restored: {'; '.join(faults)}")
            cursor.execute("UPDATE archive SET restoring = TRUE WHERE month = %s", (str(month),))
            cursor.execute("COMMIT")
            for record in records:
                partitions.make_again(cursor, record.table, month, self._go_on)
                self._put_back(cursor, record)
            energy.count_restored(cursor, *month.span, self._go_on)
            cursor.execute("DELETE FROM archive WHERE month = %s", (str(month),))
            digests.forget(cursor, month)
            ranges.forget(cursor, month)
        return sum(record.readings for record in records)

    def verify(self, months: Sequence[Month]) -> Iterator[tuple[str, str | None]]:
        """Yield each file of the months, or of all, and what is wrong with it."""
        with schema.maintenance(self._url) as cursor:
            schema.require_current(cursor)
            records = _records(cursor, months)
        for month in {str(month) for month in months} - {record.month for record in records}:
            yield month, "it is not archived"
        for record in records:
            self._go_on()
            yield record.file, self._fault(record)

    @contextmanager
    def _session(self) -> Iterator[Cursor]:
        """Lend a cursor while nobody else changes the tables and their partitions."""
        try:
            with schema.maintenance(self._url) as cursor:
                schema.require_current(cursor)
                schema.lock(cursor, self._url.database)
                cursor.execute(
                    "SET SESSION lock_wait_timeout = %s, innodb_lock_wait_timeout = %s",
                    (LOCK_WAIT_S, LOCK_WAIT_S),
                )
                partitions.keep_ahead(cursor, self._utc(), self._go_on)
                yield cursor
        except OSError as error:
            raise RetryableError(f"the archive's folder cannot be used: {error}") from error

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise RetryableError("it was asked to stop")

    @contextmanager
    def _locked(self, cursor: Cursor, table: str) -> Iterator[None]:
        """Keep everybody else from a table, after what they began with it is committed."""

        def lock() -> None:
            with sorted_errors(self._url):
                cursor.execute(f"LOCK TABLES {table} WRITE, relay READ")

        Retrying(
            retry=retry_if_exception_type(RetryableError),
            stop=stop_after_attempt(LOCK_TRIES) | stop_when_event_set(self._stop),
            wait=wait_fixed(LOCK_PAUSE_S),
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )(lock)
        yield
        cursor.execute("UNLOCK TABLES")

    def _last_id(self, cursor: Cursor, table: str, month: Month) -> int | None:
        """Return the highest id in a month; a row that comes later has a higher one.

        Without the lock a transaction under way could still commit a lower one.
        """
        with self._locked(cursor, table):
            return _highest_id(cursor, table, month)

    def _require_settled(
        self, cursor: Cursor, month: Month, last_ids: dict[str, int], relay: str | None
    ) -> None:
        """Raise RetryableError if rows are not rolled up, or not relayed where there is a relay."""
        rollups.count_foreign(cursor, self._go_on)
        if relay and (unsent := sum(_count(cursor, month, one, UNSENT) for one in last_ids)):
            raise RetryableError(
                f"{unsent} rows are not sent to {relay}; if nothing relays there any more, "
                "remove the row of the table relay"
            )
        energy.recount(cursor, self._go_on)
        if not energy.is_counted(cursor, month.span[1]):
            raise RetryableError("another writer is counting the energy of the month")
        last_id = last_ids.get("instantaneous_demand", 0)
        condition = f"rolled_up IS NULL AND id <= {last_id}"
        if last_id and _count(cursor, month, "instantaneous_demand", condition):
            raise RetryableError("another program is changing rows that are not rolled up")

    def _written(self, cursor: Cursor, month: Month, table: str, last_id: int) -> Record:
        """Write a month of a table to a file and make sure that the disk has what the table has."""
        path = self._folder / f"{table}-{month}.csv.gz"
        part = path.with_name(f"{path.name}.part")
        columns = _columns(cursor, table)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            archives.write(part, self._rows(cursor, month, table, columns, last_id))
            count = archives.compare(part, self._rows(cursor, month, table, columns, last_id))
            cursor.execute(
                "SELECT COUNT(*), MIN(time), MAX(time) "  # noqa: S608 - our names
                f"FROM {table} PARTITION ({month.partition}) WHERE id <= %s",
                (last_id,),
            )
            ((expected, oldest, newest),) = cursor.fetchall()
            if count != expected:
                raise RetryableError(f"{part.name} has {count} rows and {table} has {expected}")
            digest = archives.publish(part, path)
        except archives.UNREADABLE as error:
            raise RetryableError(f"{path} cannot be written: {error}") from error
        finally:
            part.unlink(missing_ok=True)
        return Record(str(month), table, path.name, count, digest, oldest, newest)

    def _rows(
        self, cursor: Cursor, month: Month, table: str, columns: Sequence[Column], last_id: int
    ) -> Iterator[archives.Row]:
        """Yield the columns' names and then the rows up to an id, a page in memory at a time."""
        yield tuple(column.name for column in columns)
        query = (
            f"SELECT id, {', '.join(column.text for column in columns)} "  # noqa: S608 - our names
            f"FROM {table} PARTITION ({month.partition}) WHERE id > %s AND id <= %s "
            f"ORDER BY {table}.id LIMIT %s"
        )
        found: Sequence[rows.Row] = [(-1,)]
        while found:
            self._go_on()
            cursor.execute(query, (found[-1][0], last_id, AT_ONCE))
            found = cursor.fetchall()
            for _, *row in found:
                yield tuple(row)

    def _drop(
        self, cursor: Cursor, month: Month, table: str, last_id: int | None, relay: str | None
    ) -> None:
        """Drop a partition if nothing has come to it since its file was written."""
        with self._locked(cursor, table):
            if _highest_id(cursor, table, month) != last_id:
                raise RetryableError(f"rows came to {table} meanwhile")
            if _relay(cursor) != relay:
                raise RetryableError("a relay came meanwhile")
            cursor.execute(f"ALTER TABLE {table} DROP PARTITION {month.partition}")

    def _fault(self, record: Record) -> str | None:
        if record.table not in rows.COLUMNS:
            return f"{record.table!r} is no table of readings"
        if Path(record.file).name != record.file:
            return "it is not in the archive's folder"
        return archives.fault(self._folder / record.file, record.sha256, record.readings)

    def _put_back(self, cursor: Cursor, record: Record) -> None:
        """Insert the rows of a file that are not in their table."""
        lines = archives.read(self._folder / record.file)
        names = next(lines)
        known = {column.name for column in _columns(cursor, record.table)}
        if unknown := set(names) - known:
            raise FatalError(f"{record.file} has columns that {record.table} has not: {unknown}")
        query = rows.insert(record.table, [f"`{name}`" for name in names], "id")
        while page := list(islice(lines, AT_ONCE)):
            self._go_on()
            cursor.executemany(query, page)
            cursor.execute("COMMIT")


def _columns(cursor: Cursor, table: str) -> list[Column]:
    cursor.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name = %s "
        "AND COALESCE(generation_expression, '') = '' ORDER BY ordinal_position",
        (table,),
    )
    return [
        Column(name, f"`{name}`" if kind.endswith(("char", "text")) else f"CAST(`{name}` AS CHAR)")
        for name, kind in cursor.fetchall()
    ]


def _records(cursor: Cursor, months: Sequence[Month]) -> list[Record]:
    """Return what is recorded of the months, or of all if none is named."""
    cursor.execute(RECORDS + "ORDER BY month, of_table")
    found = [Record(*row) for row in cursor.fetchall()]
    wanted = {str(month) for month in months}
    return [record for record in found if not wanted or record.month in wanted]


def _require_none_restoring(cursor: Cursor) -> None:
    """Raise RetryableError if a part of a month would be taken for the whole of it."""
    cursor.execute("SELECT MIN(month) FROM archive WHERE restoring")
    ((month,),) = cursor.fetchall()
    if month:
        raise RetryableError(f"the restore of {month} was interrupted: restore it again first")


def _relay(cursor: Cursor) -> str | None:
    """Return where rows are relayed to, None if nothing relays."""
    cursor.execute("SELECT upstream FROM relay")
    found = cursor.fetchall()
    return found[0][0] if found else None


def _highest_id(cursor: Cursor, table: str, month: Month) -> int | None:
    cursor.execute(f"SELECT MAX(id) FROM {table} PARTITION ({month.partition})")  # noqa: S608 - our names
    highest: int | None = cursor.fetchall()[0][0]
    return highest


def _count(cursor: Cursor, month: Month, table: str, condition: str) -> int:
    cursor.execute(
        f"SELECT COUNT(*) FROM {table} PARTITION ({month.partition}) WHERE {condition}"  # noqa: S608 - our names
    )
    return int(cursor.fetchall()[0][0])
