"""What the dashboard can be told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Self
from zoneinfo import ZoneInfo

from msgspec import Meta

from ravenbus.history import History
from ravenbus.settings import SECRET, MqttSettings
from ravenbus.tariff import TariffError, TariffFile
from ravenmongo.history import MongoHistory
from ravenmongo.settings import MongoUrl
from ravensql import settings as mysql
from ravensql.history import MysqlHistory
from ravensql.settings import MysqlUrl

ANSWER_TIMEOUT_S: Final = 30
"""A store that vanished without a word is given up after that."""


class Zone(ZoneInfo):
    """A time zone by its name in the IANA database."""

    ALLOWED = "a name of the IANA time zone database, as in Europe/Berlin"

    def __new__(cls, text: str) -> Self:
        """Return the zone; raise ValueError if there is none of this name."""
        try:
            return super().__new__(cls, text)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(cls.ALLOWED) from error


class DashboardSettings(MqttSettings, frozen=True, kw_only=True):
    """The dashboard's environment variables."""

    mysql_url: Annotated[
        MysqlUrl | None,
        Meta(description="the database that history is read from", extra=SECRET),
    ] = None
    mongo_url: Annotated[
        MongoUrl | None,
        Meta(
            description="the same in MongoDB, `raven` if it names none; with both, MySQL is read",
            extra=SECRET,
        ),
    ] = None
    raven_time_zone: Annotated[
        Zone, Meta(description="time zone of the homes, by which days and months begin")
    ] = Zone("UTC")
    raven_tariff: Annotated[
        Path | None,
        Meta(
            description="file that says what energy costs (docs/tariff.md); "
            "not set: the device's own prices are used"
        ),
    ] = None
    raven_dashboard_host: Annotated[
        str, Meta(min_length=1, max_length=255, description="address to listen at")
    ] = "127.0.0.1"
    raven_dashboard_port: Annotated[
        int, Meta(ge=0, le=65535, description="TCP port to listen at; 0 for any free one")
    ] = 8080
    raven_dashboard_password: Annotated[
        str,
        Meta(
            min_length=8,
            max_length=1024,
            description="what people type to see the pages",
            extra={"allowed": "8 to 1024 characters", **SECRET},
        ),
    ]
    raven_dashboard_token: Annotated[
        Annotated[str, Meta(pattern=r"^[!-~]{16,1024}\Z")] | None,
        Meta(
            description="what programs send to use the API, as in `Authorization: Bearer …`; "
            "not set: only people who gave the password can",
            extra={"allowed": "16 to 1024 visible ASCII characters", **SECRET},
        ),
    ] = None

    def store(self) -> History:
        """Return the store that history is read from, not connected yet."""
        if self.mysql_url:
            return MysqlHistory(self.mysql_url, answer_timeout_s=ANSWER_TIMEOUT_S)
        assert self.mongo_url  # noqa: S101 - problems() sees to it
        return MongoHistory(self.mongo_url, ANSWER_TIMEOUT_S)

    def tariff(self) -> TariffFile | None:
        """Return what the tariff file says; raise TariffError if it cannot be used."""
        return TariffFile.read(self.raven_tariff) if self.raven_tariff else None

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the certificates and the tariff, and that there is no store."""
        yield from super().problems()
        try:
            self.tariff()
        except TariffError as error:
            yield f"RAVEN_TARIFF: {error}"
        if self.mysql_url:
            yield from mysql.problems(self.mysql_url)
        if not self.mysql_url and not self.mongo_url:
            yield (
                "MYSQL_URL and MONGO_URL are not set: allowed is one or both, "
                f"{MysqlUrl.ALLOWED} and {MongoUrl.ALLOWED}"
            )
