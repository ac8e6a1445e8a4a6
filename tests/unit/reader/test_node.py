"""What a node tells of itself on the bus, and how it answers commands."""

from __future__ import annotations

import pytest

from raven_reader.node import will
from raven_reader.outbox import Backlog
from ravenbus import __version__
from ravenbus.messages import Status, decode, now
from ravenbus.topics import Topics

from .examples import DEVICE, METER, OTHER_METER, RAVEN, demand, device_info, price
from .fakes import received


def test_a_status_says_since_when(home):
    """A status keeps its time while only the reason changes, and is not repeated unchanged."""
    home.reader.lost("not there")
    home.clock.forward(60)
    home.reader.lost("not there")
    home.reader.lost("not allowed")
    found = [(s["detail"], s["since"]) for s in home.state("status")]
    assert found == [
        ("starting", "2026-03-01T12:00:00Z"),
        ("not there", "2026-03-01T12:00:00Z"),
        ("not allowed", "2026-03-01T12:00:00Z"),
    ]


def test_a_status_says_the_release(home):
    """Whichever it is: also the one that the broker sends when the reader is gone."""
    home.reader.opened("/dev/ttyUSB0")
    gone = decode(will(Topics("raven"), "home", now()).payload, Status)
    assert {gone.version, *(one["version"] for one in home.state("status"))} == {__version__}


def asked(home, payload):
    """Return the reply to a command while a stick is there."""
    home.reader.opened("/dev/ttyUSB0")
    home.node.command(received(payload))
    return home.sent("reply")[-1]


def test_a_command_that_is_allowed_is_sent(home):
    """A command that only reads goes to the device, and the reply carries its id."""
    payload = b'{"id":"7","name":"get_time","parameters":{"Refresh":"Y"}}'
    reply = asked(home, payload)
    assert home.asked == [b"<Command><Name>get_time</Name><Refresh>Y</Refresh></Command>\r\n"]
    assert (reply["sent"], reply["id"], reply["name"]) == (True, "7", "get_time")


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b'{"name":"factory_reset"}', "never sent"),
        (b'{"name":"set_schedule"}', "RAVEN_ALLOW_SETTERS"),
        (b'{"name":"get_time","parameters":{"Foo":"Y"}}', "Refresh"),
        (b'{"name":"get_time","parameters":{"Refresh":"\\u00e9"}}', "ASCII"),
        (b"get_time", "malformed"),
        (b"", "truncated"),
        (b"\xff", ""),
        (b'{"command":"get_time"}', "command"),
        (b'{"name":7}', "str"),
        (b"[" * 100_000, ""),
    ],
)
def test_a_command_that_is_not_allowed_is_refused(home, payload, says):
    """Whatever comes as a command is answered with what is wrong, and nothing is sent."""
    reply = asked(home, payload)
    assert reply["sent"] is False
    assert says in reply["detail"]
    assert home.asked == []


def test_a_command_without_a_stick_is_refused(home):
    """Nobody is told that a command was sent when there is nothing to send it to."""
    home.reader.lost("unplugged")
    home.node.command(received(b'{"name":"get_time"}'))
    reply = home.sent("reply")[-1]
    assert (reply["sent"], reply["detail"]) == (False, "no stick is connected")
    assert home.asked == []


def test_a_setter_is_sent_where_it_is_allowed(make):
    """The setting opens what changes something, and nothing that can ruin a device."""
    home = make(raven_allow_setters=True)
    assert asked(home, b'{"name":"close_current_period"}')["sent"]
    assert not asked(home, b'{"name":"erase_halt"}')["sent"]
    assert len(home.asked) == 1


def test_raw_fragments_are_published_masked(make):
    """Where it is asked for each whole fragment is published as it came, without its secrets."""
    home = make(raven_publish_raw=True).hear(device_info(), demand())
    info, reading = [raw["fragment"] for raw in home.sent("raw")]
    assert reading.encode() == demand().strip()
    assert "<InstallCode>" + "*" * 18 in info


def test_raw_fragments_are_off(home):
    """Without the setting no raw fragment leaves the reader."""
    home.hear(demand())
    assert home.bus.sent == {}


