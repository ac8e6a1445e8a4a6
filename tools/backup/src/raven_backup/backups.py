"""The folder of backups: each is a folder of its own, under its name when it is whole."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from raven_backup.manifest import FILE
from ravenbus import archives, copies
from ravenbus.errors import FatalError, RetryableError

NAME: Final = "%Y-%m-%dT%H-%M-%SZ"
OURS: Final = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]-[0-9][0-9]-[0-9][0-9]Z"
"""Such a name; whatever else is in the folder is somebody's own."""
PART: Final = ".part"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one that makes backups there; raise RetryableError if another one does.

    What an interrupted one left is removed.
    """
    if (folder / FILE).is_file():
        raise FatalError(f"{folder} is a backup itself: name the folder where it is")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / ".lock", "w", opener=_open_no_link) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RetryableError(f"another backup to {folder} is under way") from error
        for left in folder.glob(f"{OURS}{PART}"):
            shutil.rmtree(left)
        yield


@contextmanager
def begun(folder: Path, at: datetime) -> Iterator[Path]:
    """Lend a new folder, which becomes the backup of that time at the end, or is gone.

    Raise FatalError if it would not be the newest, which a restore takes and ``thin_out`` keeps.
    """
    name = at.strftime(NAME)
    if (there := newest_last(folder)) and name <= there[-1].name:
        raise FatalError(
            f"it is {name}, and there is {there[-1]}: set this machine's clock, or move that away"
        )
    part = folder / f"{name}{PART}"
    part.mkdir(mode=0o700)
    try:
        yield part
        copies.sync_names(part)
        part.rename(part.with_suffix(""))
        archives.sync_names(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def newest_last(folder: Path) -> list[Path]:
    """Return the whole backups of a folder by their age, or the folder itself if it is one."""
    if (folder / FILE).is_file():
        return [folder]
    return sorted(file.parent for file in folder.glob(f"{OURS}/{FILE}"))


def thin_out(folder: Path, keep: int) -> list[Path]:
    """Remove the oldest backups but so many; return those."""
    gone = newest_last(folder)[:-keep]
    for one in gone:
        # What is removed half is no backup, also after a power cut.
        part = one.rename(one.with_name(f"{one.name}{PART}"))
        archives.sync_names(folder)
        shutil.rmtree(part)
    return gone


def _open_no_link(path: str, flags: int) -> int:
    """Open a file in a folder where others may have put a link to a file that is not theirs."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
