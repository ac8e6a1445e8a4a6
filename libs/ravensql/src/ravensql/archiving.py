"""Months that go from the tables to files, and come back.

At every instant a row is in its table, or in a file that was read back and compared and whose
record is committed.  What is interrupted is begun again with what is still in the tables.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from ravenbus import archives
from ravenbus.errors import FatalError, RetryableError
from ravenbus.messages import now
from ravenbus.months import Month
from ravensql import digests, energy, partitions, ranges, rows, schema
from ravensql.database import Cursor, sorted_errors
from ravensql.settings import MysqlUrl

AT_ONCE: Final = 1000
"""Rows in memory."""
LOCK_WAIT_S: Final = 1
"""Whoever wants to write waits behind a lock that waits, so it gives up soon."""
LOCK_TRIES: Final = 5
LOCK_PAUSE_S: Final = 5.0

PUT: Final = (
    "REPLACE INTO archive (month, of_table, file, readings, sha256, oldest, newest) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s)"
)
RECORDS: Final = "SELECT month, of_table, file, readings, sha256, oldest, newest FROM archive "

LastIds = dict[str, int | None]
"""The highest id in each table, None for a table without a row."""


class Record(NamedTuple):
    """A file with a month of a table, as table ``archive`` has it."""

    month: str
    table: str
    file: str
    readings: int
    sha256: str
    oldest: str | datetime
    newest: str | datetime


@dataclass(frozen=True)
class Archive:
    """The files of a database's months in a folder.

    Raises RetryableError for all that may go better another time, a full disk and a ``stop``
    included, and FatalError for what will not.
    """

    url: MysqlUrl
    folder: Path
    stop: threading.Event
    utc: Callable[[], datetime] = now

    @contextmanager
    def session(self) -> Iterator[Cursor]:
        """Lend a cursor while nobody else changes the tables and their partitions."""
        try:
            with schema.maintenance(self.url) as cursor:
                schema.require_current(cursor)
                schema.lock(cursor, self.url.database)
                cursor.execute(
                    "SET SESSION lock_wait_timeout = %s, innodb_lock_wait_timeout = %s",
                    (LOCK_WAIT_S, LOCK_WAIT_S),
                )
                partitions.keep_ahead(cursor, self.utc(), self.go_on)
                yield cursor
        except OSError as error:
            raise RetryableError(f"the archive's folder cannot be used: {error}") from error

    def go_on(self) -> None:
        """Raise RetryableError after a stop."""
        if self.stop.is_set():
            raise RetryableError("it was asked to stop")

    def last_ids(self, cursor: Cursor, month: Month) -> LastIds:
        """Return the highest id of a month in each table that has it; what comes later is higher.

        Without the lock a transaction under way could still commit a lower one.
        """
        _require_none_restoring(cursor)
        found = {}
        for table in rows.COLUMNS:
            if month in partitions.months(cursor, table):
                with self._locked(cursor, table):
                    found[table] = _highest_id(cursor, table, month)
        return found

    def move(
        self, cursor: Cursor, month: Month, last_ids: LastIds, require_free: Callable[[], None]
    ) -> int:
        """Move the rows up to the highest ids to files; return how many there are now.

        ``require_free`` is called before a table's rows are dropped, and raises what keeps them.
        """
        filled = {table: last for table, last in last_ids.items() if last is not None}
        records = [self._written(cursor, month, *one) for one in filled.items()]
        if records:
            cursor.executemany(PUT, records)
            for one in filled.items():
                digests.record(cursor, month, *one, self.go_on)
            ranges.record(cursor, month, filled)
            cursor.execute("COMMIT")
        for table, last_id in last_ids.items():
            with self._locked(cursor, table):
                if _highest_id(cursor, table, month) != last_id:
                    raise RetryableError(f"rows came to {table} meanwhile")
                require_free()
                cursor.execute(f"ALTER TABLE {table} DROP PARTITION {partitions.name(month)}")
        return sum(record.readings for record in records)

    def restore(self, month: Month) -> int:
        """Put the rows of a month back as they were and return how many; the files stay."""
        with self.session() as cursor:
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
                partitions.make_again(cursor, record.table, month, self.go_on)
                self._put_back(cursor, record)
            energy.count_restored(cursor, *month.span, self.go_on)
            cursor.execute("DELETE FROM archive WHERE month = %s", (str(month),))
            digests.forget(cursor, month)
            ranges.forget(cursor, month)
        return sum(record.readings for record in records)

    def verify(self, months: Sequence[Month]) -> Iterator[tuple[str, str | None]]:
        """Yield each file of the months, or of all, and what is wrong with it."""
        with schema.maintenance(self.url) as cursor:
            schema.require_current(cursor)
            records = _records(cursor, months)
        for month in {str(month) for month in months} - {record.month for record in records}:
            yield month, "it is not archived"
        for record in records:
            self.go_on()
            yield record.file, self._fault(record)

    @contextmanager
    def _locked(self, cursor: Cursor, table: str) -> Iterator[None]:
        """Keep everybody else from a table, after what they began with it is committed."""
        for tries_left in reversed(range(LOCK_TRIES)):
            try:
                with sorted_errors(self.url):
                    cursor.execute(f"LOCK TABLES {table} WRITE, relay READ")
                break
            except RetryableError:
                if not tries_left or self.stop.wait(LOCK_PAUSE_S):
                    raise
        yield
        cursor.execute("UNLOCK TABLES")

    def _written(self, cursor: Cursor, month: Month, table: str, last_id: int) -> Record:
        """Write a month of a table to a file and make sure that the disk has what the table has."""
        path = self.folder / f"{table}-{month}.csv.gz"
        part = path.with_name(f"{path.name}.part")
        columns = _columns(cursor, table)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            archives.write(part, self._rows(cursor, month, table, columns, last_id))
            count = archives.compare(part, self._rows(cursor, month, table, columns, last_id))
            cursor.execute(
                "SELECT COUNT(*), MIN(time), MAX(time) "  # noqa: S608 - our names
                f"FROM {table} PARTITION ({partitions.name(month)}) WHERE id <= %s",
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
        self, cursor: Cursor, month: Month, table: str, columns: Mapping[str, str], last_id: int
    ) -> Iterator[archives.Row]:
        """Yield the columns' names and then the rows up to an id, a page in memory at a time."""
        yield tuple(columns)
        query = (
            f"SELECT id, {', '.join(columns.values())} "  # noqa: S608 - our names
            f"FROM {table} PARTITION ({partitions.name(month)}) WHERE id > %s AND id <= %s "
            f"ORDER BY {table}.id LIMIT %s"
        )
        found: Sequence[rows.Row] = [(-1,)]
        while found:
            self.go_on()
            cursor.execute(query, (found[-1][0], last_id, AT_ONCE))
            found = cursor.fetchall()
            for _, *row in found:
                yield tuple(row)

    def _fault(self, record: Record) -> str | None:
        if record.table not in rows.COLUMNS:
            return f"{record.table!r} is no table of readings"
        if Path(record.file).name != record.file:
            return "it is not in the archive's folder"
        return archives.fault(self.folder / record.file, record.sha256, record.readings)

    def _put_back(self, cursor: Cursor, record: Record) -> None:
        """Insert the rows of a file that are not in their table."""
        lines = archives.read(self.folder / record.file)
        names = next(lines)
        if unknown := set(names) - _columns(cursor, record.table).keys():
            raise FatalError(f"{record.file} has columns that {record.table} has not: {unknown}")
        query = rows.insert(record.table, [f"`{name}`" for name in names], "id")
        while page := list(islice(lines, AT_ONCE)):
            self.go_on()
            cursor.executemany(query, page)
            cursor.execute("COMMIT")


def _columns(cursor: Cursor, table: str) -> dict[str, str]:
    """Return the columns that are no derived ones, and what reads each as exact text."""
    cursor.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name = %s "
        "AND COALESCE(generation_expression, '') = '' ORDER BY ordinal_position",
        (table,),
    )
    return {
        name: f"`{name}`" if kind.endswith(("char", "text")) else f"CAST(`{name}` AS CHAR)"
        for name, kind in cursor.fetchall()
    }


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


def _highest_id(cursor: Cursor, table: str, month: Month) -> int | None:
    cursor.execute(f"SELECT MAX(id) FROM {table} PARTITION ({partitions.name(month)})")  # noqa: S608 - our names
    highest: int | None = cursor.fetchall()[0][0]
    return highest
