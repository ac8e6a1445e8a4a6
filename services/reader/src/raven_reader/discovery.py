"""Home Assistant's device discovery: one retained payload that describes a meter and its stick.

The sensors read the retained ``latest`` topics.  What is retained comes again whenever somebody
connects, so a sensor judges by ``heard`` in it: what is older than three intervals of its reports
makes it unavailable, as silence does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, get_args

import msgspec

from ravenbus import __version__
from ravenbus.messages import ClockState
from ravenbus.notifications import CURRENCIES, DeviceInfo
from ravenbus.topics import LATEST, STATUS, Topics

SUPPORT_URL: Final = "https://github.com/CalPlug/python-raven"
MIGRATE: Final = b'{"migrate_discovery": true}'
"""What has Home Assistant let go of a topic's sensors, and keep what a person made of them."""
REPORTS: Final = 3
"""Reports that may fail to come before a value is old."""


class Described(NamedTuple):
    """What a description says.

    ``identity`` is what the sensors' ids are made of, so it outlasts a change of node and of stick;
    ``stick`` is the EUI-64 of the one that is plugged in, ``currency`` the ISO 4217 number of the last
    price, None before the first, ``intervals_s`` how long the next report of a kind may take.
    """

    node: str
    name: str
    identity: str
    stick: str
    info: DeviceInfo | None
    currency: int | None
    intervals_s: Mapping[str, int]
    dashboard_url: str | None


def payload(topics: Topics, said: Described) -> bytes:
    """Return the discovery message."""
    device = {
        "identifiers": [f"raven_{said.identity}"],
        "name": said.name,
        "manufacturer": (said.info and said.info.manufacturer) or "Rainforest Automation",
        "model": said.info and said.info.model_id,
        "sw_version": said.info and said.info.fw_version,
        "hw_version": said.info and said.info.hw_version,
        "serial_number": said.stick,
        "configuration_url": said.dashboard_url,
    }
    return msgspec.json.encode(
        {
            "device": _said(device),
            "origin": {
                "name": "python-raven",
                "sw_version": __version__,
                "support_url": SUPPORT_URL,
            },
            "components": _Sensors(topics, said).all(),
            "qos": 1,
        }
    )


