"""The buffer between paho and the network, on real sockets."""

from __future__ import annotations

import itertools
import random
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from ravenbus import buffered
from ravenbus.buffered import WRITE_BYTES, BufferedClient, BufferedSocket, Message
from ravenbus.mqtt import Broker, Received
from ravenbus.settings import MqttUrl

MESSAGES = 500
WAITING = 9
"""Messages that a client has sent and waits for."""
Came = Message | tuple[int, int, str]


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
    refused = 0
    for at in range(0, len(data), 1000):
        while True:
            try:
                ours.send(data[at : at + 1000])
                break
            except BlockingIOError:
                if not refused:
                    reading.start()  # nobody has read before, so there had to be no room
                refused += 1
                select.select([], [ours], [], 10)
        assert len(ours.unsent) <= WRITE_BYTES + 1000
    assert ours.unsent
    ours.close()
    reading.join()
    assert refused
    assert bytes(found) == data


def test_a_connection_is_not_closed_before_all_is_sent(pair):
    """A DISCONNECT that finds something unsent is not taken: paho would close at once."""
    ours, peer = pair
    ours.send(b"\x30" + b"x" * 60_000)
    with pytest.raises(BlockingIOError):
        ours.send(b"\xe0\0")
    while ours.unsent:
        peer.recv(2**16)
        with suppress(BlockingIOError):
            ours.flush()
    assert ours.send(b"\xe0\0") == 2
    ours.close()


class Pieces:
    """A socket that has received something, of which it gives a piece at a time."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.left, self._sizes = data, itertools.cycle(sizes)

    def recv(self, size: int) -> bytes:
        if not self.left:
            raise BlockingIOError
        size = min(size, next(self._sizes))
        piece, self.left = self.left[:size], self.left[size:]
        return piece

    def settimeout(self, _seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


def length_of(content: bytes) -> bytes:
    """Return a packet's length as MQTT writes it."""
    left, found = len(content), b""
    while True:
        left, last = divmod(left, 128)
        found += bytes([last | (128 if left else 0)])
        if not left:
            return found


@st.composite
def packets(draw) -> bytes:
    """A message with or without properties, or an acknowledgement."""
    if draw(st.booleans()):
        said = st.sampled_from([b"", b"\0", b"\x10", b"\x97\0", b"\0\x04\x1f\0\x01x"])
        content = draw(st.integers(1, 2 * WAITING)).to_bytes(2) + draw(said)
        return b"\x40" + length_of(content) + content
    topic = draw(st.sampled_from(["t", "raven/v1/home/raw", "ünï/\U0001f50c"])).encode()
    qos = draw(st.sampled_from([0, 1]))
    mid = draw(st.integers(1, 65535)).to_bytes(2) if qos else b""
    properties = draw(
        st.sampled_from([b"\0", b"\0", b"\0", b"\x02\x01\x01", b"\x05\x02\0\0\0\x09"])
    )
    payload = draw(st.one_of(st.binary(max_size=20), st.sampled_from([b"x" * 200, b"y" * 20_000])))
    content = len(topic).to_bytes(2) + topic + mid + properties + payload
    first = 0x30 | qos << 1 | draw(st.sampled_from([0, 1])) | draw(st.sampled_from([0, 8])) * qos
    return bytes([first]) + length_of(content) + content


def received(data: bytes, sizes: list[int], *, by_us: bool) -> list[Came]:
    """Return what a client makes of what a socket brings."""
    found: list[Came] = []
    client = BufferedClient(
        CallbackAPIVersion.VERSION2,
        protocol=MQTTProtocolVersion.MQTTv5,
        manual_ack=True,
        on_received=found.append,
    )
    client.on_publish = lambda _client, _data, mid, reason, properties: found.append(
        (mid, reason.value, str(properties))
    )
    for mid in range(1, WAITING + 1):
        client._out_messages[mid] = message = MQTTMessage(mid)
        message.qos = 1
    client._inflight_messages = WAITING
    pieces = Pieces(data, sizes)
    client._sock = sock = BufferedSocket(pieces)
    client._buffer = sock if by_us else None
    while pieces.left or sock.ahead:
        assert client.loop_read() == 0
    assert len(client._out_messages) == client._inflight_messages
    return found


@given(st.lists(packets(), max_size=12), st.lists(st.integers(1, 70_000), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_messages_and_pubacks_are_what_paho_takes_them_for(packets, sizes):
    """However what arrives is cut, and whatever stands between."""
    data = b"".join(packets)
    assert received(data, sizes, by_us=True) == received(data, sizes, by_us=False)


@pytest.mark.parametrize(
    "cut",
    [b"\x32", b"\x32\x80", b"\x32\xff\xff\xff\xff\x7f", b"\x32\x05\0\x09ab", b"\x30\x03\0\x01\xff"],
)
def test_a_message_that_is_cut_or_breaks_the_standard_is_left_to_paho(cut):
    """It decides what becomes of the connection."""
    sock = BufferedSocket(Pieces(b"\x30\x04\0\x01t\0" + cut, [70_000]))
    assert sock.recv(0) == b""
    assert list(sock.messages()) == [(0, "t", b"", 0, False)]
    assert sock.recv(100) == cut


@pytest.mark.parametrize("cut", [b"\x40", b"\x40\x02\0", b"\x40\x01\0", b"\x40\x03\0\x01\x01"])
def test_a_puback_that_is_cut_or_breaks_the_standard_is_left_to_paho(cut):
    """Also one whose reason the standard does not have."""
    sock = BufferedSocket(Pieces(b"\x40\x03\0\x07\x10" + cut, [70_000]))
    assert sock.recv(0) == b""
    assert list(sock.pubacks()) == [(7, 16)]
    assert sock.recv(100) == cut


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
