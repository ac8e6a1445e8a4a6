"""A MySQL server in memory: SQLite, which is told as much of MySQL's SQL as our statements have.

It stands behind the driver's ``connect``.  Its connections share one transaction, so a test uses
them one after another.  How rows are locked, what strictness refuses, and assignments that see
those before them, as the roll-ups of energy have them, need a real server.
"""

from __future__ import annotations

import re
import sqlite3
import struct
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from pymysql import err

from ravensql import energy, rows, schema
from ravensql.settings import MysqlUrl

TEXTS = {
    *("node", "device", "meter", "run", "hash", "kind", "body", "tier_label", "rate_label"),
}
MADE_UP = "demand IS -1 AND multiplier IS -1 AND divisor IS -1"
OWN = {
    "instantaneous_demand": ("relay_seq", f"placeholder GENERATED ALWAYS AS ({MADE_UP})"),
}
TABLES = {
    **{
        table: (
            "id INTEGER PRIMARY KEY AUTOINCREMENT",
            *(
                f"{name} {'TEXT' if name in TEXTS else 'NUMERIC'}"
                for name in (*rows.IDENTITY, *own, "relayed")
            ),
            *(*OWN.get(table, ()), "UNIQUE (hash, seq, time)"),
        )
        for table, own in rows.COLUMNS.items()
    },
    "dead_letter": (*rows.LETTER_COLUMNS, "PRIMARY KEY (id)"),
    "run_info": ("name", "hash", "meter_id", "time", "node", "last_seq", "UNIQUE (hash, node)"),
    "demand_rollup": (
        *("period_s", "node", "meter", "start", "readings", "sum_kw", "min_kw", "max_kw"),
        "PRIMARY KEY (period_s, node, meter, start)",
    ),
    "energy_rollup": (
        *("period_s", "node", "meter", "start", "readings"),
        *(
            f"{name}_{part}"
            for name in energy.NAMES
            for part in ("kwh_min", "kwh_max", "kwh", "first", "last")
        ),
        "PRIMARY KEY (period_s, node, meter, start)",
    ),
    "energy_meter": (
        *("node", "meter", "counted_to"),
        *("delivered_last", "delivered_kwh", "received_last", "received_kwh"),
        "PRIMARY KEY (node, meter)",
    ),
    "archive": (
        *("month", "of_table", "file", "readings", "sha256", "oldest", "newest"),
        *("restoring DEFAULT FALSE", "PRIMARY KEY (month, of_table)"),
    ),
    "archived_run": ("hash", "first_seq", "last_seq", "month"),
    "archived_digest": (
        *("hash", "first_seq", "last_seq", "of_table", "month", "digests"),
        "PRIMARY KEY (hash, first_seq, of_table, month)",
    ),
    "relay": ("id INTEGER PRIMARY KEY", "source", "node", "upstream"),
    "relay_run": ("hash PRIMARY KEY", "last_seq"),
    "schema_version": ("version", "name"),
    "information_schema.tables": ("table_schema", "table_name"),
    "information_schema.columns": (
        *("table_schema", "table_name", "column_name", "data_type", "generation_expression"),
        "ordinal_position",
    ),
    "information_schema.partitions": (
        *("table_schema", "table_name", "partition_name", "partition_description"),
    ),
}

DIALECT = [
    (r" FOR UPDATE( SKIP LOCKED)?| FORCE INDEX \(PRIMARY\)", ""),
    (r"ON DUPLICATE KEY UPDATE (\w+) = (\w+\.)?\1$", "ON CONFLICT DO NOTHING"),
    (r"ON DUPLICATE KEY UPDATE", "ON CONFLICT DO UPDATE SET"),
    (r"VALUES\((\w+)\)", r"excluded.\1"),
    (r"CAST\(UNIX_TIMESTAMP\((\w+)\) \* 1000 AS SIGNED\)", r"MILLIS(\1)"),
    (r"TIMESTAMPDIFF\(MICROSECOND, '1970-01-01', (\w+)\) DIV 1000", r"MILLIS(\1)"),
    (r"CAST\((`?\w+`?) AS CHAR\)", r"(char(1) || \1)"),
    (r"DELETE FROM (\w+) (WHERE .* LIMIT \?)", r"DELETE FROM \1 WHERE rowid IN (SELECT rowid FROM \1 \2)"),
    (r"<=>", "IS"),
    (r"^SELECT @@max_allowed_packet", "SELECT 16777216"),
]  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?")
PARTITION = re.compile(r"FROM (\w+) PARTITION \((\w+)\)")
DROP = re.compile(r"ALTER TABLE (\w+) DROP PARTITION (\w+)")
SPLIT = re.compile(r"ALTER TABLE (\w+) REORGANIZE PARTITION (\w+) INTO (.*)")
BOUND = re.compile(r"PARTITION (\w+) VALUES LESS THAN \(?(\w+)\)?")
CODES = {"no such column": 1054, "has no column named": 1054, "no such table": 1146}
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - as MySQL has it


