"""One connection to an MQTT 5 broker: with ``buffered`` the only module that knows paho.

A ``Connection`` lives for one network connection (an epoch) and is then thrown away.
paho would otherwise send unacknowledged messages again on its own after a reconnect, and an
acknowledgement for a message of an older epoch can delete another message.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import pbkdf2_hmac
from itertools import cycle
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from ravenbus.buffered import BufferedClient, Message
from ravenbus.errors import BrokerAwayError
from ravenbus.logs import Sparse
from ravenbus.optional import hidden
from ravenbus.settings import Address, MqttSettings, MqttUrl

# It imports this where it is installed, 3 MB, for brokers that are looked for by SRV records.
with hidden("dns"):
    from paho.mqtt.client import Client, topic_matches_sub

log = logging.getLogger(__name__)

TAKEN_OVER = 0x8E
"""Reason of a DISCONNECT: another client came with the same client id."""
NO_SUBSCRIBERS = 0x10
"""Reason of a PUBACK: the broker had nobody to give the message to."""
NOT_AUTHORIZED = 0x87
"""Reason of a PUBACK: the account may not write there."""
TOO_LARGE = 0x95
"""Reason for a packet beyond what the broker takes, which is not sent: it would end the connection."""
REFUSED = 0x80
"""Reasons from here on are errors."""
NO_RETAIN, NO_QOS = 0x9A, 0x9B
"""Reasons of a CONNACK: the broker retains no will, or has no such QoS for it."""
QOS_0_ALONE = "QoS 0 alone, where nothing is acknowledged: needed is QoS 1"
DEFAULT_RECEIVE_MAXIMUM = 65535
"""Value that holds if a CONNACK lacks the property (MQTT 5.0, 3.2.2.3.3)."""
DEFAULT_PACKET_MAX = 268_435_455
"""The largest packet that there is (MQTT 5.0, 2.1.4)."""
PACKET_MIN = 1024
"""Bytes that a broker has to take, for the shortest confirmation and dead letter to fit."""
QOS_0_MAX = 10_000
QOS_0_BYTES = 16 * 2**20
"""Most messages with QoS 0 that wait in memory, and most bytes of them.

A broker sends as many as it likes, and what reads them from the network cannot wait: it sends the
acknowledgements, too.
"""
PACKET_RESERVE = 256
"""Bytes that a packet has beside its payload: the topic and MQTT's own."""
KEY_ROUNDS = 100_000
"""So many times the work to try a password, for whoever learns a client id from the broker's log."""
KEEPALIVE_S = 30
OPEN_TIMEOUT_S = 5.0


class Received(NamedTuple):
    """A message that arrived and waits for its acknowledgement."""

    mid: int
    topic: str
    payload: bytes
    qos: int = 1
    retained: bool = False


class Published(NamedTuple):
    """A PUBACK and its reason."""

    mid: int
    reason: int


class Lost(NamedTuple):
    """The connection ended; ``taken_over`` if another client took the client id."""

    detail: str
    taken_over: bool


NETWORK_ENDED = Lost("the network thread has ended without a word", taken_over=False)
"""For a connection that is not ``alive`` and whose events are all read."""


class Denied(NamedTuple):
    """The broker refuses a subscription: nothing will come from it."""

    detail: str


class Wake(NamedTuple):
    """Something else than the broker wants attention."""


Event = Received | Published | Lost | Denied | Wake
Events = SimpleQueue[Event]


