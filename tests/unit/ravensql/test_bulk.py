"""Many rows in few statements: what is sent is what the driver would send."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysql.connections import Connection
from pymysql.constants import SERVER_STATUS
from pymysql.cursors import Cursor

from ravensql.bulk import BulkCursor
from ravensql.rows import insert

QUERY = insert("t", ("a", "b", "c"), "a")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["home", "100 %", "%s", "it's", 'a "b"', "\\", "'; DROP TABLE t; --"]),
    st.binary(max_size=10),
    st.datetimes(),
    st.decimals(allow_nan=False, allow_infinity=False, places=6),
)


def cursor_of(kind: type[Cursor], status: int = 0) -> Cursor:
    """Return a cursor of a connection to nowhere."""
    connection = Connection(defer_connect=True)
    connection.server_status, connection.encoding = status, "utf8"
    return kind(connection)


def sent(kind: type[Cursor], rows: list[tuple[Any, ...]], most: int, status: int = 0) -> list[str]:
    """Return the statements that a cursor runs."""
    cursor = cursor_of(kind, status)
    cursor.max_stmt_length = most
    statements: list[str] = []

    def execute(query: str | bytes, _args: object = None) -> int:
        statements.append(query if isinstance(query, str) else bytes(query).decode())
        return 2

    cursor.execute = execute
    assert cursor.executemany(QUERY, rows) == 2 * len(statements) == cursor.rowcount
    return statements


@given(
    st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=20),
    st.sampled_from([1, 200, 300, 2**20]),
    st.sampled_from([0, SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES]),
)
def test_the_statements_are_the_drivers(rows, most, status):
    """To the last byte, where they are divided too, whatever the server takes for an escape."""
    assert sent(BulkCursor, rows, most, status) == sent(Cursor, rows, most, status)


def test_text_that_no_server_can_hold_is_refused_as_the_driver_does():
    """Half a character of UTF-16 is none."""
    with pytest.raises(UnicodeEncodeError):
        sent(BulkCursor, [("\ud800", 1, 2)], 2**20)


def test_a_statement_for_each_row_goes_as_before():
    """What is no INSERT of placeholders runs once for each."""
    cursor = cursor_of(BulkCursor)
    run: list[tuple[str, Any]] = []
    cursor.execute = lambda query, args=None: run.append((query, args)) or 1
    assert cursor.executemany("UPDATE t SET a = %s", [(1,), (2,)]) == 2
    assert run == [("UPDATE t SET a = %s", (1,)), ("UPDATE t SET a = %s", (2,))]
    assert cursor.executemany(QUERY, []) is None
    assert cursor.executemany(QUERY, [(Decimal(1), "x", None)]) == 1
    assert run[-1][0].startswith("INSERT INTO t (a, b, c) VALUES (1, 'x', NULL)")
