"""What a real Home Assistant makes of what the reader says of its meter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import msgspec
import pytest

from raven_harness import stack
from raven_harness.stack import wait_until
from raven_reader.discovery import Described, payload
from ravenbus.messages import Envelope, Reading, Status, encode, encode_latest, now
from ravenbus.notifications import InstantaneousDemand
from ravenbus.topics import HOMEASSISTANT_DISCOVERY, LATEST, STATUS, Topics
from tests import released
from tests.system.system import Client

from .conftest import Home
from .homeassistant import HomeAssistant

TOPICS = Topics()
FAST = ("--speed", "5")
KEYS = (
    *("power", "delivered", "received", "price", "tier", "rate", "message"),
    *("link_strength", "network", "channel", "last_seen", "clock", "stores", "spool"),
)


def is_number(state: str | None) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?", state or ""))


def wait_for_values(ha: HomeAssistant, name: str) -> None:
    for key in ("power", "delivered", "received", "price", "link_strength"):
        ha.wait_for(f"sensor.{name}_{key}", is_number, "a number")


def of(ha: HomeAssistant, identity: str) -> dict[str, str]:
    """Return the ids of the entities of an identity by their keys."""
    start = f"raven_{identity}_"
    found = {unique: one["entity_id"] for unique, one in ha.entities().items()}
    return {
        unique.removeprefix(start): one for unique, one in found.items() if unique.startswith(start)
    }


@contextmanager
def no_complaint(ha: HomeAssistant, but: str = "\n") -> Iterator[None]:
    """Fail if Home Assistant complains of anything that MQTT brought meanwhile, ``but`` of this."""
    before = len(ha.text())
    yield
    said = [
        line
        for line in ha.text()[before:].splitlines()
        if "mqtt" in line.lower() and but not in line
    ]
    assert [line for line in said if "WARNING" in line or "ERROR" in line] == []


def test_a_meter_appears_with_its_sensors(ha: HomeAssistant, home: Home):
    """Each sensor has a value, its unit and its class; the page of energy accepts both registers."""
    home.reader.env["RAVEN_DASHBOARD_URL"] = "http://pi.local:8080"
    with no_complaint(ha):
        home.start("--speed", "20", "--message", "Peak at 5")
        wait_for_values(ha, home.name)
    assert of(ha, home.meter) == {key: f"sensor.{home.name}_{key}" for key in KEYS}
    states = ha.states()
    units = {
        key: states[f"sensor.{home.name}_{key}"]["attributes"].get("unit_of_measurement")
        for key in KEYS[:4]
    }
    assert units == {"power": "kW", "delivered": "kWh", "received": "kWh", "price": "USD/kWh"}
    ha.wait_for(f"sensor.{home.name}_message", lambda s: s == "Peak at 5", "what the utility says")
    for key, value in (("network", "Connected"), ("stores", "none")):
        assert states[f"sensor.{home.name}_{key}"]["state"] == value
    (device,) = [one for one in ha.devices() if one["name"] == f"Smart meter {home.node}"]
    assert device["serial_number"] == home.stick
    assert device["configuration_url"] == "http://pi.local:8080"
    options = ha.entities()[f"raven_{home.meter}_price"]["options"]["sensor"]
    assert options["suggested_display_precision"] == 4


def test_the_page_of_energy_counts_both_registers(ha: HomeAssistant, home: Home):
    """After the next statistics, made each five minutes, it has nothing to complain of."""
    home.start(*FAST, "--solar")
    wait_for_values(ha, home.name)
    source = {
        "type": "grid",
        "stat_energy_from": f"sensor.{home.name}_delivered",
        "stat_energy_to": f"sensor.{home.name}_received",
        "entity_energy_price": f"sensor.{home.name}_price",
        "cost_adjustment_day": 0,
    }
    ha.call(type="energy/save_prefs", energy_sources=[source])
    wait_until(
        lambda: ha.call(type="energy/validate")["energy_sources"] == [[]],
        "the page of energy accepts the registers",
        400,
    )
    counted = {one["statistic_id"]: one for one in ha.call(type="recorder/list_statistic_ids")}
    for key, has in (("delivered", "has_sum"), ("received", "has_sum"), ("power", "has_mean")):
        assert counted[f"sensor.{home.name}_{key}"][has]
    ha.picture("/config/energy", "Energy delivered", "energy")
    (device,) = [one for one in ha.devices() if one["serial_number"] == home.stick]
    ha.picture(f"/config/devices/device/{device['id']}", "Last seen", "device")


def test_sensors_come_and_go_with_the_stick(ha: HomeAssistant, home: Home):
    """Without the stick there is no power; when it was seen last stays readable."""
    home.start(*FAST)
    power = f"sensor.{home.name}_power"
    ha.wait_for(power, is_number, "a number")
    home.simulator.kill()
    ha.wait_for(power, lambda state: state == "unavailable", "unavailable")
    assert "T" in (ha.state(f"sensor.{home.name}_last_seen") or "")
    home.plug_in(*FAST)
    ha.wait_for(power, is_number, "a number again")
    home.reader.kill()
    ha.wait_for(power, lambda state: state == "unavailable", "unavailable")


def test_a_replaced_stick_goes_on_with_the_same_sensors(ha: HomeAssistant, home: Home):
    """Another stick at the same meter: no new sensor, and none dead after Home Assistant's start."""
    home.start(*FAST)
    wait_for_values(ha, home.name)
    before = of(ha, home.meter)
    old = home.stick
    home.simulator.kill()
    home.stick = "d8d5b900aaaaaaaa"
    home.plug_in(*FAST)
    wait_until(
        lambda: home.stick in {one["serial_number"] for one in ha.devices()}, "it is another stick"
    )
    ha.stop()
    ha.start()
    wait_for_values(ha, home.name)
    assert of(ha, home.meter) == before
    assert not of(ha, home.stick)
    assert not of(ha, old)
    states = ha.states()
    dead = {key for key, one in before.items() if states[one]["state"] == "unavailable"}
    assert dead == set()