def test_a_rejected_fragment_is_published_raw(make):
    """Where raw fragments are asked for, the ones that are hard to read are among them."""
    home = make(raven_publish_raw=True).hear(demand("0x70059d"))
    assert len(home.sent("raw")) == 1


def test_the_run_is_published_with_its_meter(home):
    """The run is known from the start, and again when the first reading names the meter."""
    home.hear(demand(MeterMacId=""), demand("0x000001"), demand("0x000002"))
    assert [run["meter"] for run in home.state("run")] == [None, "0013500100abcdef"]
    assert {run["hash"] for run in home.state("run")} == {home.spool.run.hash}
    home.restart()
    assert [run["meter"] for run in home.state("run")] == ["0013500100abcdef"]


def test_the_last_readings_are_retained_after_a_restart(home):
    """A restart publishes the last reading of each kind before anything is heard."""
    home.hear(demand("0x000001"), demand("0x000002"), price())
    home.restart()
    assert {r["demand"] for r in home.state("latest/instantaneous_demand")} == {2}
    assert {r["price"] for r in home.state("latest/price_cluster")} == {603}


def test_a_repeated_report_refreshes_the_last_one(home):
    """A report sent again is not stored again; the last reading is retained with when it was said."""
    home.hear(price())
    home.clock.forward(90)
    home.hear(price())
    assert len(home.readings) == 1
    first, *_, last = home.state("latest/price_cluster")
    assert first["seq"] == last["seq"] == 1
    assert first["received"] == last["received"] == first["heard"] == "2026-03-01T12:00:00Z"
    assert last["heard"] == "2026-03-01T12:01:30Z"
    assert home.counted("raven_fragments_total", outcome="repeated") == 1


def test_what_was_heard_before_a_restart_is_not_new(home):
    """The last readings are said again with when they were heard, not with now."""
    home.hear(demand())
    home.clock.forward(600)
    home.restart()
    assert {r["heard"] for r in home.state("latest/instantaneous_demand")} == {
        "2026-03-01T12:00:00Z"
    }


def test_a_status_says_what_has_yet_to_reach_the_stores(home):
    """What nobody took and what each store has not confirmed is said, and again when it changes."""
    home.node.set_backlog(Backlog(3, {"raven-sql-writer": 12}))
    home.reader.lost("unplugged")
    for status in home.state("status")[1:]:
        assert (status["waiting"], status["behind"]) == (3, {"raven-sql-writer": 12})
    home.node.set_backlog(Backlog(0, {"raven-sql-writer": 0}))
    assert home.state("status")[-1]["waiting"] == 0


def test_the_stick_is_described_once_for_what_is_known(home):
    """Home Assistant hears of the stick when something new is known, and when it starts."""
    home.hear(device_info(), demand(), demand("0x000001"), price(), price())
    found = home.descriptions
    assert [d["device"].get("model") for d in found] == ["Z105-2-EMU2-LEDD_JM"] * 2
    assert "price" not in found[0]["components"]
    assert found[1]["components"]["price"]["unit_of_measurement"] == "USD/kWh"
    home.node.homeassistant_status(received(b"online"))
    home.node.homeassistant_status(received(b"offline"))
    assert found[2:] == [found[1]]


def test_home_assistant_may_start_while_something_new_is_heard(home, monkeypatch):
    """It is told on another thread than the line's."""
    home.hear(device_info(), demand())
    said = home.bus.set_state

    def set_state(topic, *rest):
        said(topic, *rest)
        if "/latest/" in topic:
            monkeypatch.undo()
            home.hear(price())

    monkeypatch.setattr(home.bus, "set_state", set_state)
    home.node.homeassistant_status(received(b"online"))
    assert "price" in home.descriptions[-1]["components"]


def test_the_description_can_be_turned_off(make):
    """Without the setting Home Assistant is told to forget what it was told before."""
    home = make(raven_homeassistant=False).hear(demand())
    home.node.homeassistant_status(received(b"online"))
    assert home.descriptions == [None]


