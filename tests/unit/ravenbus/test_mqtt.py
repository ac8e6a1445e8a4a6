"""What a connection says to a broker that takes the standard at its word."""

from __future__ import annotations

import socket
import threading
from queue import SimpleQueue

from ravenbus.mqtt import Broker, Published
from ravenbus.settings import MqttUrl

RECEIVE_MAXIMUM = 5
CONNECT, PUBLISH = 1, 3


class StrictBroker:
    """Answers PUBLISH packets when no other has come for a while, and counts what waits."""

    def __init__(self) -> None:
        self.most = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = MqttUrl(f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(0.2)
        came, waiting = b"", list[bytes]()
        with connection:
            while True:
                try:
                    data = connection.recv(4096)
                except TimeoutError:
                    connection.sendall(b"".join(b"\x40\x02" + mid for mid in waiting))
                    waiting.clear()
                    continue
                if not data:
                    return
                came += data
                # Every packet here is shorter than 128 bytes.
                while len(came) > 1 and len(came) >= 2 + came[1]:
                    kind, body, came = came[0] >> 4, came[2 : 2 + came[1]], came[2 + came[1] :]
                    if kind == CONNECT:
                        connection.sendall(
                            b"\x20\x06\x00\x00\x03\x21\x00" + bytes([RECEIVE_MAXIMUM])
                        )
                    elif kind == PUBLISH:
                        start = 2 + int.from_bytes(body[:2])
                        waiting.append(body[start : start + 2])
                        self.most = max(self.most, len(waiting))

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()


def test_no_more_is_under_way_than_the_broker_takes():
    """Whatever is published at once: a broker may end the connection for one message too many."""
    broker = StrictBroker()
    events: SimpleQueue = SimpleQueue()
    connection = Broker(broker.url, "c")(events)
    assert connection.receive_maximum == RECEIVE_MAXIMUM
    sent = {connection.publish("t", b"%d" % number) for number in range(40)}
    answered = set()
    while answered != sent:
        event = events.get(timeout=10)
        assert isinstance(event, Published)
        answered.add(event.mid)
    connection.close()
    broker.close()
    assert broker.most == RECEIVE_MAXIMUM