class _Sensors:
    """The sensors of a description."""

    def __init__(self, topics: Topics, said: Described) -> None:
        self._topics = topics
        self._said = said
        self._status = topics.of(STATUS, node=said.node)
        self._reader = {
            "topic": self._status,
            "value_template": "{{ value_json.service }}",
        }
        self._stick = {
            "topic": self._status,
            "value_template": "{{ 'online' if value_json.service == 'online' "
            "and value_json.device == 'connected' else 'offline' }}",
        }

    def all(self) -> dict[str, dict[str, Any]]:
        """Return every sensor by its key."""
        currency = self._said.currency
        # A price without its unit would begin statistics that cannot be gone on with.
        without = {"price"} if currency is None else set()
        unit = f"{CURRENCIES[currency]}/kWh" if currency in CURRENCIES else None
        price, link = "price_cluster", "connection_status"
        sensors = dict(
            [
                self._of(
                    "power",
                    "Power",
                    "instantaneous_demand",
                    "value_json.demand_kw",
                    device_class="power",
                    state_class="measurement",
                    unit_of_measurement="kW",
                    suggested_display_precision=3,
                ),
                self._energy("delivered", "Energy delivered"),
                self._energy("received", "Energy received"),
                self._of(
                    "price",
                    "Price",
                    price,
                    "value_json.price_per_kwh",
                    state_class="measurement",
                    unit_of_measurement=unit,
                    suggested_display_precision=4,
                    icon="mdi:cash",
                ),
                self._of("tier", "Price tier", price, "value_json.tier", icon="mdi:stairs"),
                self._of(
                    "rate",
                    "Rate",
                    price,
                    "value_json.rate_label or value_json.tier_label",
                    icon="mdi:tag-text",
                ),
                self._of(
                    "message",
                    "Message of the utility",
                    "message_cluster",
                    "(value_json.text or '')[:255]",
                    icon="mdi:message-text",
                ),
                self._diagnostic(
                    "link_strength",
                    "Link strength",
                    link,
                    "value_json.link_strength",
                    state_class="measurement",
                    unit_of_measurement="%",
                    icon="mdi:signal",
                ),
                self._diagnostic(
                    "network", "Network status", link, "value_json.status", icon="mdi:lan-connect"
                ),
                self._diagnostic(
                    "channel", "Channel", link, "value_json.channel", icon="mdi:sine-wave"
                ),
                self._diagnostic(
                    "last_seen",
                    "Last seen",
                    "instantaneous_demand",
                    # To the minute: each state is a line of the logbook.
                    "{{ value_json.heard[:16] }}:00+00:00",
                    device_class="timestamp",
                    availability=None,
                    expire_after=None,
                ),
                self._diagnostic(
                    "clock",
                    "Clock",
                    None,
                    "value_json.clock",
                    device_class="enum",
                    options=list(get_args(ClockState)),
                    icon="mdi:clock-check-outline",
                ),
                self._diagnostic(
                    "stores",
                    "Stores",
                    None,
                    _BEHIND,
                    icon="mdi:database-check",
                    availability=[self._reader],
                ),
                self._diagnostic(
                    "spool",
                    "Spool",
                    None,
                    "value_json.waiting",
                    state_class="measurement",
                    unit_of_measurement="readings",
                    icon="mdi:tray-full",
                    availability=[self._reader],
                ),
            ]
        )
        return {key: sensor for key, sensor in sensors.items() if key not in without}

    def _of(
        self, key: str, name: str, kind: str | None, value: str, **more: Any
    ) -> tuple[str, dict[str, Any]]:
        """Return a sensor of a kind's last reading, or of the status."""
        topic = self._topics.of(LATEST, node=self._said.node, kind=kind) if kind else self._status
        interval_s = self._said.intervals_s.get(kind or "")
        old_s = interval_s and interval_s * REPORTS
        availability = [self._stick]
        if old_s:
            availability.append({"topic": topic, "value_template": _FRESH.format(old_s=old_s)})
        sensor = {
            "platform": "sensor",
            "unique_id": f"raven_{self._said.identity}_{key}",
            "default_entity_id": f"sensor.{_slug(self._said.name)}_{key}",
            "name": name,
            "state_topic": topic,
            "value_template": value if "{" in value else f"{{{{ {value} }}}}",
            "expire_after": old_s,
            "availability": availability,
            "availability_mode": "all",
            **more,
        }
        return key, _said(sensor)

    def _energy(self, key: str, name: str) -> tuple[str, dict[str, Any]]:
        return self._of(
            key,
            name,
            "current_summation_delivered",
            f"value_json.{key}_kwh",
            device_class="energy",
            state_class="total_increasing",
            unit_of_measurement="kWh",
            suggested_display_precision=3,
        )

    def _diagnostic(
        self, key: str, name: str, kind: str | None, value: str, **more: Any
    ) -> tuple[str, dict[str, Any]]:
        return self._of(key, name, kind, value, entity_category="diagnostic", **more)


_FRESH: Final = (
    "{{{{ 'online' if (now() - as_datetime(value_json.heard)).total_seconds() < {old_s} "
    "else 'offline' }}}}"
)
_BEHIND: Final = (
    "{% set late = (value_json.behind or {}).items() | selectattr(1) | list %}"
    "{% for name, count in late %}{{ name }} is {{ count }} readings behind"
    "{{ ', ' if not loop.last }}{% else %}"
    "{{ 'complete' if value_json.behind else 'none' }}{% endfor %}"
)
"""What of the stores has readings to confirm, as in ``raven-sql-writer is 12 readings behind``."""


def _said(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def _slug(name: str) -> str:
    """Return a name as a part of an entity's id."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "_", plain).strip("_") or "smart_meter"
