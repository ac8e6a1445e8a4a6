"""What is fuzzed: bytes of a stick, and messages of the bus.  A target raises on a finding.

``python -m tests.fuzz.targets TARGET FILE…`` gives one of them the bytes of files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import bson
from pymysql.converters import encoders, escape_item

from raven_reader.acceptance import Limits
from raven_reader.commands import write
from raven_reader.framing import FRAGMENT_MAX, ROOTS
from raven_reader.intake import Accepted, Intake, Outcome, Rejected
from raven_reader.secrets import mask
from ravenbus import demand
from ravenbus.confirming import STORES_MAX, StoreListener
from ravenbus.errors import PoisonError
from ravenbus.messages import (
    Command,
    Confirmation,
    DeadLetter,
    Envelope,
    Gone,
    Item,
    Reading,
    Run,
    dead_letter,
    decode,
    encode,
)
from ravenbus.mqtt import Received, matches
from ravenbus.notifications import KINDS, Notification, kind_of
from ravenbus.storing import read
from ravenbus.topics import COMMAND, DEAD, GONE, READING, RUN, STORED, Topics
from ravenmongo import documents
from ravenmongo.database import sorted_errors
from ravensql import rows
from ravensql import sink as mysql
from tests.unit.reader.examples import EXAMPLES, NOON
from tests.unit.reader.strategies import cut_into

HEAD: Final = 4
"""Bytes before the line's own: how often it is repeated, and three sizes of pieces."""
HASH: Final = "00000000-0000-4000-8000-000000000001"
NODE: Final = "home"
MESSAGES: Final = (Envelope, Run, DeadLetter, Confirmation, Gone, Command)


class _Waiter:
    """Believes whatever it hears."""

    def confirmed(self, said: Confirmation) -> None:
        assert encode(said)

    def gone(self, stores: frozenset[str]) -> None:
        assert len(stores) <= STORES_MAX


_listener: Final = StoreListener(Topics(), _Waiter())


def framing(data: bytes) -> None:
    """Frame, decode and judge a line: bounded memory, and the same outcomes in any pieces."""
    head, line = data[:HEAD].ljust(HEAD, b"\0"), data[HEAD:]
    line *= 1 + head[0] % 8
    whole, pieces = Intake(Limits()), Intake(Limits())
    at_once = whole.feed(line, NOON)
    in_pieces: list[Outcome] = []
    for piece in cut_into(line, [1 + size for size in head[1:]]):
        in_pieces += pieces.feed(piece, NOON)
        _require_bounded(pieces)
    _require_bounded(whole)
    if len(line) <= FRAGMENT_MAX:  # what is longer is given up, and it shows when that happens
        assert list(map(_comparable, at_once)) == list(map(_comparable, in_pieces))
        for name in ("whole", "damaged"):
            assert getattr(whole.counts, name) == getattr(pieces.counts, name), name
    for outcome in in_pieces:
        assert len(mask(outcome.raw)) == len(outcome.raw)
        if isinstance(outcome, Accepted):
            _require_storable(_reading(outcome.report.notification))


def consumer(data: bytes) -> None:
    """Read a message as its receiver does: a topic in the first line, then the payload."""
    topic, _, payload = data.partition(b"\n")
    # A broker lets nothing through that is not UTF-8.
    message = Received(1, topic.decode(errors="replace"), payload)
    if matches(Topics().of(STORED, node="+", store="+"), message.topic):
        _listener.confirmed(message)
        return
    if matches(Topics().of(GONE, store="+"), message.topic):
        _listener.gone(message)
        return
    try:
        if topic.endswith(b"/command"):
            asked = decode(payload, Command)
            written = write(asked.name, asked.parameters, allow_setters=True)
            assert written.count(b"<Command>") == written.count(b"<Name>") == 1
            assert written.isascii()
            return
        item = read(Topics(), message.topic, message.payload)
    except PoisonError as error:
        item = dead_letter("sql-writer", message.topic, payload, NOON, error)
    _require_storable(item)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"framing": framing, "consumer": consumer}


