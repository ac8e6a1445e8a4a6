"""The files of an export, by the name and the format that are given."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Final

from raven_export import formats
from raven_export.columns import TIME, Column, reading_of
from raven_export.formats import CSV, FORMATS, JSONL, PARQUET, CsvWriter, JsonLinesWriter, Writer
from raven_export.legacy import Legacy
from raven_export.notes import Notes, beside, decoded
from raven_export.output import Stdout, whole
from ravenbus.errors import ContractError
from ravenbus.messages import Reading, Run

STDIO: Final = "-"

Items = Iterator[Reading | Run]


class UsageError(Exception):
    """What was asked for cannot be done; says what can."""


def format_of(file: str, given: str | None) -> str:
    """Return the format that is given, or that a file's name ends in."""
    suffix = Path(file).suffix.removeprefix(".")
    return given or (suffix if suffix in FORMATS else CSV)


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """Lend a file to write an export to; raise UsageError if it cannot be made."""
    if file == STDIO:
        yield Stdout()  # type: ignore[misc] # a writer needs no more of it
        return
    path = Path(file).resolve()  # what a link names is written, and the link stays
    if not path.parent.is_dir() or (path.exists() and not path.is_file()):
        raise UsageError(
            f"{file} cannot be written: allowed is a file in a folder that is there, or {STDIO}"
        )
    with whole(path) as found:
        yield found


def writer(format_: str, file: BinaryIO, columns: Sequence[Column]) -> Writer:
    """Return what writes a table in a format; raise UsageError if that is not installed."""
    if format_ == PARQUET:
        found: Writer = _parquet().ParquetWriter(file, columns)
        return found
    return (JsonLinesWriter if format_ == JSONL else CsvWriter)(file, columns)


@contextmanager
def items(file: str, format_: str, legacy: Legacy | None) -> Iterator[Items]:
    """Lend what is in a file, runs before their readings; ``legacy`` reads python-raven's CSV.

    Raises UsageError if it cannot be read.  What is lent raises ContractError or ValueError.
    """
    path = None if file == STDIO else Path(file)
    with ExitStack() as stack:
        try:
            if format_ == PARQUET:
                if path is None:
                    raise UsageError("Parquet is not read from standard input: name the file")
                parquet = _parquet()
                found = _items(parquet.notes(path), parquet.rows(path))
            else:
                source = stack.enter_context(path.open("rb")) if path else sys.stdin.buffer
                its_notes = path and beside(path).is_file() and decoded(beside(path).read_bytes())
                found = _of_lines(source, format_, its_notes or None, legacy, stack)
        except (OSError, ValueError) as error:
            raise UsageError(f"{file} cannot be read: {error}") from error
        yield found


def _of_lines(
    source: BinaryIO, format_: str, notes: Notes | None, legacy: Legacy | None, stack: ExitStack
) -> Items:
    if format_ == JSONL:
        return _items(notes, formats.json_rows(source))
    text = io.TextIOWrapper(source, "utf-8", newline="")
    stack.callback(text.detach)
    first = text.readline()
    lines = chain([first], text)
    if first.startswith(TIME):
        return _items(notes, formats.csv_rows(lines))
    if legacy is None:
        raise UsageError("this is no CSV of raven-export; for python-raven's own say its --node")
    return legacy.items(lines)


def _items(notes: Notes | None, rows: Iterable[dict[str, Any]]) -> Items:
    for one in notes.runs if notes else ():
        if run := one.announced():
            yield run
    for number, row in enumerate(rows, 1):
        try:
            yield reading_of(row)
        except ContractError as error:
            raise ContractError(error.reason, f"reading {number}: {error.detail}") from error


def _parquet() -> ModuleType:
    try:
        from raven_export import parquet  # noqa: PLC0415 - pyarrow is large, and may not be there
    except ModuleNotFoundError as error:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed because of its size: "
            "the extra parquet brings it; or use --format csv"
        ) from error
    return parquet
