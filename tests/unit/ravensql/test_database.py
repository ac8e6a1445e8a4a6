"""What each error of the driver means, where a database is, and how it is logged in to."""

from __future__ import annotations

import itertools
import socket
import threading
from typing import BinaryIO

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from pymysql import _auth, err

from raven_sql_writer.settings import WriterSettings
from ravenbus.errors import PoisonError, RetryableError, SettingsError
from ravensql.database import Database, sorted_errors
from ravensql.settings import MysqlUrl
from tests.mysql import from_server

URL = MysqlUrl("mysql://raven:hunter2@db:3307/energy")


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (err.OperationalError(2003, "Can't connect"), RetryableError, "MySQL is away"),
        (err.OperationalError(2006, "gone away"), RetryableError, "MySQL is away"),
        (err.OperationalError(2013, "Lost connection"), RetryableError, "MySQL is away"),
        (err.InterfaceError(0, ""), RetryableError, "MySQL is away"),
        (from_server(1040), RetryableError, "MySQL is away"),
        (from_server(1053), RetryableError, "MySQL is away"),
        (from_server(1205), RetryableError, "MySQL is locked"),
        (from_server(1213), RetryableError, "MySQL is locked"),
        (from_server(1290), RetryableError, "MySQL is read-only"),
        (from_server(1836), RetryableError, "MySQL is read-only"),
        (from_server(1021), RetryableError, "disk is full"),
        (from_server(1114), RetryableError, "disk is full"),
        (from_server(28), RetryableError, "disk is full"),
        (from_server(1045), RetryableError, "see MYSQL_URL"),
        (from_server(1044), RetryableError, "see MYSQL_URL"),
        (from_server(1049), RetryableError, "see MYSQL_URL"),
        (from_server(1142), RetryableError, "see MYSQL_URL"),
        (from_server(1146), RetryableError, "not as they were made"),
        (from_server(1054), RetryableError, "not as they were made"),
        (from_server(1264), PoisonError, "not-storable"),
        (from_server(1292), PoisonError, "not-storable"),
        (from_server(1366), PoisonError, "not-storable"),
        (from_server(1406), PoisonError, "not-storable"),
        (from_server(1048), PoisonError, "not-storable"),
        (from_server(1062), PoisonError, "not-storable"),
        (from_server(1153), PoisonError, "not-storable"),
        (from_server(1690), PoisonError, "not-storable"),
        (from_server(3819), PoisonError, "not-storable"),
        (from_server(4025), PoisonError, "not-storable"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"), PoisonError, "not-storable"),
    ],
    ids=lambda value: str(value.args[0]) if isinstance(value, Exception) else None,
)
def test_each_error_of_the_driver_is_retried_or_blamed_on_the_message(error, expected, said):
    """What the server suffers from is retried; what the row is guilty of is poison."""
    with pytest.raises(expected, match=said) as caught, sorted_errors(URL):
        raise error
    assert caught.value.__cause__ is error


def test_a_refused_account_is_said_without_its_password():
    """The text names the variable, the account and the server."""
    with pytest.raises(RetryableError) as caught, sorted_errors(URL):
        raise from_server(1045, "Access denied for user 'raven'@'h' (using password: YES)")
    assert "mysql://raven@db:3307/energy" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_url_is_read():
    """User and password are percent-encoded; the port has its default."""
    url = MysqlUrl("mysql://us%40er:p%2Fw@[::1]/energy?ssl_ca=/ca.pem")
    assert (url.user, url.password, *url.addresses[0]) == ("us@er", "p/w", "::1", 3306)
    assert (url.database, url.ssl_ca) == ("energy", "/ca.pem")
    assert MysqlUrl("mysql://u@h:3307/d").ssl_ca is None
    cluster = MysqlUrl("mysql://u:p@a,b:3307/d")
    assert cluster.addresses == (("a", 3306), ("b", 3307))
    assert str(cluster) == "mysql://u@a:3306,b:3307/d"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hunter2@h",
        "mysql://u:hunter2@h/",
        "mysql://u:hunter2@h/a/b",
        "mysql://u:hunter2@h:0/d",
        "mysql://u:hunter2@h:x/d",
        "mysql://u:hunter2@h,/d",
        "mysql://u:hunter2@h/d?ssl=1",
        "mysql://u:hunter2@h/d?ssl_ca=",
        "mysql://u:hunter2@h/d#f",
        "mysql://:hunter2@h/d",
        "postgres://u:hunter2@h/d",
        "hunter2",
    ],
)
def test_a_wrong_url_is_refused_without_showing_it(url):
    """A URL may hold a password, so the message says only what is allowed."""
    with pytest.raises(SettingsError) as caught:
        WriterSettings.load({"MYSQL_URL": url})
    (problem,) = caught.value.problems
    assert problem.startswith("MYSQL_URL")
    assert "mysql://user[:password]@host[:3306]/database" in problem
    assert "hunter2" not in problem