class Connection(Protocol):
    """The part of a connection that publisher and consumer need; a test brings its own."""

    at: str
    """The address of the broker."""
    receive_maximum: int
    packet_max: int
    """Bytes of the largest packet that the broker takes."""
    can_share: bool
    """True if the broker has shared subscriptions; one without them may grant them all the same."""
    taken_over: bool
    session_present: bool
    """True if the broker still had the session; what it holds comes by itself."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send with QoS 1 and return the message's id; its PUBACK comes as ``Published``.

        So does the refusal of what is larger than ``packet_max``, with the reason TOO_LARGE.
        """

    def tell(self, topic: str, payload: bytes) -> None:
        """Send with QoS 0, which nobody answers."""

    def subscribe(self, topics: list[str]) -> None:
        """Subscribe with QoS 1; messages come as ``Received``."""

    def unsubscribe(self, topics: list[str]) -> None:
        """Unsubscribe; what the session was given before still comes."""

    def settle(self) -> None:
        """Wait until the broker has granted what was subscribed and unsubscribed.

        Every message that the broker sent before its answer is then among the events.
        Raise BrokerAwayError if it refuses, does not answer, or is gone.
        """

    def acknowledge(self, messages: Sequence[Received]) -> None:
        """Say that messages are done with, in order: send the PUBACKs, and make room for others."""

    def alive(self) -> bool:
        """Say whether anything still reads from the network."""

    def close(self, *, end_session: bool = False) -> None:
        """Send what is queued, then DISCONNECT, and wait a moment for both.

        With ``end_session`` the broker forgets the session and what it holds.
        """


class Connect(Protocol):
    """Opens one connection whose events go to a queue."""

    def __call__(self, events: Events) -> Connection:
        """Return the open connection; raise BrokerAwayError with the reason."""


def matches(topic_filter: str, topic: str) -> bool:
    """Say whether a subscription to a filter brings what is sent to a topic."""
    return topic_matches_sub(topic_filter, topic)


def puback_name(reason: int) -> str:
    """Return what the standard calls a PUBACK's reason, as in ``Not authorized``."""
    kind = PacketTypes.DISCONNECT if reason == TOO_LARGE else PacketTypes.PUBACK
    return str(ReasonCode(kind, identifier=reason))


class Will(NamedTuple):
    """Retained message that the broker publishes when the connection ends without a DISCONNECT."""

    topic: str
    payload: bytes


@dataclass(frozen=True)
class Broker:
    """Connection settings of one client: a ``Connect`` for a publisher or a consumer.

    A broker gives a session to whoever asks for its client id, so with a password the id that it
    is told has a part that follows from that; ``client_id`` is the part that people see.
    ``session_expiry_s`` 0 is a session that ends with the connection; otherwise the session is
    resumed.  ``receive_maximum`` bounds what the broker sends without an acknowledgement;
    ``dropped`` is called for each message with QoS 0 that there is no room for.
    """

    url: MqttUrl
    client_id: str
    tls: ssl.SSLContext | None = None
    session_expiry_s: int = 0
    receive_maximum: int = 100
    will: Will | None = None
    secret: bool = True
    dropped: Callable[[], None] = lambda: None
    _addresses: Iterator[Address] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_addresses", cycle(self.url.addresses))

    @property
    def told(self) -> str:
        """The client id that the broker is told."""
        password = self.url.password if self.secret else None
        return f"{self.client_id}-{_key(password, self.client_id)}" if password else self.client_id

    @property
    def former(self) -> Broker | None:
        """The client as versions before 1.1 knew it, None where that is the same."""
        return replace(self, secret=False) if self.url.password else None

    @classmethod
    def of(cls, settings: MqttSettings, client_id: str, **options: Any) -> Broker:
        """Return the broker that the settings name."""
        return cls(settings.mqtt_url, client_id, settings.tls_context(), **options)

    def __call__(self, events: Events) -> Connection:
        """Connect to the next address that answers; raise BrokerAwayError that says why none did."""
        problems = []
        for _ in self.url.addresses:
            try:
                return self._checked(self._opened(events, next(self._addresses)))
            except BrokerAwayError as error:
                problems.append(str(error))
                # What that one said would be taken for the next one's.
                while not events.empty():
                    events.get_nowait()
        raise BrokerAwayError("; ".join(problems))

    def _opened(self, events: Events, address: Address) -> _PahoConnection:
        """Connect to an address, without a retained will if it retains none."""
        connection = _PahoConnection(self, events)
        try:
            connection.open(address)
        except BrokerAwayError:
            if connection.can_retain:
                raise
            connection = _PahoConnection(self, events, can_retain=False)
            connection.open(address)
        return connection

    def _checked(self, connection: _PahoConnection) -> Connection:
        """Return the connection after saying what its broker lacks."""
        if not connection.can_retain:
            log.warning("the broker retains nothing: who comes later sees no last readings")
        if connection.session_expiry_s < self.session_expiry_s:
            log.warning(
                "the broker keeps messages for a client that is away for a shorter time than asked",
                extra={"kept_s": connection.session_expiry_s, "asked_s": self.session_expiry_s},
            )
        return connection


