"""What the writer can be told."""

from __future__ import annotations

from collections.abc import Iterator

from ravenbus.settings import ClientId, ConsumerSettings
from ravensql import settings as database
from ravensql.settings import MysqlSetting


class WriterSettings(ConsumerSettings, frozen=True, kw_only=True):
    """The writer's environment variables."""

    mysql_url: MysqlSetting = database.DEFAULT_URL
    raven_client_id: ClientId = "raven-sql-writer"

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the certificates."""
        yield from super().problems()
        yield from database.problems(self.mysql_url)
