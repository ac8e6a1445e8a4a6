"""The tables: numbered migrations, applied in order under a lock, each safe to repeat."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from ravenbus import __version__
from ravenbus.errors import FatalError, PoisonError, RetryableError
from ravensql import rows, server
from ravensql.database import STRICT, Cursor, Database, ServerError, code_of
from ravensql.settings import MysqlUrl

log = logging.getLogger(__name__)

LOCK_TRY_S: Final = 5
ALTER_TIMEOUT_S: Final = 24 * 3600
"""Rebuilding a table of ten years takes as long as it takes."""
BEAT_EVERY_S: Final = 1.0
TELL_EVERY_S: Final = 60.0
WRONG_STATEMENT_CODES: Final = frozenset(
    {
        *(1050, 1054, 1060, 1061, 1064, 1068, 1072, 1146, 1347),
        *(1173, 3750),  # a table must have a primary key
        1286,  # the storage engine is unknown
        1665,  # what is written cannot be logged as statements
    }
)
"""Error codes of a migration where others changed the database or server: retrying is useless."""
REFUSED_OPTION_CODES: Final = frozenset({1031, 1478})
"""Error codes of a server that cannot give a table an option, as one with shared files."""
RESTORING: Final = 9999
"""Version of a database that a restore is filling: every program refuses it, the older ones too."""
MADE_BY: Final = " of "
"""Between a step's name and the release that took it, for older ones to say which is needed."""
HINTS: Final = {1061: ": drop or rename the index of that name, then start again"}
OUR_KEYS: Final = {
    **dict.fromkeys(rows.COLUMNS, ({"hash", "seq", "time"}, {"id", "time"})),
    "run_info": ({"hash", "node"}, {"id"}),
}
"""Column sets that are unique in our tables; a key with all columns of one keeps no reading out."""

_FILE: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_UNLESS: Final = re.compile(r"^-- unless (column|option) (\w+)\.(\w+)$", re.MULTILINE)
_IS_THERE: Final = {
    "column": "SELECT COUNT(*) FROM information_schema.columns "
    "WHERE table_schema = DATABASE() AND table_name = %s AND column_name = %s",
    "option": "SELECT COUNT(*) FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND table_name = %s AND create_options LIKE CONCAT('%%', %s, '%%')",
}


class Statement(NamedTuple):
    """One statement; ``unless`` is what a table has once it is done: column or option, table, name."""

    sql: str
    unless: tuple[str, str, str] | None

    @property
    def is_optional(self) -> bool:
        """Whether it only asks for an option, which a server may refuse."""
        return self.unless is not None and self.unless[0] == "option"


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
            statements.append(Statement(sql, (unless[1], unless[2], unless[3]) if unless else None))
    return Migration(int(matched[1]), matched[2], tuple(statements))


def require_known(cursor: Cursor) -> None:
    """Raise FatalError if a newer program has changed the database."""
    version, newest = version_of(cursor), migrations()[-1].number
    if version == RESTORING:
        raise FatalError(
            "the database is being restored, or that was interrupted: wait for raven-restore, "
            "or run it again"
        )
    if version > newest:
        cursor.execute("SELECT name FROM schema_version WHERE version = %s", (version,))
        ((name,),) = cursor.fetchall()
        program = name.partition(MADE_BY)[2] or "a newer release"
        raise FatalError(
            f"the database is at version {version}, which {program} made, and this program, "
            f"{__version__}, knows versions up to {newest}: run {program}, or restore a backup "
            "that was made before"
        )


def require_current(cursor: Cursor) -> None:
    """Raise RetryableError until a writer has brought the database to this program's version.

    Raise FatalError if a newer program has changed it.
    """
    require_known(cursor)
    version, newest = version_of(cursor), migrations()[-1].number
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
            if version_of(cursor) == migrations()[-1].number:
                return []
            lock(cursor, url.database)
            # Another writer may have done it while this one waited for the lock.
            require_known(cursor)
            version = version_of(cursor)
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
    log.info("migrating", extra={"step": _named(step)})
    for number, statement in enumerate(step.statements, 1):
        if not (statement.unless and _is_there(cursor, *statement.unless)):
            try:
                run_long(cursor, statement.sql, _telling(step, number, beat))
            except ServerError as error:
                if not (statement.is_optional and code_of(error) in REFUSED_OPTION_CODES):
                    raise
                log.warning(
                    "the server keeps a table as it was",
                    extra={"table": statement.unless and statement.unless[1], "detail": str(error)},
                )
    cursor.execute(
        "INSERT INTO schema_version (version, name) VALUES (%s, %s)",
        (step.number, f"{step.name}{MADE_BY}{__version__}"),
    )
    cursor.execute("COMMIT")


def _telling(step: Migration, number: int, beat: Callable[[], None]) -> Callable[[], None]:
    """Return a beat that says once a minute that a statement still runs."""
    started = told = time.monotonic()

    def tell() -> None:
        nonlocal told
        beat()
        if time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            statement = f"{number} of {len(step.statements)}"
            minutes = round((told - started) / 60)
            extra = {"step": _named(step), "statement": statement, "minutes": minutes}
            log.info("still migrating", extra=extra)

    return tell


def _named(step: Migration) -> str:
    return f"{step.number:04}_{step.name}"


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


def version_of(cursor: Cursor) -> int:
    """Return the number of the last step that was applied, 0 for none."""
    cursor.execute(
        "SELECT COUNT(*) FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = 'schema_version'"
    )
    if cursor.fetchall() == ((0,),):
        return 0
    cursor.execute("SELECT COALESCE(MAX(version), 0) FROM schema_version")
    return int(cursor.fetchall()[0][0])


def _is_there(cursor: Cursor, what: str, table: str, name: str) -> bool:
    cursor.execute(_IS_THERE[what], (table, name))
    return cursor.fetchall() != ((0,),)