def test_an_installation_of_1_0_keeps_its_sensors(ha: HomeAssistant, home: Home):
    """What 1.0.0 made is gone on with, also by the next stick, and nothing is made twice."""
    home.reader.env["PYTHONPATH"] = released.python_path(released.unpack(home.folder / "released"))
    home.start(*FAST)
    wait_until(lambda: len(of(ha, home.stick)) >= 5, "1.0.0 has described the stick")
    before = of(ha, home.stick)
    first = home.stick
    ha.wait_for(before["power"], is_number, "a number")
    home.reader.stop()
    home.reader.env.pop("PYTHONPATH")
    home.reader.start()
    wait_until(lambda: of(ha, first).keys() == set(KEYS), "the new sensors are there too")
    assert before.items() <= of(ha, first).items()
    home.simulator.kill()
    home.stick = "d8d5b900bbbbbbbb"
    home.plug_in(*FAST)
    ha.wait_for(before["power"], is_number, "a number of the new stick")
    assert before.items() <= of(ha, first).items()
    assert not of(ha, home.stick)
    assert not of(ha, home.meter)


def test_another_node_takes_the_sensors_along(ha: HomeAssistant, home: Home):
    """After a change of RAVEN_NODE the sensors are the same, also those that a person renamed."""
    home.start(*FAST)
    wait_for_values(ha, home.name)
    before = of(ha, home.meter)
    renamed = {"entity_id": before["power"], "name": "Now", "new_entity_id": "sensor.my_power"}
    ha.call(type="config/entity_registry/update", **renamed)
    home.reader.stop()
    former = home.node
    home.reader.env["RAVEN_NODE"] = f"cabin-{former}"
    with no_complaint(ha, but="No device components to cleanup"):
        home.reader.start()
        wait_until(
            lambda: f"Smart meter cabin-{former}" in {one["name"] for one in ha.devices()},
            "the device has the name of the new node",
        )
        ha.wait_for("sensor.my_power", is_number, "a number")
    assert of(ha, home.meter) == {**before, "power": "sensor.my_power"}
    assert ha.entities()[f"raven_{home.meter}_power"]["name"] == "Now"


