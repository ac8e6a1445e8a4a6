"""The buffer between paho and the network, on real sockets."""

from __future__ import annotations

import random
import select
import socket
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from ravenbus import buffered
from ravenbus.buffered import WRITE_BYTES, BufferedSocket
from ravenbus.mqtt import Broker, Received
from ravenbus.settings import MqttUrl

MESSAGES = 500


@pytest.fixture
def pair() -> Iterator[tuple[BufferedSocket, socket.socket]]:
    """A buffered socket and its peer, with room for little in between."""
    ours, peer = socket.socketpair()
    for one in (ours, peer):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    with peer:
        yield BufferedSocket(ours), peer
    ours.close()


def test_what_is_read_is_what_was_sent_whatever_is_asked_for(pair):
    """A byte at a time or more than there is: nothing is lost, repeated or put in another order."""
    ours, peer = pair
    source = random.Random(7)
    data = source.randbytes(500_000)
    sending = threading.Thread(target=peer.sendall, args=(data,))
    sending.start()
    found = bytearray()
    while len(found) < len(data):
        if not ours.pending():
            select.select([ours], [], [], 10)
        ahead = ours.pending()
        piece = ours.recv(source.choice([1, 2, 300, 100_000]))
        assert not ahead or ours.pending() == ahead - len(piece)
        found += piece
    sending.join()
    assert bytes(found) == data
    with pytest.raises(BlockingIOError):
        ours.recv(1)
    peer.close()
    assert ours.recv(1) == b""


def test_what_is_sent_arrives_though_the_network_takes_it_in_parts(pair):
    """Whoever sends is told when there is no room; what was taken before is sent all the same."""
    ours, peer = pair
    data = random.Random(8).randbytes(600_000)
    found = bytearray()

    def read() -> None:
        while piece := peer.recv(10_000):
            found.extend(piece)

    reading = threading.Thread(target=read)
    reading.start()
    refused = 0
    for at in range(0, len(data), 1000):
        while True:
            try:
                ours.send(data[at : at + 1000])
                break
            except BlockingIOError:
                refused += 1
                select.select([], [ours], [], 10)
        assert len(ours.unsent) <= WRITE_BYTES + 1000
    assert ours.unsent
    ours.close()
    reading.join()
    assert refused
    assert bytes(found) == data


class Counting:
    """A socket that counts how often the system is asked to receive and to send."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.received = self.sent = 0

    def recv(self, size: int) -> bytes:
        self.received += 1
        return self._sock.recv(size)

    def send(self, data: bytes) -> int:
        self.sent += 1
        return self._sock.send(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


def serve(listener: socket.socket, came: list[bytes]) -> None:
    """Give a client that subscribes many messages at once, and keep what it answers."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"\x20\x03\0\0\0")
        mid = connection.recv(4096)[2:4]
        messages = (b"\x32\x06\0\x01t" + n.to_bytes(2) + b"\0" for n in range(1, MESSAGES + 1))
        connection.sendall(b"\x90\x04" + mid + b"\0\x01" + b"".join(messages))
        while piece := connection.recv(4096):
            came.append(piece)


def test_paho_asks_the_system_for_many_packets_at_once(monkeypatch):
    """Also where a later paho reads in another way: then this has to be looked at."""
    counted: list[Counting] = []

    def counting(sock: socket.socket) -> BufferedSocket:
        counted.append(Counting(sock))
        return BufferedSocket(counted[-1])

    monkeypatch.setattr(buffered, "BufferedSocket", counting)
    came: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve, args=(listener, came))
        serving.start()
        events: SimpleQueue = SimpleQueue()
        url = MqttUrl(f"mqtt://127.0.0.1:{listener.getsockname()[1]}")
        connection = Broker(url, "c")(events)
        connection.subscribe(["t"])
        connection.settle()
        messages = [events.get(timeout=10) for _ in range(MESSAGES)]
        connection.acknowledge(messages)
        connection.close()
        serving.join(10)
    assert messages == [Received(n, "t", b"") for n in range(1, MESSAGES + 1)]
    answers = b"".join(b"\x40\x02" + n.to_bytes(2) for n in range(1, MESSAGES + 1))
    assert b"".join(came).startswith(answers + b"\xe0")
    (socket_,) = counted
    assert socket_.received < MESSAGES / 20
    assert socket_.sent < 10
