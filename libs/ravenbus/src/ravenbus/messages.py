"""Everything that travels on the bus: one struct for each kind of message, and its JSON.

A reading is an envelope (whose it is) and a notification (what the device said), flat in one
JSON object.  ``encode`` and ``decode_reading`` are each other's inverse.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from ravenbus.errors import ContractError
from ravenbus.notifications import AnyNotification, Eui64, Notification, UtcTime, kind_of

CONTRACT_VERSION: Final = 1

Version = Annotated[Literal[1], Meta(description="version of this contract")]
Node = Annotated[
    str,
    Meta(
        pattern=r"^(?!dead$)[A-Za-z0-9_-]{1,64}\Z",
        description="name of a reader in a fleet",
        extra={"allowed": "1 to 64 letters, digits, _ or -, but not dead"},
    ),
]
RunName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=r"^[^\x00-\x1f\x7f]+\Z",
        description="what the operator calls the run",
        extra={"allowed": "1 to 100 characters, none of them a control character"},
    ),
]
RunHash = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z",
        description="UUID of the run",
    ),
]
Seq = Annotated[int, Meta(ge=1, le=2**63 - 1, description="number in the run, from 1, no gaps")]


LetterId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
StoreName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z", description="client id of a store"),
]


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """Whose reading it is: ``(hash, seq)`` is its identity; ``received`` the reader's clock."""

    v: Version = CONTRACT_VERSION
    node: Node
    run: RunName
    hash: RunHash
    seq: Seq
    received: Annotated[UtcTime, Meta(description="the reader's clock, UTC, RFC 3339 with Z")]


class Reading(msgspec.Struct, frozen=True):
    """A notification that a reader accepted, with its identity."""

    envelope: Envelope
    notification: Notification

    @property
    def kind(self) -> str:
        """The notification's kind on the bus."""
        return kind_of(self.notification)

    @property
    def node(self) -> str:
        """The node of the reader."""
        return self.envelope.node


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The run under way at a node; ``meter`` from the first reading that names one."""

    v: Version = CONTRACT_VERSION
    node: Node
    run: RunName
    hash: RunHash
    started: UtcTime
    meter: Eui64 | None = None


ClockState = Literal["right", "unset", "off", "host-behind"]
"""The stick's clock is right, not set, or off; or it is the reader's machine that is behind."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """State of a node: its reader (``service``) and its stick (``device``), since when.

    ``clock`` is `right`, or what is wrong: the stick's clock is `unset` or `off`, and readings go
    by the reader's, or the reader's machine is behind (`host-behind`), and they go by the stick's.
    It is null until the stick's clock shows; ``clock_ahead_s`` says how far that was ahead then.
    ``waiting`` and ``behind`` are of the last minute, and null before the first.
    """

    v: Version = CONTRACT_VERSION
    node: Node
    service: Literal["online", "offline"]
    device: Literal["connected", "silent", "disconnected"]
    since: UtcTime
    port: str | None = None
    detail: str | None = None
    clock: ClockState | None = None
    clock_ahead_s: Annotated[float, Meta(description="seconds")] | None = None
    version: (
        Annotated[str, Meta(max_length=64, description="release of the reader, from 1.1 on")] | None
    ) = None
    waiting: (
        Annotated[int, Meta(ge=0, description="entries of the spool that nobody has taken yet")]
        | None
    ) = None
    behind: (
        Annotated[
            dict[StoreName, int],
            Meta(description="how many entries each store has not confirmed a minute after"),
        ]
        | None
    ) = None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be accepted or stored: the original bytes, where they came from, and why.

    ``id`` makes burying idempotent.  ``topic`` is null for what came from the serial line; a store
    notes in it the topic that all readers before version 1.1 share, where any of them may have
    sent the letter, whatever ``node`` says.
    ``payload`` is base64 in JSON; ``size`` counts the original's bytes, of which ``payload``
    holds at most the first ``DEAD_PAYLOAD_MAX``.
    """

    v: Version = CONTRACT_VERSION
    id: LetterId
    service: Annotated[str, Meta(pattern=r"^[a-z-]{1,32}\Z")]
    node: Node | None = None
    at: UtcTime
    reason: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,64}\Z", description="a code to count by")]
    detail: Annotated[str, Meta(max_length=1024)]
    topic: str | None = None
    payload: bytes
    size: Annotated[int, Meta(ge=0, le=2**63 - 1, description="bytes of the original")]


Item = Reading | Run | DeadLetter
"""What a store keeps."""


DEAD_PAYLOAD_MAX = 8 * 2**20
"""Bytes: a document of MongoDB ends at 16 MiB and base64 adds a third."""


