"""Conversion of messages to documents and back: exact both ways."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
from bson import Int64, json_util

from ravenbus.errors import ContractError
from ravenbus.history import DEMAND, SUMMATION
from ravenbus.messages import DeadLetter, Envelope, Reading, Run
from ravenbus.notifications import AnyNotification, Notification

Document = dict[str, Any]

T = TypeVar("T", bound=msgspec.Struct)

RUNS: Final = "runs"
DEAD_LETTER: Final = "dead_letter"
ROLLUPS: Final = {DEMAND: "demand_rollup", SUMMATION: "energy_rollup"}
DUE: Final = "rollup_due"
PROGRESS: Final = "rollup_progress"
ARCHIVE: Final = "archive"
SLOTS: Final = "slots"
SCHEMA: Final = "schema"
"""Collections beside those of the kinds."""
RESTORED: Final = "restored"
"""Field of a document that came back from the archive: when; it is in the roll-ups already."""

EXACT: Final = json_util.CANONICAL_JSON_OPTIONS.with_options(tz_aware=True, tzinfo=UTC)
"""MongoDB's Extended JSON, which keeps the types of numbers."""


def identity(hash_: str, seq: int) -> str:
    """Return a reading's ``_id``."""
    return f"{hash_}/{seq}"


def of_reading(reading: Reading) -> Document:
    """Return a reading's document, for the collection of its kind."""
    envelope = reading.envelope
    return {
        "_id": identity(envelope.hash, envelope.seq),
        **_typed(msgspec.structs.asdict(envelope)),
        "kind": reading.kind,
        **_typed(msgspec.structs.asdict(reading.notification)),
    }


def reading(document: Document) -> Reading:
    """Return the reading in a document; raise ContractError if it is none."""
    notification: Notification = _converted(document, AnyNotification)
    return Reading(_converted(document, Envelope), notification)


def as_stored(reading: Reading) -> Reading:
    """Return a reading as it comes back from a document: BSON cuts a time to the millisecond."""
    return Reading(_cut(reading.envelope), _cut(reading.notification))


def of_run(run: Run) -> Document:
    """Return a run's document, without its ``_id``, which is the hash."""
    return _typed(msgspec.structs.asdict(run))


def run(document: Document) -> Run:
    """Return the run in a document; raise ContractError if it is none."""
    found: Run = _converted(document, Run)
    return found


def of_letter(letter: DeadLetter) -> Document:
    """Return a dead letter's document."""
    document = _typed(msgspec.structs.asdict(letter))
    return {"_id": document.pop("id"), **document}


def letter(document: Document) -> DeadLetter:
    """Return the dead letter in a document; raise ContractError if it is none."""
    found: DeadLetter = _converted({"id": document["_id"], **document}, DeadLetter)
    return found


def text(document: Document) -> str:
    """Return a document as a file of the archive has it."""
    return json_util.dumps(document, json_options=EXACT)


def parsed(text: str) -> Document:
    """Return the document of a text of ``text``; raise ValueError if it is none."""
    found: Document = json_util.loads(text, json_options=EXACT)
    return found


def _typed(fields: dict[str, Any]) -> Document:
    """Return the fields with every integer as 64 bits, as BSON would choose by size."""
    return {name: _value(value) for name, value in fields.items()}


def _value(value: Any) -> Any:
    if type(value) is int:
        return Int64(value)
    if type(value) is list:
        return [_value(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return _typed(msgspec.structs.asdict(value))
    return value


def cut(time: datetime | None) -> datetime | None:
    """Return a time as BSON keeps it, to the millisecond."""
    return time and time.replace(microsecond=time.microsecond // 1000 * 1000)


def _cut(message: T) -> T:
    fine = {
        name: cut(value)
        for name in message.__struct_fields__
        if isinstance(value := getattr(message, name), datetime) and value.microsecond % 1000
    }
    return msgspec.structs.replace(message, **fine) if fine else message


def _plain(value: Any) -> Any:
    """Return a value with integers that msgspec knows for such."""
    match value:
        case Int64():
            return int(value)
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {name: _plain(item) for name, item in value.items()}
    return value


def _converted(document: Document, message: Any) -> Any:
    try:
        return msgspec.convert(_plain(document), message)
    except msgspec.ValidationError as error:
        raise ContractError("not-contract", str(error)) from error
