r"""A month of a table or a collection as a file: CSV in gzip, exact, and the same rows make the same file.

A line is a row, after one with the names of the columns; a time is in UTC.  As LOAD DATA of MySQL
has it, NULL is ``\N``, and a backslash, a line's end or a NUL in a text is ``\\``, ``\n``, ``\r``
or ``\0``.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Final

Row = tuple[str | None, ...]
"""The columns in text, as MySQL writes them; of a document the one column."""

UNREADABLE: Final = (OSError, EOFError, ValueError, zlib.error, csv.Error)

NULL: Final = r"\N"
_ESCAPED: Final = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\0": r"\0"}
_ESCAPES: Final = str.maketrans(_ESCAPED)
_MEANT: Final = {escape: character for character, escape in _ESCAPED.items()}
_ESCAPE: Final = re.compile(r"\\[\\nr0]")

LINE_MAX: Final = 2**26
"""Characters of a row: a body may have 1 MiB, and a TEXT of somebody else's column more."""
csv.field_size_limit(LINE_MAX)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, the names of the columns first, and return when the disk has them."""
    with path.open("wb") as file:
        # A header without name and time.
        with (
            gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
            io.TextIOWrapper(packed, "utf-8", newline="") as text,
        ):
            writer = csv.writer(text, lineterminator="\n")
            writer.writerows([_escaped(field) for field in row] for row in rows)
        file.flush()
        os.fsync(file.fileno())
        # What is read back then comes from the disk.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Path) -> Iterator[Row]:
    """Yield what ``write`` wrote; raise one of UNREADABLE for a file that is damaged."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        for fields in csv.reader(_lines(text), strict=True):
            yield tuple(map(_meant, fields))


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Yield lines, of which a few kilobytes in gzip can make gigabytes."""
    while line := text.readline(LINE_MAX):
        if len(line) == LINE_MAX:
            raise ValueError(f"a line has {LINE_MAX} characters or more")
        yield line


def compare(path: Path, rows: Iterable[Row]) -> int:
    """Return how many rows a file has, without the names of the columns.

    Raises one of UNREADABLE if it is damaged or they are not these rows.
    """
    count = -1
    for found, row in zip_longest(read(path), rows):
        if found != row:
            raise ValueError("what was read back is not what is stored")
        count += 1
    return count


def publish(part: Path, path: Path) -> str:
    """Give a file its final name and a `.sha256` beside it; return the checksum.

    A file of that name that says something else is kept under another one.
    """
    digest = sha256(part)
    if path.exists() and (other := sha256(path)) != digest:
        path.replace(f"{path}.{other[:8]}")
        sync_names(path.parent)
    part.replace(path)
    with _checksum_file(path).open("w", encoding="ascii") as file:
        file.write(_checksum_line(path, digest))
        file.flush()
        os.fsync(file.fileno())
    sync_names(path.parent)
    return digest


def sync_names(folder: Path) -> None:
    """Return when the disk has the names of a folder."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def fault(path: Path, digest: str, count: int) -> str | None:
    """Say what is wrong with a file that has to have the checksum and so many rows."""
    if wrong := altered(path, digest):
        return wrong
    try:
        if _checksum_file(path).read_text("ascii") != _checksum_line(path, digest):
            return f"{_checksum_file(path).name} has another checksum"
        found = sum(1 for _ in islice(read(path), count + 2)) - 1
    except UNREADABLE as error:
        return f"it cannot be read: {error}"
    if found > count:
        return f"it has more than {count} rows"
    return None if found == count else f"it has {found} rows and not {count}"


def altered(path: Path, digest: str) -> str | None:
    """Say why a file is not the one that has the checksum."""
    try:
        if not path.is_file():
            return "it cannot be read: there is no such file"
        if sha256(path) != digest:
            return "its checksum is not the one that was recorded"
    except OSError as error:
        return f"it cannot be read: {error}"
    return None


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _checksum_line(path: Path, digest: str) -> str:
    """Return what `sha256sum -c` reads."""
    return f"{digest}  {path.name}\n"


def _escaped(field: str | None) -> str:
    return NULL if field is None else field.translate(_ESCAPES)


def _meant(field: str) -> str | None:
    if "\\" not in field:
        return field
    return None if field == NULL else _ESCAPE.sub(lambda found: _MEANT[found[0]], field)