def test_the_url_comes_from_a_file_too(tmp_path):
    """MYSQL_URL_FILE names it, and certificates that are not there stop the start."""
    file = tmp_path / "url"
    file.write_text("mysql://u:hunter2@h/d?ssl_ca=/nowhere.pem\n")
    with pytest.raises(SettingsError, match="MYSQL_URL: the file that ssl_ca names") as caught:
        WriterSettings.load({"MYSQL_URL_FILE": str(file)})
    assert "hunter2" not in str(caught.value)
    file.write_text("mysql://u:hunter2@h/d\n")
    settings = WriterSettings.load({"MYSQL_URL_FILE": str(file)})
    assert settings.mysql_url.password == "hunter2"  # noqa: S105 - an example
    assert "hunter2" not in repr(settings)


SALT = b"12345678" + b"abcdefghijkl"
CAPABILITIES = 0x8A208
"""A database at once, protocol 4.1, transactions, authentication by plugins."""


class EncryptingServer:
    """Wants a password encrypted by its key, as MySQL does without TLS, and then hangs up."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.password = b""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while not self.password:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rwb") as stream:
                self._log_in(stream)

    def _log_in(self, stream: BinaryIO) -> None:
        low, high = CAPABILITIES.to_bytes(4, "little")[:2], CAPABILITIES.to_bytes(4, "little")[2:]
        head = b"\x0a9.7.0\0" + bytes(4) + SALT[:8] + b"\0" + low + b"\xff\x02\0" + high
        send(stream, 0, head + bytes([21]) + bytes(10) + SALT[8:] + b"\0caching_sha2_password\0")
        receive(stream)
        send(stream, 2, b"\x01\x04")
        if receive(stream) != b"\x02":
            return  # the driver gave up
        pem = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        send(stream, 4, b"\x01" + pem)
        if encrypted := receive(stream):
            sha1 = hashes.SHA1()  # noqa: S303 - MySQL's choice
            oaep = padding.OAEP(padding.MGF1(sha1), sha1, None)
            found = self._key.decrypt(encrypted, oaep)
            self.password = bytes(a ^ b for a, b in zip(found, itertools.cycle(SALT), strict=False))


def send(stream: BinaryIO, number: int, packet: bytes) -> None:
    stream.write(len(packet).to_bytes(3, "little") + bytes([number]) + packet)
    stream.flush()


def receive(stream: BinaryIO) -> bytes:
    return stream.read(int.from_bytes(stream.read(4)[:3], "little"))


def test_a_server_that_wants_the_password_encrypted_gets_it(monkeypatch):
    """What encrypts it is not in memory before a server asks for it; any node of a cluster may."""
    monkeypatch.setattr(_auth, "_have_cryptography", False)
    server = EncryptingServer()
    # Nobody listens at the first address of the two.
    url = MysqlUrl(f"mysql://raven:hunter2@127.0.0.1:1,127.0.0.1:{server.port}/energy")
    with pytest.raises(RetryableError, match="MySQL is away"), Database(url).transaction():
        pass
    server.close()
    assert server.password == b"hunter2\0"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://db/energy", "it names no user"),
        ("mysql://u:hunter2@db", "it names no database"),
        ("mysql://u:hunter2@db/a/b", "it names no database"),
        ("mysql://u:hunter2@db/energy?ssl=1", "an option other than ssl_ca"),
    ],
)
def test_a_wrong_url_is_refused_by_its_part(url, reason):
    """It may hold a password, which is not shown."""
    with pytest.raises(ValueError, match=reason) as caught:
        MysqlUrl(url)
    assert "hunter2" not in str(caught.value)
