"""What export and import can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from msgspec import Meta

from raventools.settings import StoresSettings


class TimeZone:
    """A time zone by its name, as in ``America/New_York``."""

    ALLOWED = "the name of a time zone, as UTC or America/New_York"

    def __init__(self, name: str) -> None:
        """Look the zone up; raise ValueError if there is none of that name."""
        try:
            self.zone: Final = ZoneInfo(name)
        except (ValueError, KeyError, OSError) as error:
            raise ValueError(self.ALLOWED) from error

    def __str__(self) -> str:
        return self.zone.key

    __repr__ = __str__


class ExportSettings(StoresSettings, frozen=True, kw_only=True):
    """The environment variables of both commands."""

    raven_sql_archive: Annotated[
        Path | None,
        Meta(description="folder with the months that left the tables of MySQL, to read them too"),
    ] = None
    raven_time_zone: Annotated[
        TimeZone, Meta(description="the home's time zone, in which days and months are meant")
    ] = TimeZone("UTC")
