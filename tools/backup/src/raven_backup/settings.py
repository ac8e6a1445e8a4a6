"""What backup and restore can be told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ravenbus.copies import Copying
from ravenbus.settings import Settings
from ravensql import settings as mysql
from raventools.settings import MongoChoice, MysqlChoice


class BackupSettings(Settings, frozen=True, kw_only=True):
    """The environment variables of both commands."""

    mysql_url: MysqlChoice = None
    mongo_url: MongoChoice = None
    raven_sql_archive: Annotated[
        Path | None,
        Meta(description="folder of the months that left the tables; needed if there are any"),
    ] = None
    raven_mongo_archive: Annotated[
        Path | None,
        Meta(description="folder of the months that left the collections; needed if there are any"),
    ] = None
    raven_credentials: Annotated[
        Path | None,
        Meta(description="folder of credentials and settings, whose files are kept as they are"),
    ] = None

    def stores(self) -> Iterator[Copying]:
        """Yield the stores that are set, not connected."""
        # A driver is some 10 MB: only those that are needed are imported.
        if self.mysql_url:
            from ravensql.copying import MysqlCopying  # noqa: PLC0415

            yield MysqlCopying(self.mysql_url, self.raven_sql_archive)
        if self.mongo_url:
            from ravenmongo.copying import MongoCopying  # noqa: PLC0415

            yield MongoCopying(self.mongo_url, self.raven_mongo_archive)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the certificates, and that there is nothing to keep."""
        yield from super().problems()
        if self.mysql_url:
            yield from mysql.problems(self.mysql_url)
        if not (self.mysql_url or self.mongo_url or self.raven_credentials):
            yield (
                "MYSQL_URL, MONGO_URL and RAVEN_CREDENTIALS are not set: allowed is one or more of them"
            )
