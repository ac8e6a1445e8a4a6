"""What the writer can be told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ravenbus import archiving
from ravenbus.archiving import KeepMonths
from ravenbus.settings import ClientId, ConsumerSettings
from ravensql import settings as database
from ravensql.settings import MysqlSetting

ARCHIVE = "folder for the months that leave the tables; RAVEN_SQL_KEEP_MONTHS needs it"


class WriterSettings(ConsumerSettings, frozen=True, kw_only=True):
    """The writer's environment variables."""

    mysql_url: MysqlSetting = database.DEFAULT_URL
    raven_client_id: ClientId = "raven-sql-writer"
    raven_sql_keep_months: Annotated[
        KeepMonths,
        Meta(
            description="whole months before this one whose rows stay in the tables, older ones "
            "are archived; default: all stay"
        ),
    ] = None
    raven_sql_archive: Annotated[Path | None, Meta(description=ARCHIVE)] = None

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the certificates and the archive's folder."""
        yield from super().problems()
        yield from database.problems(self.mysql_url)
        yield from archiving.problems(
            "RAVEN_SQL", self.raven_sql_keep_months, self.raven_sql_archive
        )


class ArchiveSettings(WriterSettings, frozen=True, kw_only=True):
    """The same for the commands that cannot do without the archive's folder."""

    raven_sql_archive: Annotated[Path, Meta(description=ARCHIVE)]
