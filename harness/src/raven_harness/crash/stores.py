"""Contents of each store: while the system runs, which readings; at the end, all their fields."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import pymysql  # type: ignore[import-untyped]
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymysql.cursors import SSCursor  # type: ignore[import-untyped]

from raven_harness.crash.hostile import ACCOUNT
from raven_harness.crash.verdict import Copy, Letters, Sent
from ravenbus.notifications import KINDS
from ravensql import readings, rows
from ravensql.settings import MysqlUrl

AWAY: Final = (PyMongoError, pymysql.err.Error, OSError)
"""Exceptions that a store raises when it cannot be asked now."""
TIMEOUT_S: Final = 20
COMPARE_S: Final = 120
ASKED: Final = 2000
"""Readings looked for at once."""
SECANTUS_ASKED: Final = 100
"""SecantusDB's ``$in`` takes a time that grows with the square of what it finds."""
_ENCODER: Final = msgspec.json.Encoder(order="sorted", enc_hook=int)
"""Drivers have integers of their own."""
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


class Store(Protocol):
    """One store; every call may raise one of AWAY."""

    name: str

    def has(self, run: str, seqs: Sequence[int]) -> set[int]:
        """Return those of the numbers that are stored."""

    def copies(self, run: str) -> Iterator[Copy]:
        """Yield every reading that is stored of the run."""

    def letters(self) -> Letters:
        """Return the dead letters, without those of the hostile home's."""

    def close(self) -> None:
        """Give back the connections."""


class Sql:
    """The store that the writer fills."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._url = MysqlUrl(url)

    def has(self, run: str, seqs: Sequence[int]) -> set[int]:
        """Return those of the numbers that are stored."""
        query = " UNION ALL ".join(
            f"SELECT seq FROM {table} WHERE hash = %(run)s AND seq IN %(seqs)s"  # noqa: S608 - ours
            for table in rows.COLUMNS
        )
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(query, {"run": run, "seqs": list(seqs)})
            return {seq for (seq,) in cursor.fetchall()}

    def copies(self, run: str) -> Iterator[Copy]:
        """Yield every reading that is stored of the run."""
        with self._connect() as connection:
            for table in rows.COLUMNS:
                query = f"SELECT {readings.selected(table)} FROM {table} WHERE hash = %s"  # noqa: S608 - ours
                with connection.cursor(SSCursor) as cursor:
                    cursor.execute(query, (run,))
                    for (text,) in cursor:
                        reading = readings.reading(table, readings.record(table, text))
                        fields = {
                            **msgspec.structs.asdict(reading.envelope),
                            **msgspec.structs.asdict(reading.notification),
                        }
                        yield copy(reading.kind, fields)

    def letters(self) -> Letters:
        """Return the dead letters."""
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id, service, reason, topic FROM dead_letter")
            return [tuple(letter) for *letter, topic in cursor.fetchall() if not _hostile(topic)]

    def close(self) -> None:
        """Give back nothing: each look has a connection of its own."""

    def _connect(self) -> Any:
        url = self._url
        account = {"user": url.user, "password": url.password, "database": url.database}
        limits = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), TIMEOUT_S)
        zone = {"init_command": "SET time_zone = '+00:00'"}
        return pymysql.connect(**url.addresses[0]._asdict(), **account, **limits, **zone)


class Mongo:
    """A store that recorders fill."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._url = url
        self._client = self._connect(2, TIMEOUT_S)
        self._db = self._client.get_default_database()

    def _connect(self, answer_s: int, limit_s: int) -> MongoClient[dict[str, Any]]:
        return MongoClient(
            self._url,
            tz_aware=True,
            serverSelectionTimeoutMS=2000,
            connectTimeoutMS=answer_s * 1000,
            socketTimeoutMS=limit_s * 1000,
        )

    def has(self, run: str, seqs: Sequence[int]) -> set[int]:
        """Return those of the numbers that are stored."""
        found: set[int] = set()
        for start in range(0, len(seqs), SECANTUS_ASKED):
            wanted = set(seqs[start : start + SECANTUS_ASKED])
            for kind in ("instantaneous_demand", *(KINDS.keys() - {"instantaneous_demand"})):
                if not wanted:
                    break
                query = {"_id": {"$in": [f"{run}/{seq}" for seq in wanted]}}
                stored = {one["seq"] for one in self._db[kind].find(query, {"seq": 1})}
                found |= stored
                wanted -= stored
        return found

    def copies(self, run: str) -> Iterator[Copy]:
        """Yield every reading that is stored of the run."""
        # A server that is busy with an hour's readings answers no heartbeat for a while.
        with self._connect(COMPARE_S, COMPARE_S) as client:
            database = client.get_default_database()
            for kind in KINDS:
                for document in database[kind].find({"hash": run}, {"_id": 0}):
                    yield copy(kind, document)

    def letters(self) -> Letters:
        """Return the dead letters."""
        found = self._db["dead_letter"].find({}, {"service": 1, "reason": 1, "topic": 1})
        return [
            (one["_id"], one["service"], one["reason"])
            for one in found
            if not _hostile(one["topic"])
        ]

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()


