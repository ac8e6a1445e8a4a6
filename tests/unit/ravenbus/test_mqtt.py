"""What a connection says to a broker that takes the standard at its word."""

from __future__ import annotations

import re
import socket
import threading
from queue import SimpleQueue

import pytest
from paho.mqtt.client import MQTTMessage

from ravenbus.errors import BrokerAwayError
from ravenbus.mqtt import (
    PACKET_MIN,
    QOS_0_BYTES,
    QOS_0_MAX,
    Broker,
    Denied,
    Published,
    Will,
    _PahoConnection,
)
from ravenbus.settings import MqttUrl

RECEIVE_MAXIMUM = 5
CONNECT, PUBLISH, SUBSCRIBE = 1, 3, 8


class StrictBroker:
    """Answers PUBLISH packets when no other has come for a while, and counts what waits."""

    def __init__(self, properties: bytes, then: bytes = b"") -> None:
        self.most = 0
        self.retained = 0
        self.granted = 1
        self._properties = properties
        self._then = then
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
                    kind, flags = came[0] >> 4, came[0] & 0xF
                    body, came = came[2 : 2 + came[1]], came[2 + came[1] :]
                    if kind == CONNECT:
                        told = self._properties
                        size = bytes([3 + len(told), 0, 0, len(told)])
                        connection.sendall(b"\x20" + size + told + self._then)
                    elif kind == PUBLISH:
                        start = 2 + int.from_bytes(body[:2])
                        waiting.append(body[start : start + 2])
                        self.retained += flags & 1
                        self.most = max(self.most, len(waiting))
                    elif kind == SUBSCRIBE:
                        connection.sendall(b"\x90\x04" + body[:2] + bytes([0, self.granted]))

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()


def test_no_more_is_under_way_than_the_broker_takes():
    """Whatever is published at once: a broker may end the connection for one message too many."""
    broker = StrictBroker(bytes([0x21, 0, RECEIVE_MAXIMUM]))
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


def test_what_a_broker_lacks_is_known_from_its_first_answer(caplog):
    """It retains nothing, and is sent nothing to retain; it shares no subscriptions."""
    broker = StrictBroker(bytes([0x25, 0, 0x2A, 0]))
    connection = Broker(broker.url, "c")(SimpleQueue())
    assert not connection.can_share
    connection.publish("t", b"x", retain=True)
    connection.close()
    broker.close()
    assert broker.retained == 0
    assert "retains nothing" in caplog.text


def test_a_cluster_is_connected_to_where_somebody_answers():
    """Nodes are tried in turn, and if none answers it is said of each."""
    broker = StrictBroker(b"")
    (place,) = broker.url.addresses
    nodes = Broker(MqttUrl(f"mqtt://127.0.0.1:1,127.0.0.1:{place.port},127.0.0.1:2"), "c")
    nodes(SimpleQueue()).close()
    broker.close()
    with pytest.raises(BrokerAwayError) as caught:
        nodes(SimpleQueue())
    said = re.findall(r"cannot reach mqtt://127.0.0.1:(\d+): .*?refused", str(caught.value))
    assert said == ["2", "1", str(place.port)]


def test_nothing_of_a_node_that_is_refused_is_taken_for_the_next_ones():
    """A message of another session has an id that is another message's here."""
    message = b"\x32\x06\0\x01t\0\x01\0"
    told = b"\x27" + (PACKET_MIN - 1).to_bytes(4)
    refused, good = StrictBroker(told, message), StrictBroker(b"")
    (first,), (second,) = refused.url.addresses, good.url.addresses
    events: SimpleQueue = SimpleQueue()
    connection = Broker(MqttUrl(f"mqtt://{first},{second}"), "c")(events)
    assert events.empty()
    connection.close()
    refused.close()
    good.close()


def test_a_broker_that_acknowledges_nothing_is_refused():
    """Where QoS 1 is missing nobody could tell what arrived."""
    broker = StrictBroker(bytes([0x24, 0]))
    with pytest.raises(BrokerAwayError, match="QoS 0 alone"):
        Broker(broker.url, "c")(SimpleQueue())
    broker.close()