def from_server(code: int, said: str = "said") -> Exception:
    """Return the error that the driver makes of a server's packet."""
    packet = b"\xff" + struct.pack("<h", code) + b"#HY000" + said.encode()
    with pytest.raises(err.MySQLError) as caught:
        err.raise_mysql_exception(packet)
    return caught.value


class Server:
    """A server with our tables; ``before`` sees each statement and raises what it answers."""

    url = MysqlUrl("mysql://raven:secret@db/energy")

    def __init__(self) -> None:
        self.before: Callable[[str], None] = lambda _sql: None
        self.connections: list[Connection] = []
        self.locks: dict[str, Connection] = {}
        self.db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.db.text_factory = _text
        self.db.create_function("DATABASE", 0, lambda: "energy")
        self.db.create_function("MILLIS", 1, _millis)
        self.db.create_function("FIELD", -1, lambda one, *order: order.index(one) + 1)
        self.db.create_function("IF", 3, lambda so, one, other: one if so else other)
        self.db.create_function("LEAST", -1, lambda *of: None if None in of else min(of))
        self.db.create_function("GREATEST", -1, lambda *of: None if None in of else max(of))
        self.db.execute("ATTACH ':memory:' AS information_schema")
        for table, columns in TABLES.items():
            self.db.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
        self("INSERT INTO information_schema.tables VALUES ('energy', 'schema_version')")
        self("INSERT INTO schema_version (version) VALUES (%s)", schema.migrations()[-1].number)
        for table in rows.COLUMNS:
            for number, name, kind, *_ in self(f"PRAGMA table_info({table})"):
                column = (table, name, kind.lower(), "", number)
                self.db.execute(
                    "INSERT INTO information_schema.columns VALUES ('energy', ?, ?, ?, ?, ?)",
                    column,
                )
            self._bound(table, "p_rest", "MAXVALUE")

    def connect(self, **_: Any) -> Connection:
        """Stand in for the driver's ``connect``."""
        self.connections.append(Connection(self))
        return self.connections[-1]

    def __call__(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """Run a statement as another program, and commit what it changes."""
        found = list(self.run(sql, args).fetchall())
        if not sql.startswith("SELECT"):
            self.end("COMMIT")
        return found

    def run(self, sql: str, args: Sequence[Any]) -> sqlite3.Cursor:
        """Run a statement of MySQL's."""
        if sql.startswith(("COMMIT", "ALTER", "LOCK")):
            self.end("COMMIT")
        elif not self.db.in_transaction:
            self.db.execute("BEGIN")
        if sql.startswith(("COMMIT", "LOCK", "SET SESSION", "UNLOCK")):
            return self.db.cursor()
        if dropped := DROP.match(sql):
            return self._drop(*dropped.groups())
        if split := SPLIT.match(sql):
            for name, bound in BOUND.findall(split[3]):
                self._bound(split[1], name, bound)
            return self.db.cursor()
        sql, values = _in_places(PARTITION.sub(self._partition, sql), args)
        for pattern, ours in DIALECT:
            sql = re.sub(pattern, ours, sql)
        try:
            return self.db.execute(sql, values)
        except sqlite3.IntegrityError as error:
            raise from_server(1062, str(error)) from error
        except sqlite3.OperationalError as error:
            code = next((code for said, code in CODES.items() if said in str(error)), 0)
            if not code:
                raise
            raise from_server(code, str(error)) from error

    def end(self, how: str) -> None:
        """Commit or roll back."""
        if self.db.in_transaction:
            self.db.execute(how)

    def _bound(self, table: str, name: str, bound: str) -> None:
        where = ("energy", table, name)
        self.db.execute(
            "DELETE FROM information_schema.partitions WHERE (table_schema, table_name, "
            "partition_name) = (?, ?, ?)", where,
        )  # fmt: skip
        self.db.execute(
            "INSERT INTO information_schema.partitions VALUES (?, ?, ?, ?)", (*where, bound)
        )

    def _partition(self, found: re.Match[str]) -> str:
        """Return the rows of a partition, under the name of their table."""
        rows_ = f"SELECT * FROM {found[1]} WHERE {self._within(found[1], found[2])}"  # noqa: S608 - our names
        return f"FROM ({rows_}) AS {found[1]}"

    def _within(self, table: str, partition: str) -> str:
        bounds = dict(
            self.db.execute(
                "SELECT partition_name, CAST(partition_description AS INTEGER) FROM "
                "information_schema.partitions WHERE table_name = ? AND partition_name != 'p_rest'",
                (table,),
            )
        )
        if partition not in bounds:
            raise from_server(1735, f"unknown partition {partition} in {table}")
        end = bounds[partition]
        start = max((bound for bound in bounds.values() if bound < end), default=-1)
        return f"MILLIS(time) >= {start * 1000} AND MILLIS(time) < {end * 1000}"

    def _drop(self, table: str, partition: str) -> sqlite3.Cursor:
        self.db.execute(f"DELETE FROM {table} WHERE {self._within(table, partition)}")  # noqa: S608 - our names
        query = (
            "DELETE FROM information_schema.partitions WHERE (table_name, partition_name) = (?, ?)"
        )
        return self.db.execute(query, (table, partition))


class Connection:
    """A connection of the driver, and its cursor."""

    def __init__(self, server: Server) -> None:
        self.closed = False
        self.rowcount = 0
        self._server = server
        self._found: Any = None

    @contextmanager
    def cursor(self):
        yield self

    def execute(self, sql: str, args: Sequence[Any] | None = None) -> int:
        self._server.before(sql)
        if "_LOCK(" in sql:
            self._lock(sql, args or ())
            return 1
        self._found = self._server.run(sql, args or ())
        self.rowcount = self._found.rowcount
        return self.rowcount

    def executemany(self, sql: str, args: Sequence[Sequence[Any]]) -> int:
        self._server.before(sql)
        self.rowcount = sum(self._server.run(sql, one).rowcount for one in args)
        return self.rowcount

    def fetchall(self) -> tuple[tuple[Any, ...], ...]:
        return tuple(self._found.fetchall())

    def commit(self) -> None:
        self._server.before("COMMIT")
        self._server.end("COMMIT")

    def rollback(self) -> None:
        self._server.end("ROLLBACK")

    def _force_close(self) -> None:
        self.closed = True
        self.rollback()
        for name in [name for name, owner in self._server.locks.items() if owner is self]:
            del self._server.locks[name]

    def _lock(self, sql: str, args: Sequence[Any]) -> None:
        locks = self._server.locks
        if "GET_LOCK" in sql:
            name = args[0]
            if len(name) > 64:
                raise from_server(3057, "incorrect user-level lock name")
            is_ours = locks.setdefault(name, self) is self
            self._found = self._server.db.execute("SELECT ?", (int(is_ours),))
            return
        for name in args:
            if locks.get(name) is self:
                del locks[name]


@contextmanager
def power_cut(server: Server, at: int):
    """Cut a process short before its statement of a number; tell whether it came so far."""
    left = at

    def burn(_sql: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise PowerCutError

    server.before = burn
    try:
        with suppress(PowerCutError):
            yield lambda: left <= 0
    finally:
        server.before = lambda _sql: None


class PowerCutError(BaseException):
    """Ends a process where nothing expects it."""


def _in_places(sql: str, args: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return a statement with SQLite's places, one for each value of a list, and the values."""
    values: list[Any] = []

    def placed(one: Any, *, of_list: bool = False) -> str:
        if isinstance(one, (list, tuple, set)):
            rows_ = bool(one) and all(isinstance(part, tuple) for part in one) and not of_list
            parts = ", ".join(placed(part, of_list=True) for part in one)
            return f"(VALUES {parts})" if rows_ else f"({parts})"
        values.append(_value(one))
        return "?"

    found = iter(args)
    return re.sub("%s", lambda _: placed(next(found)), sql), values


def _value(one: Any) -> Any:
    match one:
        case datetime():
            return one.isoformat(" ")
        case Decimal():
            return float(one)
    return one


def _text(raw: bytes) -> str | datetime:
    """Return a text as the driver does, which makes times of those it knows as such."""
    text = raw.decode()
    if text.startswith("\1"):
        return text[1:]
    with suppress(ValueError):
        if TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    return text


def _millis(text: str | None) -> int | None:
    """Return the milliseconds from 1970 to a time, 0 for one of zeros."""
    if text is None or text.startswith("0000"):
        return text and 0
    return round((datetime.fromisoformat(text) - EPOCH).total_seconds() * 1000)
