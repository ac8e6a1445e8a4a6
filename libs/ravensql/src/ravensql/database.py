"""The connection to MySQL or MariaDB, and what each of the driver's errors means."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from ravenbus.errors import PoisonError, RetryableError
from ravenbus.optional import hidden
from ravenbus.settings import Address
from ravensql.settings import MysqlUrl

# It imports this, 8 MB, for a way to log in that few servers ask for.
with hidden("cryptography"):
    import pymysql  # type: ignore[import-untyped]
    from pymysql import _auth, err
    from pymysql.cursors import SSCursor  # type: ignore[import-untyped]

    from ravensql.bulk import BulkCursor

CONNECT_TIMEOUT_S: Final = 5
ANSWER_TIMEOUT_S: Final = 30
"""A peer that vanished without a word would otherwise hold the writer for ever."""
PACKET_RESERVE: Final = 64 * 1024
LOCK_WAIT_S: Final = 10
"""Below ANSWER_TIMEOUT_S, so that it is the server who says what is locked."""

ServerError: Final = err.MySQLError
"""What the driver raises where the server refuses a statement."""

STRICT: Final = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"
STRICT_TIMES: Final = f"{STRICT},NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO"

POISON_CODES: Final = frozenset(
    {
        1153,  # a packet larger than max_allowed_packet
        1265,  # data truncated
        1292,  # incorrect value: a time that does not exist or is out of range
        1366,  # incorrect value: a character that the column cannot hold
        1367,  # illegal value
        1411,  # incorrect value for a function
        1690,  # out of range in an expression, as of a generated column
        3140,  # invalid JSON text
        3819,  # check constraint violated (MySQL)
        4025,  # check constraint violated (MariaDB)
    }
)
"""Codes that blame the row although the driver calls them operational.

DataError and IntegrityError blame the row too; every other error is the server's state, or its
administrator's, and is retried: a full disk, a lock, a table that somebody renamed.
"""

REFUSED_CODES: Final = frozenset(
    {
        1044,  # the account may not use the database
        1045,  # wrong user or password
        1049,  # no such database
        1142,  # the account may not do this with the table
        1143,  # nor with the column
        1227,  # nor without a privilege
        1251,  # the authentication is not supported
        1698,  # the account does not log in with a password
    }
)
FULL_CODES: Final = frozenset({3, 28, 1021, 1114})
READ_ONLY_CODES: Final = frozenset({1290, 1792, 1836, 3100})
LOCKED_CODES: Final = frozenset({1205, 1213})
CLIENT_CODES: Final = range(2000, 3000)
"""The driver's own numbers: the server did not answer."""
GOING_CODES: Final = frozenset({0, 1040, 1053, 1152, 1158, 1159, 1160, 1161, 1317, 1927, 3169})
"""The server is going away, or ends the connection."""
PROGRAMMING_CODES: Final = frozenset({1054, 1064, 1146, 1364})


class Cursor(Protocol):
    """The part of the driver's cursor that is used."""

    rowcount: int

    def execute(self, query: str, args: Sequence[Any] | None = None) -> int:
        """Run a statement."""

    def executemany(self, query: str, args: Sequence[Sequence[Any]]) -> int | None:
        """Run a statement for many rows; for an INSERT of placeholders that is one statement."""

    def fetchall(self) -> Sequence[tuple[Any, ...]]:
        """Return the rows."""


