"""What every program can be told that reads whichever stores there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ravenbus.history import History
from ravenbus.readback import ANSWER_TIMEOUT_S
from ravenbus.settings import SECRET, MqttSettings
from ravenmongo.settings import MongoUrl
from ravensql import settings as mysql
from ravensql.settings import MysqlUrl

MysqlChoice = Annotated[
    MysqlUrl | None,
    Meta(description="the database of the writer; not set: it is not looked at", extra=SECRET),
]
MongoChoice = Annotated[
    MongoUrl | None,
    Meta(
        description="the database of the recorder, `raven` if it names none; "
        "not set: it is not looked at",
        extra=SECRET,
    ),
]


class StoresSettings(MqttSettings, frozen=True, kw_only=True):
    """The stores, MySQL first, and the broker."""

    mysql_url: MysqlChoice = None
    mongo_url: MongoChoice = None

    def stores(
        self,
        sql_archive: Path | None = None,
        mongo_archive: Path | None = None,
        answer_timeout_s: int = ANSWER_TIMEOUT_S,
    ) -> Iterator[History]:
        """Yield the stores that are set, not connected; the folders have months that left them."""
        # A driver is some 10 MB: only those that are needed are imported.
        if self.mysql_url:
            from ravensql.history import MysqlHistory  # noqa: PLC0415

            yield MysqlHistory(self.mysql_url, sql_archive, answer_timeout_s)
        if self.mongo_url:
            from ravenmongo.history import MongoHistory  # noqa: PLC0415

            yield MongoHistory(self.mongo_url, mongo_archive, answer_timeout_s)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the certificates, and that there is no store."""
        yield from super().problems()
        if self.mysql_url:
            yield from mysql.problems(self.mysql_url)
        if not self.mysql_url and not self.mongo_url:
            yield (
                "MYSQL_URL and MONGO_URL are not set: allowed is one or both, "
                f"{MysqlUrl.ALLOWED} and {MongoUrl.ALLOWED}"
            )
