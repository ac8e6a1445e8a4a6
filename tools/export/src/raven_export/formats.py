"""Tables as CSV and as JSON lines, written and read one row at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, BinaryIO, Final, Protocol

import msgspec

from raven_export.columns import Column, Row, Type, text_of
from raven_export.notes import Notes

CSV: Final = "csv"
JSONL: Final = "jsonl"
PARQUET: Final = "parquet"
FORMATS: Final = (CSV, JSONL, PARQUET)

_FIELD: Final = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",]*))(,|\Z)')


class Writer(Protocol):
    """Writes a table; ``has_notes`` says whether the format has room for notes."""

    has_notes: bool

    def write(self, row: Row) -> None:
        """Write a row."""

    def close(self, notes: Notes) -> None:
        """Write what is left, and the notes."""


class CsvWriter:
    """CSV that every program reads: quoted text, nothing for null, times with Z."""

    has_notes = False

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._file = file
        file.write(",".join(column.name for column in columns).encode() + b"\n")

    def write(self, row: Row) -> None:
        """Write a line, or several where a text has line ends."""
        self._file.write((",".join(map(_csv, row)) + "\n").encode())

    def close(self, notes: Notes) -> None:
        """Do nothing: every row is written."""


class JsonLinesWriter:
    """A JSON object in each line, nulls included."""

    has_notes = False

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._file = file
        self._columns = columns
        self._encode = msgspec.json.Encoder().encode

    def write(self, row: Row) -> None:
        """Write a line."""
        pairs = zip(self._columns, row, strict=True)
        line = {name: _json(value, type_) for (name, type_), value in pairs}
        self._file.write(self._encode(line) + b"\n")

    def close(self, notes: Notes) -> None:
        """Do nothing: every row is written."""


def csv_rows(lines: Iterable[str]) -> Iterator[dict[str, str | None]]:
    """Yield the rows of a CSV whose first line has the names; raise ValueError for what is none.

    An empty text is quoted, and what is empty and not quoted is None.
    """
    names: list[str] | None = None
    for number, fields in enumerate(_records(lines), 1):
        if names is None:
            names = [name or "" for name in fields]
        elif len(fields) != len(names):
            raise ValueError(f"row {number} has {len(fields)} fields and not {len(names)}")
        else:
            yield dict(zip(names, fields, strict=True))


def json_rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the rows of JSON lines; raise ValueError for what is none."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(lines, 1):
        try:
            yield decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"line {number}: {error}") from error


def _records(lines: Iterable[str]) -> Iterator[list[str | None]]:
    parts: list[str] = []
    quotes = 0
    for line in lines:
        parts.append(line)
        quotes += line.count('"')
        if quotes % 2 == 0:
            yield _fields("".join(parts).rstrip("\r\n"))
            parts, quotes = [], 0
    if parts:
        raise ValueError("the last row is not whole")


def _fields(record: str) -> list[str | None]:
    found: list[str | None] = []
    place = 0
    while match := _FIELD.match(record, place):
        quoted, bare, comma = match.groups()
        found.append(bare or None if quoted is None else quoted.replace('""', '"'))
        place = match.end()
        if not comma:
            return found
    raise ValueError(f"a quote stands where none can: {record[:100]!r}")


def _csv(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return '"' + value.replace('"', '""') + '"'
        case bool():
            return "true" if value else "false"
        case datetime():
            return text_of(value)
    return repr(value)


def _json(value: Any, type_: Type) -> Any:
    if value is None:
        return None
    if type_ is Type.JSON:
        return msgspec.Raw(value.encode())
    return text_of(value) if type_ is Type.TIME else value