def test_the_description_is_the_same_after_a_restart(home):
    """A price that the device only repeats after a restart keeps the unit that it had."""
    home.hear(device_info(), price())
    home.restart().hear(device_info(), price(), demand())
    found = home.descriptions[-1]
    assert found["components"]["price"].get("unit_of_measurement") == "USD/kWh"


def test_the_meter_is_known_by_the_first_that_was_heard(home):
    """Its id stays through a restart, another stick and another meter."""
    home.hear(device_info(), demand()).restart()
    home.reader.opened("/dev/ttyUSB1")
    home.hear(*[demand(f"0x00000{n}", DeviceMacId=RAVEN, MeterMacId=OTHER_METER) for n in range(9)])
    assert {d["device"]["identifiers"][0] for d in home.descriptions} == {f"raven_{METER[2:]}"}
    assert home.descriptions[-1]["device"]["serial_number"] == RAVEN[2:]


def test_a_stick_that_names_no_meter_is_known_by_itself(home):
    """With one meter a RAVEn need not name it."""
    home.hear(device_info(), demand(MeterMacId=""))
    assert home.descriptions[-1]["device"]["identifiers"] == [f"raven_{DEVICE[2:]}"]


def test_what_is_written_later_is_waited_for_longer(make):
    """A sensor does not expire while its next value is gathered."""
    home = make(raven_write_every_s=30)
    home.hear(demand())
    sensors = home.descriptions[-1]["components"]
    assert [sensors[key]["expire_after"] for key in ("power", "delivered")] == [90, 720]


def test_a_slower_stick_is_waited_for_longer(home):
    """What a sensor expires after follows the reports as they come."""
    for n in range(4):
        home.hear(demand(f"0x00000{n}"))
        home.clock.forward(80)
    expires = [d["components"]["power"]["expire_after"] for d in home.descriptions]
    assert (expires[0], expires[-1]) == (45, 360)


def test_a_clock_that_is_set_back_keeps_nothing_from_home_assistant(home):
    """A machine without a battery may start in tomorrow."""
    home.hear(demand()).restart(leaves="cabin")
    home.bus.answers["homeassistant/device/cabin/config"](True)
    home.clock.forward(-86400)
    home.seconds += 8
    home.hear(demand("0x000001"))
    assert len(home.descriptions) == 1
    home.hear(price())
    assert "price" in home.descriptions[-1]["components"]


def test_a_former_name_is_left(home):
    """What is retained under it is removed; Home Assistant lets go of it before it hears the new one."""
    home.hear(demand()).restart(leaves="cabin")
    for leaf in ("latest/instantaneous_demand", "run", "status"):
        assert home.bus.states[f"raven/v1/cabin/{leaf}"] == [None]
    former = "homeassistant/device/cabin/config"
    home.hear(demand("0x000001"))
    assert home.bus.states[former] == [{"migrate_discovery": True}]
    assert home.descriptions == []
    home.bus.answers[former](True)
    home.hear(demand("0x000002"))
    assert home.descriptions == []
    home.seconds += 8
    home.hear(demand("0x000003"))
    assert len(home.descriptions) == 1
    assert home.bus.states[former][1:] == [None]
    assert home.left == []
    home.bus.answers[former](True)
    assert home.left == ["cabin"]


def test_a_former_name_that_cannot_be_left_holds_nothing_up(home):
    """Where the account may not write there, that is tried again at the next start."""
    home.hear(demand()).restart(leaves="cabin")
    former = "homeassistant/device/cabin/config"
    home.bus.answers[former](False)
    home.seconds += 8
    home.hear(demand("0x000001"))
    home.bus.answers[former](False)
    assert len(home.descriptions) == 1
    assert home.left == []


def test_a_former_name_is_removed_where_nothing_is_described(make):
    """Home Assistant forgets the device; told to let go of it, it would keep it for ever."""
    home = make(raven_homeassistant=False).hear(demand()).restart(leaves="cabin")
    former = "homeassistant/device/cabin/config"
    assert home.bus.states[former] == [None]
    home.bus.answers[former](True)
    assert home.left == ["cabin"]