class Confirmation(msgspec.Struct, frozen=True, kw_only=True):
    """What a store has of a node's readings and dead letters, and needs no more.

    ``runs`` has ranges of ``seq`` for each run's ``hash``, first and last included; a reading that
    the store buried is among them.  ``letters`` has the ids of dead letters of the reader's.
    """

    v: Version = CONTRACT_VERSION
    node: Node
    store: StoreName
    runs: dict[RunHash, list[tuple[Seq, Seq]]] = {}
    letters: list[LetterId] = []


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """A store is gone for good: whoever waits for it need not, once it was silent for a day.

    Retained; a store that starts removes it.
    """

    v: Version = CONTRACT_VERSION
    store: StoreName


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request to the device; ``id`` comes back in the reply."""

    id: Annotated[str, Meta(max_length=64)] | None = None
    name: Annotated[str, Meta(pattern=r"^[a-z_]{1,64}\Z")]
    parameters: dict[
        Annotated[str, Meta(pattern=r"^[A-Za-z]{1,32}\Z")], Annotated[str, Meta(max_length=256)]
    ] = {}


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command: sent to the device, or refused and why.

    The device does not say which command a notification answers, so the answer itself is a
    reading like any other.
    """

    v: Version = CONTRACT_VERSION
    node: Node
    id: str | None = None
    name: str | None = None
    sent: bool
    detail: str


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """One whole fragment as the device sent it, its secrets masked."""

    v: Version = CONTRACT_VERSION
    node: Node
    received: UtcTime
    fragment: str


Message = Envelope | Run | Status | DeadLetter | Confirmation | Gone | Command | Reply | Raw

_encoder = msgspec.json.Encoder()
_envelope = msgspec.json.Decoder(Envelope)
_notification = msgspec.json.Decoder(AnyNotification)
T = TypeVar("T")


def encode(message: Reading | Message) -> bytes:
    """Return the message's JSON."""
    if isinstance(message, Reading):
        envelope = _encoder.encode(message.envelope)
        return envelope[:-1] + b"," + _encoder.encode(message.notification)[1:]
    return _encoder.encode(message)


def encode_latest(reading: Reading, heard: datetime) -> bytes:
    """Return the JSON of the last reading of its kind, with when the device said it last."""
    return encode(reading)[:-1] + b',"heard":' + _encoder.encode(heard) + b"}"


def decode_reading(payload: bytes) -> Reading:
    """Return the reading in ``payload``; raise ContractError with the reason."""
    envelope = _checked(_envelope.decode, payload)
    notification = _checked(_notification.decode, payload)
    _require_utc(envelope.received)
    for time in _times(notification):
        _require_utc(time)
    return Reading(envelope, notification)


def decode(payload: bytes, message: type[T]) -> T:
    """Return the ``message`` in ``payload``; raise ContractError with the reason."""
    decoded: T = _checked(_decoder(message).decode, payload)  # type: ignore[arg-type] # classes are hashable
    for time in _times(decoded):
        _require_utc(time)
    return decoded


def now() -> datetime:
    """Return the host's clock in UTC, to the millisecond that every store can hold."""
    clock = datetime.now(UTC)
    return clock.replace(microsecond=clock.microsecond // 1000 * 1000)


def dead_letter(
    service: str, topic: str, payload: bytes, at: datetime, error: Exception
) -> DeadLetter:
    """Return the dead letter for a message that came over the bus.

    Its id follows from topic and payload, so that a redelivery is buried once.
    """
    reason = getattr(error, "reason", "refused")
    detail = str(getattr(error, "detail", error))
    return DeadLetter(
        id=dead_letter_id(topic, payload),
        service=service,
        at=at,
        reason=reason,
        detail=detail[:1024],
        topic=topic,
        payload=payload[:DEAD_PAYLOAD_MAX],
        size=len(payload),
    )


def dead_letter_id(topic: str, payload: bytes) -> str:
    """Return the id of the dead letter for a message, whoever buries it and how often."""
    return hashlib.sha256(topic.encode() + b"\0" + payload).hexdigest()[:32]


def shortened(letter: DeadLetter, most: int) -> DeadLetter:
    """Return the letter with as much of its payload as ``most`` bytes of JSON have room for."""
    excess = len(encode(letter)) - most
    if excess <= 0:
        return letter
    kept = max(0, len(letter.payload) - excess * 3 // 4 - 3)  # base64
    return msgspec.structs.replace(letter, payload=letter.payload[:kept])


@lru_cache
def _decoder(message: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(message)


def _times(message: Any) -> list[datetime]:
    values = (getattr(message, name) for name in message.__struct_fields__)
    return [value for value in values if isinstance(value, datetime)]


def _require_utc(time: datetime) -> None:
    if time.tzinfo is not UTC:
        raise ContractError("not-contract", f"{time.isoformat()} is not UTC: allowed is …Z")


class _Header(msgspec.Struct):
    v: int = CONTRACT_VERSION


_header = msgspec.json.Decoder(_Header)


def _checked(decode: Any, payload: bytes) -> Any:
    try:
        return decode(payload)
    except msgspec.ValidationError as error:
        raise _not_contract(payload, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContractError("not-json", str(error)) from error
    except RecursionError as error:
        raise ContractError("not-json", "nested too deeply") from error


def _not_contract(payload: bytes, error: msgspec.ValidationError) -> ContractError:
    try:
        version = _header.decode(payload).v
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        version = CONTRACT_VERSION
    if version != CONTRACT_VERSION:
        detail = f"contract version {version}: this program reads version {CONTRACT_VERSION}"
        return ContractError("contract-version", detail)
    return ContractError("not-contract", str(error))
