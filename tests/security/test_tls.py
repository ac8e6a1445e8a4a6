"""Servers that are not who they should be: nothing is said to them, and the log says why."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import pytest
from cryptography import x509
from pymysql.constants import CLIENT

from raven_harness import stack
from raven_harness.certificates import DAY, Authority
from tests.system.system import wait_until

USER, PASSWORD = "the-user", "the-password"


class Impostor(threading.Thread):
    """Takes connections one after another, and keeps what it is told in the clear or after TLS."""

    def __init__(self, certificate: Path | None, greet: Callable[[socket.socket], bytes]) -> None:
        super().__init__(daemon=True)
        self._context: ssl.SSLContext | None = None
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
        self._greet = greet
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heard = b""
        self.refused: list[str] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def run(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(ConnectionError, TimeoutError):
                    self._listen(connection)

    def _listen(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        self.heard += self._greet(connection)
        if self._context is None:
            self.heard += connection.recv(65536)
            return
        try:
            with self._context.wrap_socket(connection, server_side=True) as secure:
                self.heard += secure.recv(65536)
        except ssl.SSLError as error:
            self.refused.append(error.reason)


def nothing(_: socket.socket) -> bytes:
    return b""


def mysql(connection: socket.socket, *, offers_tls: bool = True) -> bytes:
    """Greet as MySQL does, and return what the client asks before TLS (client/server protocol 10)."""
    capabilities = 0xFFFFF if offers_tls else 0xFFFFF & ~CLIENT.SSL
    greeting = b"\x0a8.4.0\0" + struct.pack("<I", 1) + b"12345678\0"
    greeting += struct.pack("<HBHHB", capabilities & 0xFFFF, 45, 2, capabilities >> 16, 21)
    greeting += bytes(10) + b"123456789012\0" + b"sha256_password\0"
    connection.sendall(struct.pack("<I", len(greeting)) + greeting)
    return connection.recv(36) if offers_tls else b""


class Case(NamedTuple):
    """A server's certificate, and what the log says of it."""

    certificate: Callable[[Authority, Authority], Path]
    says: str


CASES = {
    "another authority's": Case(lambda _, other: other.server(), "unable to get local issuer"),
    "self-signed": Case(lambda _, other: other.itself, "self-signed certificate"),
    "expired": Case(lambda ours, _: ours.server(-DAY), "certificate has expired"),
    "of another name": Case(
        lambda ours, _: ours.server(of=x509.DNSName("localhost")), "IP address mismatch"
    ),
    "of another address": Case(
        lambda ours, _: ours.server(of=x509.IPAddress(ipaddress.ip_address("127.0.0.2"))),
        "IP address mismatch",
    ),
}


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    folder = tmp_path_factory.mktemp("tls")
    return Authority(folder, "ours"), Authority(folder, "other")


Start = Callable[[str, int], stack.Process]


@pytest.fixture
def start(tmp_path: Path, authorities: tuple[Authority, Authority]) -> Iterator[Start]:
    """Start a service that trusts our authority alone."""
    started: list[stack.Process] = []

    def start(name: str, port: int) -> stack.Process:
        ca = str(authorities[0].file)
        mqtt = f"mqtts://{USER}:{PASSWORD}@127.0.0.1:{port}"
        if name == "reader":
            made = stack.reader(tmp_path, "/dev/none", mqtt, "home", MQTT_TLS_CA=ca)
        else:
            sql = f"mysql://{USER}:{PASSWORD}@127.0.0.1:{port}/raven?ssl_ca={ca}"
            made = stack.sql_writer(tmp_path, mqtt, sql)
            made.command.append("migrate")
        started.append(made)
        made.start()
        return made

    yield start
    for process in started:
        if process.running:
            process.kill()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_broker_that_cannot_prove_who_it_is_hears_nothing(
    start: Start, authorities: tuple[Authority, Authority], case: Case
):
    """No CONNECT, and so no account, is sent; the log says what is wrong with the certificate."""
    with Impostor(case.certificate(*authorities), nothing) as broker:
        reader = start("reader", broker.port)
        wait_until(lambda: case.says in reader.text(), f"the log says why\n{reader.text()}")
        wait_until(lambda: broker.refused, "the broker is refused")
    assert broker.heard == b""
    assert "certificate verify failed" in reader.text()
    assert PASSWORD not in reader.text()


def test_the_right_broker_hears_the_account(start: Start, authorities: tuple[Authority, Authority]):
    """The same server with the right certificate gets the CONNECT, so it would have had it."""
    with Impostor(authorities[0].server(), nothing) as broker:
        start("reader", broker.port)
        wait_until(lambda: PASSWORD.encode() in broker.heard, "the account arrives")


def test_a_broker_without_tls_hears_no_account(start: Start):
    """Who expects TLS says nothing of its own to a server that has none."""
    with Impostor(None, nothing) as broker:
        reader = start("reader", broker.port)
        wait_until(lambda: broker.heard, "something is said")
        wait_until(lambda: "problem check=broker" in reader.text(), "the log says that it fails")
    assert USER.encode() not in broker.heard
    assert PASSWORD.encode() not in broker.heard


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_database_that_cannot_prove_who_it_is_hears_nothing(
    start: Start, authorities: tuple[Authority, Authority], case: Case
):
    """With ssl_ca no account is sent before the certificate is verified, for name and time too."""
    with Impostor(case.certificate(*authorities), mysql) as database:
        migrate = start("migrate", database.port)
        assert migrate.wait() == 1
    assert case.says in migrate.text()
    wait_until(lambda: database.refused, "the database is refused")
    assert USER.encode() not in database.heard
    assert PASSWORD.encode() not in database.heard


def test_a_database_that_offers_no_tls_hears_nothing(start: Start):
    """Who stands between cannot talk us out of TLS."""
    with Impostor(None, lambda c: mysql(c, offers_tls=False)) as database:
        migrate = start("migrate", database.port)
        assert migrate.wait() == 1
    assert "SSL is required" in migrate.text()
    assert database.heard == b""


def test_the_right_database_hears_the_account(
    start: Start, authorities: tuple[Authority, Authority]
):
    """The same server with the right certificate gets the account."""
    with Impostor(authorities[0].server(), mysql) as database:
        start("migrate", database.port)
        wait_until(lambda: PASSWORD.encode() in database.heard, "the account arrives")
