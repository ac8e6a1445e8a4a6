"""The processes at the other end of a measurement, and the ceilings; each prints one JSON object.

A ceiling is the driver that we use too, doing what cannot be left out and nothing else.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from raven_reader.outbox import SpoolOutbox
from ravenbus.health import Health
from ravenbus.metrics import PublisherMetrics
from ravenbus.mqtt import Broker
from ravenbus.publisher import Entry, Publisher
from ravenbus.settings import MqttUrl


def drain(url: str, client_id: str, topic: str, expected: str, window: str) -> None:
    """Receive and acknowledge what a session holds, from the first message to the last."""
    left = int(expected)
    first = last = 0.0
    done = threading.Event()
    subscribed = threading.Event()

    def on_message(client: Client, _data: Any, message: MQTTMessage) -> None:
        nonlocal left, first, last
        client.ack(message.mid, message.qos)
        left -= 1
        last = time.perf_counter()
        first = first or last
        if left <= 0:
            done.set()

    client = connected(url, client_id, window=int(window), session_s=3600)
    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    client.subscribe(topic, qos=1)
    client.loop_start()
    if int(expected):
        _require(done.wait(120), "the messages did not come")
    else:
        _require(subscribed.wait(10), "the broker does not answer the subscription")
    client.disconnect()
    client.loop_stop()
    print(json.dumps({"seconds": last - first}))


def listen(url: str, topic: str) -> None:
    """Take what is published until the process is ended, so that PUBACK has reason 0."""
    client = connected(url, "bench-listener")
    client.subscribe(topic, qos=1)
    client.loop_forever()


def load(url: str, spool: str, window: str) -> None:
    """Publish a spool's entries from memory with bare paho: first publish to last PUBACK.

    Each PUBACK sends the next message from paho's own thread, the fastest of the ways tried.
    """
    entries = _entries(spool)
    waiting = iter(entries)
    left = len(entries)
    done = threading.Event()
    taken = 0

    def publish(client: Client) -> None:
        if entry := next(waiting, None):
            client.publish(entry.topic, entry.payload, qos=1)

    def on_publish(client: Client, _data: Any, _mid: int, reason: Any, _more: Any) -> None:
        nonlocal left, taken
        left -= 1
        taken += reason.value == 0
        publish(client)
        if left == 0:
            done.set()

    client = connected(url, "bench-load")
    client.on_publish = on_publish
    start = time.perf_counter()
    for _ in range(int(window)):
        publish(client)
    client.loop_start()
    _require(done.wait(120), "the PUBACKs did not come")
    seconds = time.perf_counter() - start
    client.disconnect()
    client.loop_stop()
    print(json.dumps({"seconds": seconds, "taken": taken}))


class _Timed(SpoolOutbox):
    """Says when the first entry was asked for and when the last was taken."""

    def __init__(self, path: Path, ended: Callable[[], None]) -> None:
        super().__init__(path, metrics=PublisherMetrics())
        self.left, _ = self.depth()
        self.count = 0
        self.first_at = self.last_at = 0.0
        self._ended = ended

    def entries(self, after: int, limit: int) -> list[Entry]:
        self.first_at = self.first_at or time.perf_counter()
        return super().entries(after, limit)

    def taken(self, keys: list[int]) -> None:
        super().taken(keys)
        self.count += len(keys)
        self.last_at = time.perf_counter()
        if self.count == self.left:
            self._ended()


def publisher(url: str, spool: str, window: str) -> None:
    """Publish a spool as the reader does: first entry taken from it to last one taken."""
    stop = threading.Event()
    outbox = _Timed(Path(spool), stop.set)
    broker = Broker(MqttUrl(url), "bench-publisher")
    Publisher(broker, outbox, Health(), PublisherMetrics(), window=int(window)).run(stop)
    print(json.dumps({"seconds": outbox.last_at - outbox.first_at, "taken": outbox.count}))


def send(url: str, spool: str) -> None:
    """Publish a spool's entries quickly; what the recorder's bench fills the sessions with."""
    load(url, spool, "200")


def _entries(spool: str) -> list[Entry]:
    outbox = SpoolOutbox(Path(spool), metrics=PublisherMetrics())
    count, _ = outbox.depth()
    entries = outbox.entries(0, count)
    outbox.close()
    return entries


def connected(url: str, client_id: str, *, window: int = 1000, session_s: int = 0) -> Client:
    """Return a connected client that has had its CONNACK."""
    place = MqttUrl(url)
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=MQTTProtocolVersion.MQTTv5,
        manual_ack=session_s > 0,
    )
    # What is under way is bounded by the caller, as it is in ravenbus.mqtt.
    client.max_inflight_messages_set(65535)
    client.username_pw_set(place.username, place.password)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = window
    properties.SessionExpiryInterval = session_s
    answered = threading.Event()
    client.on_connect = lambda *_: answered.set()
    client.connect(*place.addresses[0], clean_start=session_s == 0, properties=properties)
    while not answered.is_set():
        client.loop(0.1)
    return client


def _require(fact: bool, otherwise: str) -> None:
    if not fact:
        raise SystemExit(otherwise)


ROLES: dict[str, Callable[..., None]] = {
    "drain": drain,
    "listen": listen,
    "load": load,
    "publisher": publisher,
    "send": send,
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])