class Database:
    """One connection, made when it is needed and made again after it failed, to the next address.

    The session is in UTC and strict, whatever the server's defaults are, and reads what others
    committed.  ``on_connect`` is called with a cursor of each new connection.
    """

    def __init__(
        self,
        url: MysqlUrl,
        *,
        answer_timeout_s: int = ANSWER_TIMEOUT_S,
        sql_mode: str = STRICT_TIMES,
        on_connect: Callable[[Cursor], None] = lambda _: None,
    ) -> None:
        self._url = url
        self._answer_timeout_s = answer_timeout_s
        self._sql_mode = sql_mode
        self._on_connect = on_connect
        self._connection: Any = None
        self._max_packet = 2**20
        self._addresses = deque(url.addresses)

    @property
    def payload_max(self) -> int:
        """Bytes that a column may have beside others; a byte may need two when it is quoted."""
        return (self._max_packet - PACKET_RESERVE) // 2

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Lend a cursor and commit at the end; on an error nothing of it stays.

        Raises PoisonError for what no retry can store, RetryableError for all that the server
        suffers from; the driver's error is the cause.
        """
        try:
            with sorted_errors(self._url):
                if self._connection is None:
                    self._connection = self._connect()
                with self._connection.cursor() as cursor:
                    yield cursor
                self._connection.commit()
        except PoisonError:
            self._roll_back()
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; what it has not committed is rolled back."""
        if self._connection is not None:
            self._connection._force_close()  # noqa: SLF001 - close() waits for a peer that may be gone
            self._connection = None

    def _roll_back(self) -> None:
        try:
            self._connection.rollback()
        except (err.Error, AttributeError):
            self.close()

    def _connect(self) -> Any:
        *others, last = self._addresses
        self._addresses.rotate(-1)
        for address in others:
            try:
                return self._prepared(address)
            except err.OperationalError as error:
                if code_of(error) not in CLIENT_CODES:
                    raise
        return self._prepared(last)

    def _prepared(self, address: Address) -> Any:
        """Return a connection to an address with its session's settings."""
        try:
            connection = self._opened(address)
        except RuntimeError:
            # Without TLS, MySQL wants a password that it has not in memory encrypted by its key.
            importlib.reload(_auth)
            connection = self._opened(address)
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SET SESSION sql_mode = %s, time_zone = '+00:00', "
                    "innodb_lock_wait_timeout = %s, lock_wait_timeout = %s",
                    (self._sql_mode, LOCK_WAIT_S, LOCK_WAIT_S),
                )
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                cursor.execute("SELECT @@max_allowed_packet")
                ((self._max_packet,),) = cursor.fetchall()
                self._on_connect(cursor)
            connection.commit()
        except BaseException:
            connection._force_close()  # noqa: SLF001 - as above
            raise
        return connection

    def _opened(self, address: Address) -> Any:
        url = self._url
        trust = {"ssl_ca": url.ssl_ca, "ssl_verify_cert": True, "ssl_verify_identity": True}
        return pymysql.connect(
            host=address.host,
            port=address.port,
            user=url.user,
            password=url.password,
            database=url.database,
            charset="utf8mb4",
            autocommit=False,
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=self._answer_timeout_s,
            write_timeout=self._answer_timeout_s,
            program_name="python-raven",
            cursorclass=BulkCursor,
            **(trust if url.ssl_ca else {}),
        )


def streamed(cursor: Any, query: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query as the server sends them, not all in memory.

    The connection answers nothing else until the last one came, and ends if somebody stops before.
    """
    connection = cursor.connection
    with connection.cursor(SSCursor) as stream:
        stream.execute(query)
        try:
            for row in stream:  # noqa: UP028 - that would close it, which reads all that is to come
                yield row
        except BaseException:
            stream._result.unbuffered_active = False  # noqa: SLF001 - as above
            connection._force_close()  # noqa: SLF001 - as in Database
            raise


@contextmanager
def sorted_errors(url: MysqlUrl) -> Iterator[None]:
    """Turn the driver's errors into ours, keeping the original as the cause."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise PoisonError("not-storable", str(error)) from error
    except (err.DataError, err.IntegrityError) as error:
        raise PoisonError("not-storable", _said(error)) from error
    except err.Error as error:
        if code_of(error) in POISON_CODES:
            raise PoisonError("not-storable", _said(error)) from error
        raise RetryableError(_explain(error, url)) from error


def code_of(error: BaseException | None) -> int:
    """Return the server's or the client library's number of an error, 0 if it has none."""
    code = error.args[0] if error and error.args else 0
    return code if isinstance(code, int) else 0


def _said(error: Exception) -> str:
    return str(error.args[1]) if len(error.args) > 1 else str(error)


def _explain(error: Exception, url: MysqlUrl) -> str:
    """Say in a line what keeps the store away."""
    code, said = code_of(error), _said(error)
    if code in REFUSED_CODES:
        return f"MySQL refuses {url}: {said} (see MYSQL_URL)"
    if code in READ_ONLY_CODES:
        return f"MySQL is read-only: {said}"
    if code in FULL_CODES:
        return f"MySQL's disk is full: {said}"
    if code in LOCKED_CODES:
        return f"MySQL is locked: {said}"
    if code in PROGRAMMING_CODES:
        return f"the tables are not as they were made: {said}"
    if code in CLIENT_CODES or code in GOING_CODES:
        return f"MySQL is away: {said or type(error).__name__}"
    return f"MySQL cannot do it now: {said} (error {code})"
