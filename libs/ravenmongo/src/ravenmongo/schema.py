"""Which version of python-raven's collections a database has, and which release made them so."""

from __future__ import annotations

from typing import Any, Final

from ravenbus import __version__
from ravenbus.errors import FatalError
from ravenmongo.documents import SCHEMA

VERSION: Final = 1
"""To be counted up when an older recorder would do harm."""
RESTORING: Final = 9999
"""Version of a database that a restore is filling."""
ID: Final = "collections"


def require_known(db: Any) -> None:
    """Raise FatalError if a newer program has changed the database, or it is being restored."""
    version, program = found(db)
    if version == RESTORING:
        raise FatalError(
            "the database is being restored, or that was interrupted: wait for raven-restore, "
            "or run it again"
        )
    if version > VERSION:
        raise FatalError(
            f"the database is at version {version}, which {program} made, and this program, "
            f"{__version__}, knows versions up to {VERSION}: run {program}, or restore a backup "
            "that was made before"
        )


def found(db: Any) -> tuple[int, str]:
    """Return the version, 0 for none, and the release that made it so."""
    document = db[SCHEMA].find_one({"_id": ID}) or {}
    return int(document.get("version", 0)), str(document.get("program", "a newer release"))


def put(db: Any, version: int = VERSION) -> None:
    """Say that this release made the collections what they are, unless it says so already."""
    if found(db)[0] != version:
        document = {"version": version, "program": __version__}
        db[SCHEMA].replace_one({"_id": ID}, document, upsert=True)