def test_a_subscription_that_is_granted_with_less_than_asked_is_refused():
    """A broker that grants QoS 0 would send what nobody acknowledges, and keep nothing."""
    broker = StrictBroker(b"")
    broker.granted = 0
    events: SimpleQueue = SimpleQueue()
    connection = Broker(broker.url, "c")(events)
    connection.subscribe(["t"])
    says = "the broker grants a subscription with QoS 0 alone, where nothing is acknowledged"
    with pytest.raises(BrokerAwayError, match=says):
        connection.settle()
    assert isinstance(denied := events.get(timeout=10), Denied)
    assert says in denied.detail
    connection.close()
    broker.close()


def test_a_broker_that_takes_no_confirmation_is_refused():
    """It says how much has to fit; a byte more, and it is used."""
    broker = StrictBroker(b"\x27" + (PACKET_MIN - 1).to_bytes(4))
    with pytest.raises(BrokerAwayError, match="refuses: it takes 1023 bytes at once: needed are"):
        Broker(broker.url, "c")(SimpleQueue())
    broker.close()
    broker = StrictBroker(b"\x27" + PACKET_MIN.to_bytes(4))
    Broker(broker.url, "c")(SimpleQueue()).close()
    broker.close()


def qos_0(payload: bytes, qos: int = 0) -> MQTTMessage:
    message = MQTTMessage(mid=7, topic=b"t")
    message.payload, message.qos = payload, qos
    return message


@pytest.mark.parametrize(
    ("payload", "most"), [(b"", QOS_0_MAX), (b"x" * (QOS_0_BYTES // 8 - 1), 8)]
)
def test_what_comes_with_qos_0_is_bounded_by_number_and_bytes(caplog, payload, most):
    """What finds no room is counted each time, and logged once; QoS 1 comes in all the same."""
    dropped: list[None] = []
    events: SimpleQueue = SimpleQueue()
    broker = Broker(MqttUrl("mqtt://broker"), "c", dropped=lambda: dropped.append(None))
    connection = _PahoConnection(broker, events)
    bring = connection._client.on_message
    for _ in range(most + 3):
        bring(connection._client, None, qos_0(payload))
    assert (events.qsize(), len(dropped)) == (most, 3)
    bring(connection._client, None, qos_0(payload, qos=1))
    assert events.qsize() == most + 1
    assert caplog.text.count("message dropped") == 1

    for _ in range(2):
        connection.acknowledge([events.get()])
    for _ in range(3):
        bring(connection._client, None, qos_0(payload))
    assert (events.qsize(), len(dropped)) == (most + 1, 4)


def test_a_broker_that_keeps_a_session_for_a_shorter_time_is_told(caplog):
    """Whoever runs it has to know how long a store may be away."""
    broker = StrictBroker(bytes([0x11, 0, 0, 1, 0x2C]))
    Broker(broker.url, "c", session_expiry_s=3600)(SimpleQueue()).close()
    broker.close()
    (record,) = caplog.records
    assert "shorter time than asked" in record.message
    assert (record.kept_s, record.asked_s) == (300, 3600)


def test_a_broker_that_refuses_a_retained_will_gets_one_that_is_not_retained():
    """The refused attempt leaves no event behind that would end the next connection."""
    retained: list[bool] = []

    def serve(listener: socket.socket) -> None:
        for reason in (0x9A, 0):
            connection, _ = listener.accept()
            with connection:
                retained.append(bool(connection.recv(4096)[9] & 0x20))
                connection.sendall(bytes([0x20, 3, 0, reason, 0]))
                while connection.recv(4096):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        url = MqttUrl(f"mqtt://127.0.0.1:{listener.getsockname()[1]}")
        events: SimpleQueue = SimpleQueue()
        connection = Broker(url, "c", will=Will("status", b"gone"))(events)
        assert retained == [True, False]
        assert events.empty()
        connection.close()
        server.join(10)
