"""The whole database as files, as it was at one time, and back.

Tables and views are kept as the server says that they are made, those of others in the database
too, and rows as text that makes them again to the last bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from ravenbus import archives, copies
from ravenbus.copies import Copied, Counts, Recorded
from ravenbus.errors import FatalError
from ravensql import rows, schema
from ravensql.database import Cursor, Database, ServerError, streamed
from ravensql.settings import MysqlUrl

TABLES: Final = "tables.json"
VERSIONS: Final = "schema_version"
LOCK_TRY_S: Final = 60
"""A writer looks after its tables for longer than it waits for another one."""

_DEFINER: Final = re.compile(r" DEFINER=`(?:[^`]|``)*`@`(?:[^`]|``)*`")
_BINARY: Final = (
    *("blob", "binary", "bit", "vector"),
    *("geometry", "point", "linestring", "polygon", "collection"),
)
"""How the names of types end whose values are bytes."""
_AS_FOUND: Final = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION"
"""Takes in what other sessions, which were less strict, put into their tables."""
_DEMAND: Final = "instantaneous_demand"
_UNSETTLED: Final = "seq IS NULL AND (relayed IS NULL OR relayed IN (0, 3))"


class Made(msgspec.Struct, frozen=True):
    """The statements that make tables and views, by their names."""

    tables: dict[str, str]
    views: dict[str, str]


class Column(NamedTuple):
    """How a column is read as text."""

    expression: str
    is_binary: bool


class MysqlCopying:
    """The tables of a database, and the folder with the months that left them."""

    name = "MySQL"

    def __init__(self, url: MysqlUrl, archive: Path | None = None) -> None:
        self._url = url
        self._archive = archive

    def save(self, folder: Path) -> Copied:
        """Put everything into a folder; nobody changes tables or moves months meanwhile."""
        with schema.maintenance(self._url) as cursor:
            schema.lock(cursor, self._url.database, LOCK_TRY_S)
            tables, views = _tables(cursor), _views(cursor)
            made = Made(
                {table: _made(cursor, "TABLE", table) for table in tables},
                {view: _DEFINER.sub("", _made(cursor, "VIEW", view), 1) for view in views},
            )
            copies.put(folder / TABLES, msgspec.json.format(msgspec.json.encode(made)))
            columns = {table: _columns(cursor, table) for table in tables}
            cursor.execute("COMMIT")
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            counts = {
                table: copies.write(
                    folder, table, tuple(columns[table]), _rows(cursor, table, columns[table])
                )
                for table in tables
            }
            recorded: list[Recorded] = []
            if "archive" in tables:
                cursor.execute("SELECT file, sha256 FROM archive ORDER BY file")
                recorded = [Recorded(*row) for row in cursor.fetchall()]
            return Copied(counts, copies.save_archive(recorded, self._archive, folder))

    def obstacle(self) -> str | None:
        """Name a table that has rows, unless a load of it was interrupted."""
        with self._anything() as cursor:
            tables = _tables(cursor)
            if schema.version_of(cursor) == schema.RESTORING:
                return None
            for table in tables:
                cursor.execute(f"SELECT 1 FROM {_quoted(table)} LIMIT 1")  # noqa: S608 - quoted
                if table != VERSIONS and cursor.fetchall():
                    return f"{self._url} has rows in its table {table}"
        return None

    def load(self, folder: Path) -> Counts:
        """Replace everything; until that is done, every service refuses the database.

        A writer that was not stopped loses its connection, and is refused when it comes again.
        Raise FatalError at the end if a view cannot be made, as it shows what is elsewhere.
        """
        made = msgspec.json.decode((folder / TABLES).read_bytes(), type=Made)
        with self._anything() as cursor:
            schema.lock(cursor, self._url.database)
            copies.load_archive(folder, self._archive)
            _empty(cursor, made)
            for table, statement in made.tables.items():
                if table != VERSIONS:
                    cursor.execute(statement)
            counts = {table: _filled(cursor, folder, table) for table in made.tables}
            wrong = _make_views(cursor, made.views)
            if "relay" in made.tables:
                _begin_other_runs(cursor, made)
            cursor.execute(
                f"DELETE FROM {VERSIONS} WHERE version = %s",  # noqa: S608 - our name
                (schema.RESTORING,),
            )
        if wrong:
            raise FatalError(f"everything is back but for {'; '.join(wrong)}")
        return counts

    def close(self) -> None:
        """Do nothing: each call has a connection of its own."""

    @contextmanager
    def _anything(self) -> Iterator[Cursor]:
        """Lend a cursor whatever the database holds."""
        database = Database(self._url, answer_timeout_s=schema.ALTER_TIMEOUT_S, sql_mode=_AS_FOUND)
        try:
            with database.transaction() as cursor:
                yield cursor
        finally:
            database.close()


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _tables(cursor: Cursor) -> list[str]:
    """Return MariaDB's sequences first, of which tables may take their numbers."""
    return _names(cursor, "table_type <> 'VIEW' ORDER BY table_type <> 'SEQUENCE', table_name")


def _views(cursor: Cursor) -> list[str]:
    return _names(cursor, "table_type = 'VIEW' ORDER BY table_name")