def seeds(target: str) -> Iterator[bytes]:
    """Yield what fuzzing starts from: the project's examples."""
    for example in EXAMPLES:
        if target == "framing":
            yield b"\0\x07\x3f\xff" + example.xml
        else:
            topic = Topics().of(READING, node=NODE, kind=kind_of(example.meaning))
            yield topic.encode() + b"\n" + encode(_reading(example.meaning))
    if target == "consumer":
        run = Run(node=NODE, run="default", hash=HASH, started=NOON, meter="0013500100abcdef")
        yield Topics().of(RUN, node=NODE).encode() + b"\n" + encode(run)
        letter = dead_letter("reader", "t", b"poison", NOON, PoisonError("not-json", "no"))
        yield Topics().of(DEAD, service="reader").encode() + b"\n" + encode(letter)
        said = Confirmation(node=NODE, store="s", runs={HASH: [(1, 2)]}, letters=[letter.id])
        yield Topics().of(STORED, node=NODE, store="s").encode() + b"\n" + encode(said)
        asked = Command(id="1", name="get_time", parameters={"Refresh": "Y"})
        yield Topics().of(COMMAND, node=NODE).encode() + b"\n" + encode(asked)


def words(target: str) -> set[str]:
    """Return what is worth inserting."""
    tags = {f"<{name}>" for name in ROOTS.values()} | {f"</{name}>" for name in ROOTS.values()}
    if target == "framing":
        children = {tag for example in EXAMPLES for tag in example.xml.decode("cp1252").split()}
        return tags | children | {"<![CDATA[", "]]>", "&amp;", "&#0;", "0xffffffff"}
    fields = {name for kind in (*KINDS.values(), *MESSAGES) for name in kind.__struct_fields__}
    return {f'"{name}":' for name in fields} | {f'"{kind}"' for kind in KINDS}


def _reading(notification: Notification) -> Reading:
    envelope = Envelope(node=NODE, run="default", hash=HASH, seq=1, received=NOON)
    return Reading(envelope, notification)


def _comparable(outcome: Outcome) -> tuple[Any, ...]:
    said = outcome.error if isinstance(outcome, Rejected) else outcome.report.notification
    return type(outcome), outcome.raw, str(said)


def _require_bounded(intake: Intake) -> None:
    assert intake._parser.held <= FRAGMENT_MAX


def _require_storable(item: Item) -> None:
    """Require that an item survives the bus, and that each store can make of it what it keeps."""
    assert encode(item)
    if isinstance(item, Reading):
        topic = Topics().of(READING, node=item.envelope.node, kind=item.kind)
        assert read(Topics(), topic, encode(item)) == item
    else:
        assert decode(encode(item), type(item)) == item
    _require_document(item)
    with suppress(PoisonError):
        for table, columns, values in _rows(item):
            assert len(values) == len(columns), table
            for value in values:
                str(escape_item(value, "utf8mb4", encoders)).encode()


def _require_document(item: Item) -> None:
    match item:
        case Reading():
            document = documents.of_reading(item)
        case DeadLetter():
            document = documents.of_letter(item)
        case Run():
            document = documents.of_run(item)
    with suppress(PoisonError), sorted_errors():
        stored = bson.decode(bson.encode(document), bson.CodecOptions(tz_aware=True, tzinfo=UTC))
        assert stored.keys() == document.keys()
        assert not any(name.startswith("$") for name in stored)


def _rows(item: Item) -> Iterator[tuple[str, tuple[str, ...], tuple[Any, ...]]]:
    """Yield what the writer inserts: table, columns and values."""
    match item:
        case Reading():
            table, values = rows.reading_row(item)
            yield table, rows.IDENTITY + rows.COLUMNS[table], values
            for sample in demand.samples([item]):
                yield "rollup", sample._fields[:3], sample[:3]
        case DeadLetter():
            yield "dead_letter", rows.LETTER_COLUMNS, rows.letter_row(item, 2**20)
    if not isinstance(item, DeadLetter):
        readings = [item] if isinstance(item, Reading) else []
        for run in mysql._said_of_runs(readings, [] if readings else [item]):
            yield "run_info", run._fields, run


if __name__ == "__main__":
    for name in sys.argv[2:]:
        TARGETS[sys.argv[1]](Path(name).read_bytes())
        print(f"{name}: nothing found")
