"""Home Assistant's device discovery: one retained payload that describes a stick's sensors.

The sensors read the retained ``latest`` topics.  A sensor expires after three of its reports
have not come (the slower model's schedule), and is unavailable while the reader or the stick is.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from ravenbus import __version__
from ravenbus.messages import ClockState
from ravenbus.notifications import CURRENCIES, DeviceInfo
from ravenbus.topics import LATEST, STATUS, Topics

_DEMAND_S, _SUMMATION_S, _PRICE_S = 15, 240, 90


def payload(
    topics: Topics, node: str, device: str, info: DeviceInfo | None, currency: int | None
) -> bytes:
    """Return the discovery message for a stick.

    ``device`` is its EUI-64, from which the sensors' identities are made, so that they outlast a
    change of node.  ``currency`` is the ISO 4217 number of the last price.
    """
    unit = f"{CURRENCIES[currency]}/kWh" if currency in CURRENCIES else None

    def sensor(key: str, name: str, kind: str, field: str, **more: Any) -> dict[str, Any]:
        found = {
            "platform": "sensor",
            "unique_id": f"raven_{device}_{key}",
            "name": name,
            "state_topic": topics.of(LATEST, node=node, kind=kind),
            "value_template": f"{{{{ value_json.{field} }}}}",
            **more,
        }
        return {name: value for name, value in found.items() if value is not None}

    def energy(key: str, name: str, field: str) -> dict[str, Any]:
        return sensor(
            key,
            name,
            "current_summation_delivered",
            field,
            device_class="energy",
            state_class="total_increasing",
            unit_of_measurement="kWh",
            expire_after=3 * _SUMMATION_S,
        )

    identity = {
        "identifiers": [f"raven_{device}"],
        "name": "Smart meter",
        "manufacturer": (info and info.manufacturer) or "Rainforest Automation",
        "model": info and info.model_id,
        "sw_version": info and info.fw_version,
        "hw_version": info and info.hw_version,
        "serial_number": device,
    }
    return msgspec.json.encode(
        {
            "device": {name: value for name, value in identity.items() if value},
            "origin": {"name": "python-raven", "sw_version": __version__},
            "components": {
                "power": sensor(
                    "power",
                    "Power",
                    "instantaneous_demand",
                    "demand_kw",
                    device_class="power",
                    state_class="measurement",
                    unit_of_measurement="kW",
                    expire_after=3 * _DEMAND_S,
                ),
                "delivered": energy("delivered", "Energy delivered", "delivered_kwh"),
                "received": energy("received", "Energy received", "received_kwh"),
                "price": sensor(
                    "price",
                    "Price",
                    "price_cluster",
                    "price_per_kwh",
                    state_class="measurement",
                    unit_of_measurement=unit,
                    expire_after=3 * _PRICE_S,
                ),
                "link_strength": sensor(
                    "link_strength",
                    "Link strength",
                    "connection_status",
                    "link_strength",
                    state_class="measurement",
                    unit_of_measurement="%",
                    entity_category="diagnostic",
                ),
                "clock": {
                    **sensor("clock", "Clock", "", "clock", entity_category="diagnostic"),
                    "state_topic": topics.of(STATUS, node=node),
                    "device_class": "enum",
                    "options": list(get_args(ClockState)),
                },
            },
            "availability": [
                {
                    "topic": topics.of(STATUS, node=node),
                    "value_template": "{{ 'online' if value_json.service == 'online' "
                    "and value_json.device == 'connected' else 'offline' }}",
                }
            ],
            "qos": 1,
        }
    )