def _hostile(topic: str | None) -> bool:
    """Say whether the hostile home sent what was buried; no reader here uses the shared topic."""
    return topic is not None and topic.startswith((f"raven/v1/{ACCOUNT}/", "raven/v1/dead/reader"))


class Behind:
    """Readings that a store is not known to have."""

    def __init__(self) -> None:
        self._missing: list[int] = []
        self._next = 1

    def ask(self, accepted: int) -> list[int]:
        """Return the first numbers to look for, up to what is accepted."""
        self._missing += range(self._next, accepted + 1)
        self._next = max(self._next, accepted + 1)
        return self._missing[:ASKED]

    def found(self, seqs: set[int]) -> None:
        """Hear which are stored."""
        self._missing = [seq for seq in self._missing if seq not in seqs]

    def by(self, accepted: int) -> int:
        """Return how many of the first ``accepted`` readings are not known to be stored."""
        return bisect_right(self._missing, accepted) + max(0, accepted + 1 - self._next)


def stated_of_reading(message: Mapping[str, Any]) -> int:
    """Return the mark of what a reading on the bus states."""
    time = message["time"] and datetime.fromisoformat(message["time"])
    return copy(message["kind"], {**message, "time": time}).stated


def stated_in_text(root: str, fields: Mapping[str, str]) -> int:
    """Return the mark of what a fragment states."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", root).lower()
    try:
        return _mark(kind, _stated(kind, fields))
    except (KeyError, ValueError):
        return 0


def copy(kind: str, fields: Mapping[str, Any]) -> Copy:
    """Return a store's copy of a reading for comparison."""
    whole = {name: value for name, value in fields.items() if name != "kind"}
    stated = [fields.get(name) for name in ("device", "meter", "time", *_VALUES.get(kind, {}))]
    return Copy(int(fields["seq"]), _mark(kind, whole), _mark(kind, stated))


def sent(ledger: Path, kinds: Collection[str] | None = None) -> Iterator[Sent]:
    """Yield what the stick sent, of all kinds or of some, in its order, from its own ledger."""
    with ledger.open() as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            record = json.loads(line)
            if "kind" in record and (kinds is None or record["kind"] in kinds):
                kind, fields = record["kind"], record["fields"]
                at = datetime.fromisoformat(record["at"]).timestamp()
                fact = _mark(kind, _stated(kind, fields))
                flags = (record["heard"], record["whole"], record["cached"])
                yield Sent(at, fact, *flags, poison=record["fault"] == "sent")


_VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "instantaneous_demand": {"demand": "Demand", "multiplier": "Multiplier", "divisor": "Divisor"},
    "current_summation_delivered": {
        "summation_delivered": "SummationDelivered",
        "summation_received": "SummationReceived",
        "multiplier": "Multiplier",
        "divisor": "Divisor",
    },
    "price_cluster": {
        "price": "Price",
        "trailing_digits": "TrailingDigits",
        "currency": "Currency",
        "tier": "Tier",
    },
}
"""Our name of a value and the device's."""


def _stated(kind: str, fields: Mapping[str, str]) -> list[Any]:
    """Return what a report says, read from its texts without the reader's code."""
    stamp = int(fields.get("TimeStamp") or fields.get("UTCTime") or "0", 16)
    time = _EPOCH + timedelta(seconds=stamp) if stamp not in (0, 0xFFFFFFFF) else None
    return [
        _mac(fields.get("DeviceMacId")),
        _mac(fields.get("MeterMacId")) if kind != "meter_list" else None,
        time,
        *(_number(name, fields[text]) for name, text in _VALUES.get(kind, {}).items()),
    ]


def _mac(text: str | None) -> str | None:
    return text.removeprefix("0x").lower() if text else None


def _number(name: str, text: str) -> int:
    digits = text.removeprefix("0x")
    value = int(digits, 16)
    # Two's complement of the printed width (RAVEn XML API r127 p.23).
    negative = name == "demand" and value >> (4 * len(digits) - 1)
    return value - (1 << 4 * len(digits)) if negative else value


def _mark(kind: str, fields: Any) -> int:
    """Return a number that stands for all of this: the text would take a hundred times the room."""
    text = _ENCODER.encode([kind, fields])
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
