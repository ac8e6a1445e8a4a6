"""What Home Assistant is told of a stick."""

from __future__ import annotations

import re

import msgspec
import pytest

from raven_reader.discovery import payload
from ravenbus.messages import Status
from ravenbus.notifications import KINDS, DeviceInfo
from ravenbus.topics import Topics

STICK = "d8d5b90000001234"
INFO = DeviceInfo(
    device=STICK,
    meter=None,
    time=None,
    fw_version="2.0.0",
    hw_version="2.7.3",
    manufacturer="Rainforest Automation, Inc.",
    model_id="Z105",
)


def described(node="home", info=INFO, currency=840):
    return msgspec.json.decode(payload(Topics("raven"), node, STICK, info, currency))


def test_each_sensor_reads_a_field_that_its_topic_has():
    """A sensor's topic is a kind's retained reading or the status, its template a field of that."""
    messages = {f"latest/{kind}": of for kind, of in KINDS.items()} | {"status": Status}
    for sensor in described()["components"].values():
        message = messages[sensor["state_topic"].removeprefix("raven/v1/home/")]
        field = re.fullmatch(r"\{\{ value_json\.(\w+) \}\}", sensor["value_template"])[1]
        assert field in message.__struct_fields__


def test_the_clock_is_a_diagnostic():
    """Whose clock is wrong is one of the words that a status has."""
    clock = described()["components"]["clock"]
    assert (clock["device_class"], clock["entity_category"]) == ("enum", "diagnostic")
    assert clock["options"] == ["right", "unset", "off", "host-behind"]


def test_energy_counts_for_the_energy_dashboard():
    """Both registers are energies in kWh that only grow, the demand a power in kW."""
    found = described()["components"]
    for name in ("delivered", "received"):
        assert (found[name]["device_class"], found[name]["state_class"]) == (
            "energy",
            "total_increasing",
        )
        assert found[name]["unit_of_measurement"] == "kWh"
    assert found["power"]["unit_of_measurement"] == "kW"


def test_identities_outlast_a_change_of_node():
    """Sensors are known by the stick: under another node they are the same, none twice."""
    ids = [sensor["unique_id"] for sensor in described()["components"].values()]
    assert len(set(ids)) == len(ids)
    assert all(STICK in each for each in ids)
    moved = described(node="cabin")
    assert [sensor["unique_id"] for sensor in moved["components"].values()] == ids
    assert moved["device"]["identifiers"] == described()["device"]["identifiers"]


@pytest.mark.parametrize(("currency", "unit"), [(840, "USD/kWh"), (36, "AUD/kWh"), (0x840, None)])
def test_a_price_has_the_unit_of_its_currency(currency, unit):
    """A currency that nobody knows gives a price without a unit, not an error."""
    assert described(currency=currency)["components"]["price"].get("unit_of_measurement") == unit


def test_a_stick_that_has_not_introduced_itself_is_described():
    """Before DeviceInfo came there is nothing null in the description."""
    found = described(info=None, currency=None)
    assert found["device"]["manufacturer"] == "Rainforest Automation"
    assert "model" not in found["device"]
    assert b"null" not in msgspec.json.encode(found)


def test_sensors_are_unavailable_with_the_stick():
    """Availability follows the node's status: the reader online and the stick connected."""
    (availability,) = described()["availability"]
    assert availability["topic"] == "raven/v1/home/status"
    for word in ("value_json.service == 'online'", "value_json.device == 'connected'"):
        assert word in availability["value_template"]
