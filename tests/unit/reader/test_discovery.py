"""What Home Assistant is told of a meter and its stick."""

from __future__ import annotations

import re

import msgspec
import pytest

from raven_reader.discovery import Described, payload
from ravenbus.messages import Status
from ravenbus.notifications import KINDS, DeviceInfo
from ravenbus.topics import Topics

STICK = "d8d5b90000001234"
METER = "0013500100abcdef"
INFO = DeviceInfo(
    device=STICK,
    meter=None,
    time=None,
    fw_version="2.0.0",
    hw_version="2.7.3",
    manufacturer="Rainforest Automation, Inc.",
    model_id="Z105",
)
SAID = Described(
    node="home",
    name="Smart meter home",
    identity=METER,
    stick=STICK,
    info=INFO,
    currency=840,
    intervals_s={
        "instantaneous_demand": 15,
        "current_summation_delivered": 240,
        "price_cluster": 90,
        "connection_status": 900,
    },
    dashboard_url=None,
)


def described(**changed):
    return msgspec.json.decode(payload(Topics("raven"), SAID._replace(**changed)))


def ids(found):
    return [sensor["unique_id"] for sensor in found["components"].values()]


def test_each_sensor_reads_a_field_that_its_topic_has():
    """A sensor's topic is a kind's retained reading or the status, its template a field of that."""
    messages = {f"latest/{kind}": of for kind, of in KINDS.items()} | {"status": Status}
    for sensor in described()["components"].values():
        message = messages[sensor["state_topic"].removeprefix("raven/v1/home/")]
        fields = set(re.findall(r"value_json\.(\w+)", sensor["value_template"]))
        assert fields
        assert fields <= {*message.__struct_fields__, "heard"}


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


def test_identities_outlast_a_change_of_node_and_of_stick():
    """Sensors are known by the meter: under another node or stick they are the same, none twice."""
    found = described()
    assert len(set(ids(found))) == len(ids(found))
    assert all(METER in each for each in ids(found))
    for changed in ({"node": "cabin"}, {"stick": "d8d5b90000005678"}):
        moved = described(**changed)
        assert ids(moved) == ids(found)
        assert moved["device"]["identifiers"] == found["device"]["identifiers"]
    assert moved["device"]["serial_number"] == "d8d5b90000005678"


def test_the_ids_of_version_1_0_stay():
    """A home that was described by its stick has the same ids as before."""
    found = described(identity=STICK)
    keys = ("power", "delivered", "received", "price", "link_strength")
    assert {found["components"][key]["unique_id"] for key in keys} == {
        f"raven_{STICK}_{key}" for key in keys
    }
    assert found["device"]["identifiers"] == [f"raven_{STICK}"]


@pytest.mark.parametrize(
    ("name", "entity"),
    [
        ("Smart meter home", "sensor.smart_meter_home_power"),
        ("Zähler, Süd", "sensor.zahler_sud_power"),
        ("電気", "sensor.smart_meter_power"),
    ],
)
def test_entities_are_named_after_the_meter(name, entity):
    """Two sticks of two names have entities of two names."""
    found = described(name=name)
    assert found["device"]["name"] == name
    assert found["components"]["power"]["default_entity_id"] == entity


@pytest.mark.parametrize(("currency", "unit"), [(840, "USD/kWh"), (36, "AUD/kWh"), (0x840, None)])
def test_a_price_has_the_unit_of_its_currency(currency, unit):
    """A currency that nobody knows gives a price without a unit, not an error."""
    assert described(currency=currency)["components"]["price"].get("unit_of_measurement") == unit


def test_a_price_appears_with_the_first_one():
    """Before that its unit is not known, and a sensor without one would be another later."""
    assert "price" not in described(currency=None)["components"]
    assert "tier" in described(currency=None)["components"]


def test_a_stick_that_has_not_introduced_itself_is_described():
    """Before DeviceInfo came there is nothing null in the description."""
    found = described(info=None, currency=None)
    assert found["device"]["manufacturer"] == "Rainforest Automation"
    assert "model" not in found["device"]
    assert b"null" not in msgspec.json.encode(found)


def test_the_dashboard_is_linked_where_there_is_one():
    """The device's page leads to the pages that a setting names."""
    assert "configuration_url" not in described()["device"]
    url = "http://pi.local:8080"
    assert described(dashboard_url=url)["device"]["configuration_url"] == url


def test_a_sensor_is_old_after_three_intervals():
    """What is older is unavailable, whether it was sent again just now or not at all."""
    found = described(intervals_s={**SAID.intervals_s, "instantaneous_demand": 120})["components"]
    for key, old_s in (("power", 360), ("delivered", 720), ("price", 270), ("channel", 2700)):
        assert found[key]["expire_after"] == old_s
        fresh = found[key]["availability"][1]
        assert fresh["topic"] == found[key]["state_topic"]
        assert f"value_json.heard)).total_seconds() < {old_s}" in fresh["value_template"]
        assert found[key]["availability_mode"] == "all"


def test_sensors_are_unavailable_with_the_stick():
    """Availability follows the node's status: the reader online and the stick connected.

    When the stick was seen last can be read for ever, and of the stores while the reader is online.
    """
    found = described()["components"]
    for key in found.keys() - {"last_seen", "stores", "spool"}:
        stick = found[key]["availability"][0]
        assert stick["topic"] == "raven/v1/home/status"
        for word in ("value_json.service == 'online'", "value_json.device == 'connected'"):
            assert word in stick["value_template"]
    assert "availability" not in found["last_seen"]
    assert "expire_after" not in found["stores"]
    for key in ("stores", "spool"):
        assert [each["value_template"] for each in found[key]["availability"]] == [
            "{{ value_json.service }}"
        ]
