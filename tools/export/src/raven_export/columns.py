"""A reading as a row of a table, and a row as the reading that it was: pure and exact.

A table has the columns that its kinds have, by the names of the contract; a time's name ends in
``_utc``.  ``time_utc`` is the device's time, or the reader's where the device has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import inspect

from ravenbus.errors import ContractError
from ravenbus.messages import Envelope, Reading
from ravenbus.notifications import KINDS, Notification
from ravenbus.readback import time_of

Row = list[Any]
"""A value for each column: None, text (also for JSON), int, float, bool, or datetime in UTC."""


class Type(Enum):
    """What a column holds."""

    TEXT = "text"
    INTEGER = "integer"
    REAL = "real"
    BOOLEAN = "boolean"
    TIME = "time"
    JSON = "json"


class Column(NamedTuple):
    """A column's name, and the type of what it holds."""

    name: str
    type: Type


TIME: Final = "time_utc"
_ENVELOPE: Final = {"node": "node", "run": "run", "hash": "hash", "seq": "seq"} | {
    "received": "received_utc"
}
_COMMON: Final = (
    *(Column(TIME, Type.TIME), Column("kind", Type.TEXT), Column("node", Type.TEXT)),
    *(Column("meter", Type.TEXT), Column("run", Type.TEXT), Column("hash", Type.TEXT)),
    *(Column("seq", Type.INTEGER), Column("received_utc", Type.TIME)),
    *(Column("device", Type.TEXT), Column("device_time_utc", Type.TIME)),
)
_TYPES: Final[dict[type[inspect.Type], Type]] = {
    inspect.StrType: Type.TEXT,
    inspect.LiteralType: Type.TEXT,
    inspect.IntType: Type.INTEGER,
    inspect.FloatType: Type.REAL,
    inspect.BoolType: Type.BOOLEAN,
    inspect.DateTimeType: Type.TIME,
    inspect.ListType: Type.JSON,
}


class Table:
    """The columns of some kinds, and a reading's row in them."""

    def __init__(self, kinds: Sequence[str]) -> None:
        types = {column.name: column.type for column in _COMMON}
        for column in (one for kind in kinds for one in _FIELDS[kind].values()):
            # A name that kinds use for different things, as `status`, holds text.
            same = types.setdefault(column.name, column.type) == column.type
            types[column.name] = column.type if same else Type.TEXT
        self.columns: Final = [Column(*one) for one in types.items()]
        self._fields: Final = {
            kind: [
                (field, list(types).index(name), _change(type_, types[name]))
                for field, (name, type_) in _FIELDS[kind].items()
            ]
            for kind in kinds
        }

    def row(self, reading: Reading) -> Row:
        """Return a reading of one of the kinds as a row."""
        envelope, notification = reading.envelope, reading.notification
        row: Row = [None] * len(self.columns)
        row[: len(_COMMON)] = (
            *(time_of(reading), reading.kind, envelope.node, notification.meter, envelope.run),
            *(envelope.hash, envelope.seq, envelope.received),
            *(notification.device, notification.time),
        )
        for field, place, change in self._fields[reading.kind]:
            value = getattr(notification, field)
            row[place] = value if change is None or value is None else change(value)
        return row


def reading_of(row: Mapping[str, Any]) -> Reading:
    """Return the reading in a row, by the columns' names; raise ContractError if it is none.

    A value may be text, as CSV has every one, and JSON may be decoded already.
    """
    try:
        kind = row["kind"]
        if kind not in KINDS:
            raise ContractError("not-contract", f"{kind!r} is no kind of reading")
        fields = {
            field: _plain(row[column.name], column.type) for field, column in _FIELDS[kind].items()
        }
        fields |= {"device": row["device"], "meter": row["meter"]}
        fields["time"] = _plain(row["device_time_utc"], Type.TIME)
        envelope = {field: row[name] for field, name in _ENVELOPE.items()}
        envelope["received"] = _plain(envelope["received"], Type.TIME)
        notification: Notification = msgspec.convert(fields, KINDS[kind], strict=False)
        return Reading(msgspec.convert(envelope, Envelope, strict=False), notification)
    except KeyError as error:
        raise ContractError("not-contract", f"there is no column {error}") from error
    except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
        raise ContractError("not-contract", str(error)) from error


def text_of(time: datetime) -> str:
    """Return a time in UTC as text; all are equally long, which every program takes for times."""
    return f"{time:%Y-%m-%dT%H:%M:%S.%f}Z"


def _change(type_: Type, of_column: Type) -> Callable[[Any], str] | None:
    """Return what makes a field's value one of its column."""
    if type_ is Type.JSON:
        return lambda value: msgspec.json.encode(value).decode()
    return None if type_ is of_column else str


def _plain(value: Any, type_: Type) -> Any:
    if value is None:
        return None
    if type_ is Type.JSON and isinstance(value, str):
        return msgspec.json.decode(value)
    if type_ is Type.TIME:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        return time.astimezone(UTC)
    return value


def _type_of(field: inspect.Type) -> Type:
    match field:
        case inspect.Metadata(type=inner):
            return _type_of(inner)
        case inspect.UnionType(types=types):
            return next(_type_of(one) for one in types if not isinstance(one, inspect.NoneType))
    return _TYPES[type(field)]


def _fields(kind: type[Notification]) -> dict[str, Column]:
    """Return the columns of a kind's own fields."""
    every = inspect.type_info(kind).fields  # type: ignore[attr-defined] # it is a struct
    own = [field for field in every if field.name not in ("device", "meter", "time")]
    found = {}
    for field in own:
        type_ = _type_of(field.type)
        found[field.name] = Column(f"{field.name}_utc" if type_ is Type.TIME else field.name, type_)
    return found


_FIELDS: Final = {name: _fields(kind) for name, kind in KINDS.items()}
