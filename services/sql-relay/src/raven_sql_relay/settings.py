"""What the relay can be told."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ravenbus.confirming import AUTO, RequiredStores
from ravenbus.settings import (
    SECRET,
    MqttUrl,
    NodeName,
    Settings,
    TopicPrefix,
    Window,
    tls_context,
    tls_problems,
)
from ravensql import settings as database
from ravensql.settings import MysqlSetting


class RelaySettings(Settings, frozen=True, kw_only=True):
    """The relay's environment variables."""

    mysql_url: MysqlSetting = database.DEFAULT_URL
    upstream_mqtt_url: Annotated[
        MqttUrl | None,
        Meta(description="the broker that gets every row; not set: nothing to do", extra=SECRET),
    ] = None
    upstream_mqtt_tls_ca: Annotated[
        Path | None, Meta(description="certificates to trust, PEM; default: the system's")
    ] = None
    upstream_mqtt_tls_cert: Annotated[
        Path | None,
        Meta(description="this client's certificate, PEM; needs UPSTREAM_MQTT_TLS_KEY"),
    ] = None
    upstream_mqtt_tls_key: Annotated[Path | None, Meta(description="its private key, PEM")] = None
    raven_topic_prefix: TopicPrefix = "raven"
    raven_stores: RequiredStores = AUTO
    raven_window: Window = 100
    raven_node: Annotated[
        NodeName | None,
        Meta(
            description="node of the rows that another program inserted without one; "
            "default: made once and kept in the database"
        ),
    ] = None

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what `mqtts://` needs; raise OSError for files that cannot be used together."""
        return tls_context(self.upstream_mqtt_url, *self._files) if self.upstream_mqtt_url else None

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the addresses and the certificates."""
        yield from super().problems()
        yield from database.problems(self.mysql_url)
        if len(self.mysql_url.addresses) > 1:
            yield (
                "MYSQL_URL: a relay's claims are locks of one server: allowed is one address, "
                "the same for all relays of the database"
            )
        if self.upstream_mqtt_url:
            yield from tls_problems("UPSTREAM_MQTT", self.upstream_mqtt_url, *self._files)

    @property
    def _files(self) -> tuple[Path | None, Path | None, Path | None]:
        return self.upstream_mqtt_tls_ca, self.upstream_mqtt_tls_cert, self.upstream_mqtt_tls_key