class Said:
    """A home whose reader is the test: what it says is made up, and so is when."""

    def __init__(self, broker: stack.Broker, node: str, meter: str) -> None:
        self._client = Client(broker.url("tester"))
        self._node = node
        self._meter = meter
        described = Described(
            node=node,
            name=node,
            identity=meter,
            stick="d8d5b9000000ffff",
            info=None,
            currency=None,
            intervals_s={"instantaneous_demand": 15},
            dashboard_url=None,
        )
        status = Status(node=node, service="online", device="connected", since=now())
        self._retain(TOPICS.of(HOMEASSISTANT_DISCOVERY, node=node), payload(TOPICS, described))
        self._retain(TOPICS.of(STATUS, node=node), encode(status))

    def demand(self, kw: float, ago_s: float) -> None:
        at = now() - timedelta(seconds=ago_s)
        envelope = Envelope(
            node=self._node,
            run="default",
            hash="00000000-0000-0000-0000-000000000000",
            seq=1,
            received=at,
        )
        demand = InstantaneousDemand(
            device=None,
            meter=self._meter,
            time=None,
            multiplier=1,
            divisor=1000,
            demand=round(kw * 1000),
            demand_kw=kw,
        )
        topic = TOPICS.of(LATEST, node=self._node, kind="instantaneous_demand")
        self._retain(topic, encode_latest(Reading(envelope, demand), at))

    def _retain(self, topic: str, message: bytes) -> None:
        self._client.connection.publish(topic, message, retain=True)

    def close(self) -> None:
        self._client.connection.close()


@pytest.fixture
def said(broker: stack.Broker) -> Iterator[Said]:
    said = Said(broker, "stale", "0013500100005741")
    yield said
    said.close()


def test_nothing_stale_looks_fresh(ha: HomeAssistant, said: Said):
    """A power of ten minutes ago is no power, however often it is sent again."""
    power = "sensor.stale_power"
    said.demand(1.5, ago_s=600)
    ha.wait_for("sensor.stale_last_seen", lambda state: "T" in (state or ""), "a time")
    assert ha.state(power) == "unavailable"
    said.demand(1.25, ago_s=1)
    ha.wait_for(power, lambda state: state == "1.25", "what was said just now")
    said.demand(1.5, ago_s=600)
    ha.wait_for(power, lambda state: state == "unavailable", "unavailable again")
    ha.stop()
    ha.start()
    ha.wait_for("sensor.stale_last_seen", lambda state: "T" in (state or ""), "a time")
    assert ha.state(power) == "unavailable"


def test_without_a_store_nothing_is_sent_twice(ha: HomeAssistant, home: Home, broker: stack.Broker):
    """A connection that is renewed because nobody takes readings brings no value anew, and says why."""
    home.start("--rate", "0.02", "--model", "emu2")
    ha.wait_for(f"sensor.{home.name}_power", lambda state: state is not None, "there")
    watcher = Client(broker.url("tester"))
    watcher.subscribe(f"raven/v1/{home.node}/latest/+")
    wait_until(lambda: "connecting anew" in home.reader.text(), "the connection is renewed")
    wait_until(
        lambda: home.reader.text().count("connected to the broker") == 2, "it is connected again"
    )
    again = [m for m in watcher.messages() if not m.retained]
    seen = [msgspec.json.decode(m.payload) for m in again]
    assert len({(one["kind"], one["heard"]) for one in seen}) == len(seen)
    assert "were not taken: they are tried again" in home.reader.text()
    watcher.connection.close()
