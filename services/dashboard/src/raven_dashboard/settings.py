"""What the dashboard can be told."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from raven_dashboard.outgoing import NotifyUrls
from ravenbus.history import History
from ravenbus.settings import SECRET, HomeZone, TimeZone, usable_folder
from ravenbus.tariff import TariffError, TariffFile
from raventools.settings import StoresSettings

ANSWER_TIMEOUT_S: Final = 30
"""A store that vanished without a word is given up after that."""


class DashboardSettings(StoresSettings, frozen=True, kw_only=True):
    """The dashboard's environment variables."""

    raven_time_zone: HomeZone = TimeZone("UTC")
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
    raven_dashboard_trusted_proxy: Annotated[
        IPv4Address | None,
        Meta(
            description="address of a proxy that lets nobody through whom it does not know: its "
            "requests need no password, and pages may stand in frames of its own; not set: none",
            extra={"allowed": "an IPv4 address, as 172.30.32.2"},
        ),
    ] = None

    raven_notify_urls: Annotated[
        NotifyUrls | None,
        Meta(
            description="who is told of a home that is silent, a store that is behind or a broker "
            "that is away (docs/monitoring.md); not set: nobody",
            extra=SECRET,
        ),
    ] = None
    raven_notify_after_min: Annotated[
        int,
        Meta(ge=1, le=1440, description="how long a trouble lasts before anybody is told, minutes"),
    ] = 10
    raven_state: Annotated[
        Path | None,
        Meta(
            description="folder that keeps what people were told; not set: after a restart it is "
            "told again"
        ),
    ] = None

    def store(self) -> History:
        """Return the store that history is read from, the first that is set; not connected yet."""
        return next(self.stores(answer_timeout_s=ANSWER_TIMEOUT_S))

    def tariff(self) -> TariffFile | None:
        """Return what the tariff file says; raise TariffError if it cannot be used."""
        return TariffFile.read(self.raven_tariff) if self.raven_tariff else None

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the tariff and the folder, beside the rest."""
        yield from super().problems()
        if self.raven_state and not usable_folder(self.raven_state):
            yield f"RAVEN_STATE: {str(self.raven_state)!r} cannot be used: it cannot be written to"
        try:
            self.tariff()
        except TariffError as error:
            yield f"RAVEN_TARIFF: {error}"