@lru_cache
def _key(password: str, client_id: str) -> str:
    """Return what only who has the password knows, and from which nobody finds the password."""
    return pbkdf2_hmac("sha256", password.encode(), client_id.encode(), KEY_ROUNDS, 8).hex()


class _PahoConnection:
    def __init__(self, broker: Broker, events: Events, *, can_retain: bool = True) -> None:
        self.at = ""
        self.receive_maximum = DEFAULT_RECEIVE_MAXIMUM
        self.packet_max = DEFAULT_PACKET_MAX
        self.can_share = True
        self.taken_over = False
        self.session_present = False
        self.can_retain = can_retain
        self.session_expiry_s = broker.session_expiry_s
        self._broker = broker
        self._events = events
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._refusal: str | None = None
        self._asked = 0
        self._unsent = 0
        self._granted = 0
        self._denied: str | None = None
        self._answer = threading.Condition()
        self._sparse = Sparse(log)
        self._qos_0_lock = threading.Lock()
        self._qos_0_count = 0
        self._qos_0_bytes = 0
        client = BufferedClient(
            CallbackAPIVersion.VERSION2,
            client_id=broker.told,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
            on_received=self._on_received,
        )
        client.connect_timeout = OPEN_TIMEOUT_S
        if broker.url.username:
            client.username_pw_set(broker.url.username, broker.url.password)
        if broker.tls:
            client.tls_set_context(broker.tls)
        if broker.will:
            client.will_set(broker.will.topic, broker.will.payload, qos=1, retain=can_retain)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = lambda _c, _d, mid, reason, _p: events.put(Published(mid, reason.value))
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = lambda _c, _d, _mid, reasons, _p: self._answered_by(reasons)
        self._client = client

    def open(self, address: Address) -> None:
        self.at = str(address)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._broker.session_expiry_s
        properties.ReceiveMaximum = self._broker.receive_maximum
        try:
            self._client.connect(
                address.host,
                address.port,
                KEEPALIVE_S,
                clean_start=self._broker.session_expiry_s == 0,
                properties=properties,
            )
        except (OSError, ValueError) as error:
            raise BrokerAwayError(
                f"cannot reach {self._broker.url.at(address)}: {error}"
            ) from error
        self._client.loop_start()
        answered = self._answered.wait(OPEN_TIMEOUT_S)
        if not answered or self._refusal:
            self._client.disconnect()
            self._client.loop_stop()
            why = f"refuses: {self._refusal}" if answered else "does not answer"
            raise BrokerAwayError(f"{self._broker.url.at(address)} {why}")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        if len(payload) > self.packet_max - PACKET_RESERVE:
            self._unsent -= 1  # no id of a message that is sent
            self._events.put(Published(self._unsent, TOO_LARGE))
            return self._unsent
        return self._client.publish(topic, payload, qos=1, retain=retain and self.can_retain).mid

    def tell(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=0)

    def subscribe(self, topics: list[str]) -> None:
        # Retained messages come with a new subscription only, not again at each connect.
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        self._asked += 1
        self._client.subscribe([(topic, options) for topic in topics])

    def unsubscribe(self, topics: list[str]) -> None:
        self._asked += 1
        self._client.unsubscribe(topics)

    def settle(self) -> None:
        with self._answer:
            self._answer.wait_for(
                lambda: self._granted == self._asked or self._denied or self._ended.is_set(),
                OPEN_TIMEOUT_S,
            )
            if self._granted != self._asked:
                why = self._denied or "the broker does not confirm a subscription"
                raise BrokerAwayError(why)

    def acknowledge(self, messages: Sequence[Received]) -> None:
        # To acknowledge what was sent with QoS 0 is a protocol error, and ends the connection.
        if mids := [message.mid for message in messages if message.qos]:
            self._client.acknowledge(mids)
        for message in messages:
            if not message.qos:
                self._keep(message, -1)

    def alive(self) -> bool:
        return self._client.alive()

    def close(self, *, end_session: bool = False) -> None:
        properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
        if end_session:
            properties.SessionExpiryInterval = 0
        self._client.disconnect(properties=properties)
        self._ended.wait(OPEN_TIMEOUT_S)
        self._client.loop_stop()

    # The callbacks run on paho's thread, which an exception would end without a word.

    def _on_connect(
        self, _client: Client, _data: Any, flags: Any, reason: Any, answer: Any
    ) -> None:
        if reason.is_failure:
            self._refusal = f"it has {QOS_0_ALONE}" if reason.value == NO_QOS else str(reason)
            self.can_retain = reason.value != NO_RETAIN
        else:
            self.session_present = flags.session_present
            self.receive_maximum = getattr(answer, "ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM)
            self._client.bound(self.receive_maximum)
            self.packet_max = getattr(answer, "MaximumPacketSize", DEFAULT_PACKET_MAX)
            self.can_share = bool(getattr(answer, "SharedSubscriptionAvailable", 1))
            self.can_retain &= bool(getattr(answer, "RetainAvailable", 1))
            self.session_expiry_s = getattr(
                answer, "SessionExpiryInterval", self._broker.session_expiry_s
            )
            if not getattr(answer, "MaximumQoS", 1):
                self._refusal = f"it has {QOS_0_ALONE}"
            if self.packet_max < PACKET_MIN:
                self._refusal = f"it takes {self.packet_max} bytes at once: needed are {PACKET_MIN}"
        self._answered.set()

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if not self._answered.is_set():
            self._refusal = str(reason)
            self._answered.set()
        self.taken_over = reason.value == TAKEN_OVER
        with self._answer:
            self._ended.set()
            self._answer.notify()
        # The events go on to the next attempt to connect if this one was refused.
        if not self._refusal:
            self._events.put(Lost(str(reason), self.taken_over))

    def _on_received(self, message: Message) -> None:
        received = Received(*message)
        if received.qos or self._keep(received, 1):
            self._events.put(received)
            return
        self._broker.dropped()
        self._sparse.warning("message dropped", "too many with QoS 0", topic=received.topic)

    def _keep(self, message: Received, change: int) -> bool:
        """Count a message with QoS 0 in, or out; return False if there is no room for it."""
        with self._qos_0_lock:
            count = self._qos_0_count + change
            size = self._qos_0_bytes + change * (len(message.topic) + len(message.payload))
            fits = change < 0 or (count <= QOS_0_MAX and size <= QOS_0_BYTES)
            if fits:
                self._qos_0_count, self._qos_0_bytes = count, size
            return fits

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, reasons: Any, _properties: Any
    ) -> None:
        if any(reason.value == 0 for reason in reasons):
            self._answered_by([], f"the broker grants a subscription with {QOS_0_ALONE}")
        else:
            self._answered_by(reasons)

    def _answered_by(self, reasons: Any, problem: str = "") -> None:
        if refused := {str(reason) for reason in reasons if reason.is_failure}:
            problem = f"the broker refuses a subscription: {', '.join(refused)}"
        with self._answer:
            if problem:
                self._denied = problem
                self._events.put(Denied(problem))
            else:
                self._granted += 1
            self._answer.notify()
