"""What a backup says of itself: who made it, when, what is in it and the checksum of each file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from ravenbus import __version__, archives
from ravenbus.copies import Counts

FILE: Final = "manifest.json"


class Manifest(msgspec.Struct, frozen=True):
    """The file ``manifest.json``, which is written last."""

    version: str
    """The release that made the backup."""
    begun: datetime
    ended: datetime
    stores: dict[str, Counts]
    """Rows or documents of each store, by its name."""
    files: dict[str, str]
    """SHA-256 of each file, by its path in the backup."""


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder but the manifest, by its path there."""
    return {
        str(file.relative_to(folder)): archives.sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / FILE
    }


def read(folder: Path) -> Manifest:
    """Return a backup's manifest; raise ValueError if there is none that can be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise ValueError(f"{folder} is no backup: {error}") from error


def faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield why a backup cannot be used."""
    if _release(manifest.version) > _release(__version__):
        yield (
            f"it was made by {manifest.version} and this is {__version__}: "
            f"restore it with {manifest.version} or a newer one"
        )
        return
    try:
        found = checksums(folder)
    except OSError as error:
        yield f"it cannot be read: {error}"
        return
    for name in sorted(found.keys() | manifest.files.keys()):
        if name not in found:
            yield f"{name} is missing"
        elif name not in manifest.files:
            yield f"{name} does not belong to it"
        elif found[name] != manifest.files[name]:
            yield f"{name} is damaged: its checksum is another one"


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
