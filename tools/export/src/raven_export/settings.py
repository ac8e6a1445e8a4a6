"""What export and import can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ravenbus.settings import HomeZone, TimeZone
from raventools.settings import StoresSettings


class ExportSettings(StoresSettings, frozen=True, kw_only=True):
    """The environment variables of both commands."""

    raven_sql_archive: Annotated[
        Path | None,
        Meta(description="folder with the months that left the tables of MySQL, to read them too"),
    ] = None
    raven_mongo_archive: Annotated[
        Path | None,
        Meta(
            description="folder with the months that left the collections of MongoDB, to read them too"
        ),
    ] = None
    raven_time_zone: HomeZone = TimeZone("UTC")