def _names(cursor: Cursor, which: str) -> list[str]:
    cursor.execute(
        "SELECT table_name FROM information_schema.tables "  # noqa: S608 - our words
        f"WHERE table_schema = DATABASE() AND {which}"
    )
    return [name for (name,) in cursor.fetchall()]


def _made(cursor: Cursor, kind: str, name: str) -> str:
    cursor.execute(f"SHOW CREATE {kind} {_quoted(name)}")
    statement: str = cursor.fetchall()[0][1]
    return statement


def _columns(cursor: Cursor, table: str) -> dict[str, Column]:
    """Return the columns that are no derived ones."""
    cursor.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name = %s "
        "AND COALESCE(generation_expression, '') = '' ORDER BY ordinal_position",
        (table,),
    )
    return {name: _read(_quoted(name), kind) for name, kind in cursor.fetchall()}


def _read(name: str, kind: str) -> Column:
    if kind.endswith(_BINARY):
        return Column(name, is_binary=True)
    if kind.endswith(("char", "text")):
        return Column(name, is_binary=False)
    # As text a FLOAT has six digits, which are not all; a DOUBLE has all.
    number = f"1e0 * {name}" if kind == "float" else name
    return Column(f"CAST({number} AS CHAR)", is_binary=False)


def _rows(cursor: Cursor, table: str, columns: Mapping[str, Column]) -> Iterator[archives.Row]:
    expressions = ", ".join(column.expression for column in columns.values())
    for row in streamed(cursor, f"SELECT {expressions} FROM {_quoted(table)}"):  # noqa: S608 - quoted
        yield tuple(_text(value) for value in row)


def _text(value: Any) -> str | None:
    return value.hex() if isinstance(value, bytes) else value


def _empty(cursor: Cursor, made: Made) -> None:
    """Drop everything but the mark that the database is being restored."""
    cursor.execute("SET SESSION foreign_key_checks = 0")
    cursor.execute(schema.migrations()[0].statements[0].sql)
    _mark(cursor)
    _end_others(cursor)
    for view in _views(cursor):
        cursor.execute(f"DROP VIEW {_quoted(view)}")
    for table in reversed(_tables(cursor)):
        if table != VERSIONS:
            cursor.execute(f"DROP TABLE {_quoted(table)}")
    if statement := made.tables.get(VERSIONS):
        # An interruption here leaves nothing at all.
        cursor.execute(f"DROP TABLE {VERSIONS}")
        cursor.execute(statement)
        _mark(cursor)


def _mark(cursor: Cursor) -> None:
    cursor.execute(
        f"REPLACE INTO {VERSIONS} (version, name) VALUES (%s, 'being restored')",  # noqa: S608 - our name
        (schema.RESTORING,),
    )
    cursor.execute("COMMIT")


def _end_others(cursor: Cursor) -> None:
    """End the account's other connections: what a service that goes on counts, rows would miss."""
    cursor.execute(
        "SELECT id FROM information_schema.processlist "
        "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    )
    for (connection,) in cursor.fetchall():
        with suppress(ServerError):  # it has ended
            cursor.execute(f"KILL {connection}")


def _filled(cursor: Cursor, folder: Path, table: str) -> int:
    names, pages = copies.read(folder, table)
    columns = _columns(cursor, table)
    if unknown := set(names) - columns.keys():
        raise FatalError(f"{table} has no column {', '.join(map(str, unknown))} as the backup has")
    of = [columns[str(name)] for name in names]
    # The driver puts values where a % is.
    into, *quoted = (_quoted(str(name)).replace("%", "%%") for name in (table, *names))
    query = rows.insert(into, quoted, quoted[0])
    count = 0
    for page in pages:
        cursor.executemany(query, [_values(row, of) for row in page])
        cursor.execute("COMMIT")
        count += len(page)
    return count


def _values(row: archives.Row, columns: list[Column]) -> list[str | bytes | None]:
    return [
        bytes.fromhex(value) if column.is_binary and value is not None else value
        for value, column in zip(row, columns, strict=True)
    ]


def _make_views(cursor: Cursor, views: Mapping[str, str]) -> list[str]:
    """Make views, each after those that it shows; return which cannot be made, and why."""
    left = dict(views)
    while left:
        wrong = {}
        for view, statement in left.items():
            try:
                cursor.execute(statement)
            except ServerError as error:
                wrong[view] = f"the view {view}: {error.args[-1]}"
        if len(wrong) == len(left):
            return list(wrong.values())
        left = {view: left[view] for view in wrong}
    return []


def _begin_other_runs(cursor: Cursor, made: Made) -> None:
    """Have a relay make other runs of what scripts insert from here on.

    It numbers their rows, and may have given the next numbers to rows that are lost: upstream
    another row under such a number is a conflict.
    """
    cursor.execute("UPDATE relay SET source = UUID()")
    if "relay_waiting" in made.tables:
        cursor.execute(
            f"DELETE FROM relay_waiting WHERE of_table = '{_DEMAND}' "  # noqa: S608 - our names
            f"AND id IN (SELECT id FROM {_DEMAND} WHERE {_UNSETTLED})"
        )
    cursor.execute(
        f"UPDATE {_DEMAND} SET relay_seq = NULL, relayed = NULL WHERE {_UNSETTLED}"  # noqa: S608 - our names
    )
    cursor.execute("COMMIT")
