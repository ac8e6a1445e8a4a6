"""What a backup keeps of a store: files in a folder, from which the store is made again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from ravenbus import archives
from ravenbus.errors import FatalError

ARCHIVE: Final = "archive"
"""Folder in a copy with the months that left the store."""
SUFFIX: Final = ".csv.gz"
AT_ONCE: Final = 1000
"""Rows in memory, or fewer if those have more than PAGE_MAX characters."""
PAGE_MAX: Final = 2**23
ROW_MAX: Final = archives.LINE_MAX // 2
"""Characters of a row, each of which may take two in a file."""

Counts = dict[str, int]
"""Rows of each table, or documents of each collection."""


class Copied(NamedTuple):
    """What was copied, and what is wrong with files of the archive."""

    counts: Counts
    faults: list[str]


class Copying(Protocol):
    """A store that can be copied while services work, and filled while none does.

    Raises RetryableError for a store that is away or busy, FatalError for what will not get better.
    """

    name: str

    def save(self, folder: Path) -> Copied:
        """Put everything into a folder that is there and empty, as it is at one time."""

    def obstacle(self) -> str | None:
        """Say what the store has that ``load`` would replace."""

    def load(self, folder: Path) -> Counts:
        """Replace everything by what ``save`` put into a folder.

        If that is interrupted, services refuse the store until it is done again.
        """

    def close(self) -> None:
        """Close the connections, if there are any."""


class Recorded(NamedTuple):
    """A file of the archive as the store has it recorded."""

    name: str
    sha256: str


def write(folder: Path, name: str, columns: archives.Row, rows: Iterable[archives.Row]) -> int:
    """Write the rows of a table into a folder; return how many there are.

    Raise FatalError for one that is too large to be read again.
    """
    count = 0

    def counted() -> Iterator[archives.Row]:
        nonlocal count
        yield columns
        for row in rows:
            if _length(row) > ROW_MAX:
                raise FatalError(f"a row of {name} has more than {ROW_MAX:,} characters")
            count += 1
            yield row

    archives.write(_file(folder, name), counted())
    return count


def read(folder: Path, name: str) -> tuple[archives.Row, Iterator[list[archives.Row]]]:
    """Return the columns that ``write`` wrote, and its rows by pages that fit into memory."""
    lines = archives.read(_file(folder, name))
    return next(lines), _pages(lines)


def names(folder: Path) -> list[str]:
    """Return the tables of which there are files."""
    files = (file.name.removesuffix(SUFFIX) for file in folder.glob(f"*{SUFFIX}"))
    return sorted(name.replace("%2F", "/").replace("%25", "%") for name in files)


def _file(folder: Path, name: str) -> Path:
    """Return a table's file, whose name is the table's but for what a file's cannot have."""
    return folder / f"{name.replace('%', '%25').replace('/', '%2F')}{SUFFIX}"


def _pages(rows: Iterable[archives.Row]) -> Iterator[list[archives.Row]]:
    page: list[archives.Row] = []
    size = 0
    for row in rows:
        page.append(row)
        size += _length(row)
        if len(page) == AT_ONCE or size > PAGE_MAX:
            yield page
            page, size = [], 0
    if page:
        yield page


def _length(row: archives.Row) -> int:
    return sum(len(field) for field in row if field)


def save_archive(recorded: Iterable[Recorded], archive: Path | None, folder: Path) -> list[str]:
    """Copy the files of the months that left a store; return what is wrong with any.

    Raise FatalError if there are some and nobody said where.
    """
    faults = []
    for name, sha256 in recorded:
        if archive is None:
            raise FatalError("months left the store, and nothing says where their files are")
        if Path(name).name != name:
            faults.append(f"{name}: it is not in the archive's folder")
        elif fault := archives.altered(archive / name, sha256):
            faults.append(f"{name}: {fault}")
        else:
            into = folder / ARCHIVE
            into.mkdir(exist_ok=True)
            copy(archive / name, into / name)
    return faults


def load_archive(folder: Path, archive: Path | None) -> None:
    """Put the files of the months into the archive's folder; one that says something else is kept.

    Raise FatalError if there are some and nobody said where.
    """
    for file in sorted((folder / ARCHIVE).glob("*")):
        if archive is None:
            raise FatalError("the backup has files of months, and nothing says where they belong")
        archive.mkdir(parents=True, exist_ok=True)
        path = archive / file.name
        part = path.with_name(f"{path.name}.part")
        copy(file, part)
        archives.publish(part, path)
        for made in archive.glob(f"{file.name}*"):
            give_as(archive, made)


def put(file: Path, data: bytes) -> None:
    """Write a file, and return when the disk has it."""
    with file.open("wb") as writing:
        writing.write(data)
        writing.flush()
        os.fsync(writing.fileno())


def copy(source: Path, target: Path) -> None:
    """Copy a file, and return when the disk has it."""
    with source.open("rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing)
        writing.flush()
        os.fsync(writing.fileno())


def sync_names(folder: Path) -> None:
    """Return when the disk has the names of all that is in a folder."""
    for inside in (folder, *(one for one in folder.rglob("*") if one.is_dir())):
        archives.sync_names(inside)


def give_as(folder: Path, made: Path) -> None:
    """Have a file belong to whom its folder belongs to, where root made it for a service."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(made, owner.st_uid, owner.st_gid)
