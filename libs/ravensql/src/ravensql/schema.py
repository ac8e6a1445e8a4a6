"""The tables: numbered migrations, applied in order under a lock, each safe to repeat."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from ravenbus.errors import FatalError, PoisonError, RetryableError
from ravensql import rows, server
from ravensql.database import STRICT, Cursor, Database, code_of
from ravensql.settings import MysqlUrl

log = logging.getLogger(__name__)

LOCK_TRY_S: Final = 5
ALTER_TIMEOUT_S: Final = 24 * 3600
"""Rebuilding a table of ten years takes as long as it takes."""
BEAT_EVERY_S: Final = 1.0
WRONG_STATEMENT_CODES: Final = frozenset(
    {
        *(1050, 1054, 1060, 1061, 1064, 1068, 1072, 1146, 1347),
        *(1173, 3750),  # a table must have a primary key
        1286,  # the storage engine is unknown
        1665,  # what is written cannot be logged as statements
    }
)
"""Error codes of a migration where others changed the database or server: retrying is useless."""
HINTS: Final = {1061: ": drop or rename the index of that name, then start again"}
OUR_KEYS: Final = {
    **dict.fromkeys(rows.COLUMNS, ({"hash", "seq", "time"}, {"id", "time"})),
    "run_info": ({"hash", "node"}, {"id"}),
}
"""Column sets that are unique in our tables; a key with all columns of one keeps no reading out."""

_FILE: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_UNLESS: Final = re.compile(r"^-- unless column (\w+)\.(\w+)$", re.MULTILINE)


class Statement(NamedTuple):
    """One statement; ``unless`` names the table and column whose presence means it is done."""

    sql: str
    unless: tuple[str, str] | None


class Migration(NamedTuple):
    """One step from a version of the tables to the next."""

    number: int
    name: str
    statements: tuple[Statement, ...]


@cache
def migrations() -> tuple[Migration, ...]:
    """Return all steps in order."""
    folder = files("ravensql") / "migrations"
    found = [read(file.name, file.read_text("utf-8")) for file in folder.iterdir()]
    return tuple(sorted(found))


def read(name: str, text: str) -> Migration:
    """Return the migration in a file; raise ValueError for a name that is none."""
    matched = _FILE.fullmatch(name)
    if not matched:
        raise ValueError(f"{name} is no NNNN_name.sql")
    statements = []
    for part in re.split(r";\s*$", text, flags=re.MULTILINE):
        unless = _UNLESS.search(part)
        sql = re.sub(r"^--.*$", "", part, flags=re.MULTILINE).strip()
        if sql:
            statements.append(Statement(sql, (unless[1], unless[2]) if unless else None))
    return Migration(int(matched[1]), matched[2], tuple(statements))


def require_known(cursor: Cursor) -> None:
    """Raise FatalError if a newer program has changed the database."""
    version, newest = _version(cursor), migrations()[-1].number
    if version > newest:
        raise FatalError(
            f"the database is at version {version} and this program knows versions up to "
            f"{newest}: run a newer one"
        )


def require_current(cursor: Cursor) -> None:
    """Raise RetryableError until a writer has brought the database to this program's version.

    Raise FatalError if a newer program has changed it.
    """
    require_known(cursor)
    version, newest = _version(cursor), migrations()[-1].number
    if version < newest:
        raise RetryableError(
            f"the database is at version {version} and {newest} is needed: "
            "start a raven-sql-writer of this program's version"
        )


def migrate(url: MysqlUrl, beat: Callable[[], None] = lambda: None) -> list[Migration]:
    """Bring the database to this program's version and return the steps that it took.

    ``beat`` is called each second while a statement runs.  Raises RetryableError if the server
    is away or another writer is at it, FatalError if the database is newer than this program or
    is not what a step expects.
    """
    is_galera = False
    try:
        with maintenance(url) as cursor:
            server.require_supported(cursor)
            is_galera = server.is_galera(cursor)
            _require_no_other_key(cursor)
            if _version(cursor) == migrations()[-1].number:
                return []
            lock(cursor, url.database)
            # Another writer may have done it while this one waited for the lock.
            require_known(cursor)
            version = _version(cursor)
            done = [step for step in migrations() if step.number > version]
            for step in done:
                _apply(cursor, step, beat)
            return done
    except (RetryableError, PoisonError) as error:
        if is_galera:
            # The lock is of one node alone; whoever comes second finds the step done, and goes on.
            detail = f"a writer may be changing the tables at another node of the cluster: {error}"
            raise RetryableError(detail) from error
        code = code_of(error.__cause__)
        if isinstance(error, PoisonError) or code in WRONG_STATEMENT_CODES:
            hint = HINTS.get(code, "")
            raise FatalError(f"the database cannot be migrated: {error}{hint}") from error
        raise


def run_long(cursor: Cursor, sql: str, beat: Callable[[], None]) -> None:
    """Run a statement that may take hours, calling ``beat`` each second."""
    with ThreadPoolExecutor(1) as worker:
        running = worker.submit(cursor.execute, sql)
        while not wait([running], BEAT_EVERY_S).done:
            beat()
        running.result()


@contextmanager
def maintenance(url: MysqlUrl) -> Iterator[Cursor]:
    """Lend a cursor that may wait for hours and tolerates what old rows hold.

    Raises FatalError if a newer program has changed the database.
    """
    database = Database(
        url, answer_timeout_s=ALTER_TIMEOUT_S, sql_mode=STRICT, on_connect=require_known
    )
    try:
        with database.transaction() as cursor:
            yield cursor
    finally:
        database.close()  # which also gives the lock back


def lock(cursor: Cursor, database: str, try_s: int = LOCK_TRY_S) -> None:
    """Take the lock that one writer of a database has, or raise RetryableError."""
    name = "raven-" + hashlib.sha256(database.encode()).hexdigest()[:32]
    cursor.execute("SELECT GET_LOCK(%s, %s)", (name, try_s))
    if cursor.fetchall() != ((1,),):
        raise RetryableError("another writer is changing the tables")


def _apply(cursor: Cursor, step: Migration, beat: Callable[[], None]) -> None:
    log.info("migrating", extra={"step": f"{step.number:04}_{step.name}"})
    for statement in step.statements:
        if not (statement.unless and _has_column(cursor, *statement.unless)):
            run_long(cursor, statement.sql, beat)
    cursor.execute(
        "INSERT INTO schema_version (version, name) VALUES (%s, %s)", (step.number, step.name)
    )
    cursor.execute("COMMIT")


def _require_no_other_key(cursor: Cursor) -> None:
    """Raise FatalError if somebody's own unique key would keep readings out of our tables."""
    cursor.execute(
        "SELECT table_name, index_name, GROUP_CONCAT("
        "CONCAT(column_name, COALESCE(CONCAT('(', sub_part, ')'), '')) ORDER BY seq_in_index) "
        "FROM information_schema.statistics WHERE table_schema = DATABASE() "
        "AND table_name IN %s AND non_unique = 0 "
        "GROUP BY table_name, index_name ORDER BY table_name, index_name",
        (tuple(OUR_KEYS),),
    )
    for table, key, columns in cursor.fetchall():
        if any(ours <= set(columns.split(",")) for ours in OUR_KEYS[table]):
            continue
        drop = "PRIMARY KEY" if key == "PRIMARY" else f"INDEX `{key.replace('`', '``')}`"
        raise FatalError(
            f"the table {table} has a unique key of its own, {key} ({columns}), and two readings "
            f"may have the same values: ALTER TABLE {table} DROP {drop}, then start again"
        )


def _version(cursor: Cursor) -> int:
    """Return the number of the last step that was applied, 0 for none."""
    cursor.execute(
        "SELECT COUNT(*) FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = 'schema_version'"
    )
    if cursor.fetchall() == ((0,),):
        return 0
    cursor.execute("SELECT COALESCE(MAX(version), 0) FROM schema_version")
    return int(cursor.fetchall()[0][0])


def _has_column(cursor: Cursor, table: str, column: str) -> bool:
    cursor.execute(
        "SELECT COUNT(*) FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name = %s AND column_name = %s",
        (table, column),
    )
    return cursor.fetchall() != ((0,),)
