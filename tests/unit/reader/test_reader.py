"""The reader, with a spool on disk and a publisher that only remembers."""

from __future__ import annotations

import logging
from datetime import timedelta
from types import SimpleNamespace

import msgspec
import pytest

from raven_reader import reader as module

from .examples import (
    EXAMPLES,
    NOON,
    OTHER_METER,
    demand,
    device_info,
    fragment,
    of_example,
    price,
    stamped,
    summation,
)
from .fakes import Crowded, received


def test_what_is_accepted_is_in_the_outbox(home):
    """Readings leave with numbers from 1, the host's time, and the run's name and hash."""
    home.hear(demand("0x000001"))
    home.clock.forward(15)
    home.hear(demand("0x000002", TimeStamp="0x3136e6cf") + summation())
    found = [(r.envelope.seq, r.kind, r.envelope.received.second) for r in home.readings]
    assert found == [
        (1, "instantaneous_demand", 0),
        (2, "instantaneous_demand", 15),
        (3, "current_summation_delivered", 15),
    ]
    assert {r.envelope.hash for r in home.readings} == {home.spool.run.hash}
    assert home.counted("raven_fragments_total", outcome="accepted") == 3
    assert home.bus.woken >= 2


def test_every_kind_is_kept_and_published(make):
    """Each example of the API leaves the reader as the reading that it means, once."""
    home = make(raven_max_clock_skew_s=0.0)
    for example in EXAMPLES:
        home.reader.opened("/dev/ttyACM0")
        home.hear(example.xml)
    read = [reading.notification for reading in home.readings]
    meant = [example.meaning for example in EXAMPLES]
    assert [found for found in read if found in meant] == read
    waiting = home.spool.waiting()
    assert len(read) + len(waiting) == len(EXAMPLES)
    assert all(b"CurrentSummation" in one.fragment for one in waiting)


def test_a_new_meters_readings_wait_on_disk_and_are_taken_in(home):
    """A meter that is new is no reading's until it came three times, over a restart too."""
    home.hear(demand("0x000001"))
    for number in (2, 3):
        home.clock.forward(15)
        home.hear(demand(f"0x00000{number}", MeterMacId=OTHER_METER))
        assert len(home.readings) == 1
        assert len(home.spool.waiting()) == number - 1
        assert home.counted("raven_waiting") == number - 1
        home.restart()
    home.clock.forward(15)
    home.hear(demand("0x000004", MeterMacId=OTHER_METER))
    found = [(r.notification.demand, r.envelope.received.second) for r in home.readings]
    assert found == [(1, 0), (2, 15), (3, 30), (4, 45)]
    assert home.spool.waiting() == []
    assert home.counted("raven_waiting") == 0
    home.restart()
    assert (
        home.hear(demand("0x000005", MeterMacId=OTHER_METER)).readings[-1].notification.demand == 5
    )


def test_what_waited_in_vain_is_a_dead_letter(home):
    """A damaged meter id is buried once no meter can be behind it, with the time at which it came."""
    home.hear(demand(), demand("0x000001", MeterMacId="0x0013500100abcdee"))
    assert home.letters == []
    home.restart()
    home.clock.forward(3601)
    home.hear(demand("0x000002"))
    (letter,) = home.letters
    assert (letter.reason, letter.at) == ("unknown-meter", NOON)
    assert home.spool.waiting() == []
    assert [r.notification.demand for r in home.readings] == [1437, 2]


def test_what_waits_while_the_disk_is_full_is_kept_later(home):
    """What is to wait needs the disk too; until there is room it waits in memory."""
    home.hear(demand("0x000000"))
    with Crowded(home.spool):
        home.hear(*(demand(f"0x{number:06x}") for number in range(1, 300)))
        home.hear(demand("0x000fff", MeterMacId=OTHER_METER))
        assert home.spool.waiting() == []
    home.seconds += module.KEEP_AGAIN_S
    home.hear(b"")
    assert len(home.spool.waiting()) == 1


def test_a_registers_baseline_outlasts_a_report_without_a_value_and_a_restart(home):
    """After all ones and a restart, a zero still contradicts what the register was."""
    home.hear(summation(), summation("0xffffffff", TimeStamp="0x3136e6cf"))
    assert [r.notification.summation_delivered for r in home.readings] == [0x9586914, None]
    home.restart().hear(summation("0x0000000000000000", TimeStamp="0x3136e6d0"))
    assert len(home.readings) == 2
    assert len(home.spool.waiting()) == 1


@pytest.mark.parametrize(
    ("days", "synchronised", "state", "says"),
    [
        (-60, True, "off", "the stick's clock is 60.0 days behind"),
        (60, True, "off", "the stick's clock is 60.0 days ahead"),
        (60, False, "host-behind", "this machine's clock is 60.0 days behind"),
        (-9500, True, "unset", "the stick's clock is not set"),
    ],
)
def test_a_wrong_clock_is_seen_and_costs_nothing(home, caplog, days, synchronised, state, says):
    """Status, health, metrics and the log say which clock is wrong, when it begins and ends."""
    caplog.set_level(logging.INFO)
    home.synchronised = synchronised
    home.reader.opened("/dev/ttyACM0")
    for second in (1, 2, 3):
        home.hear(stamped(NOON + timedelta(days=days, seconds=second)))
    whose = "host" if state == "host-behind" else "device"
    said = [NOON + timedelta(days=days, seconds=second) for second in (1, 2, 3)]
    field = "time" if whose == "host" else "claimed_time"
    assert [getattr(r.notification, field) for r in home.readings] == said
    assert home.state("status")[-1]["clock"] == state
    assert says in home.health.problems()["clock"]
    assert home.counted("raven_clock_problem", clock=whose) == 1
    assert home.counted("raven_device_clock_ahead_seconds") == days * 86400 + 3
    home.hear(stamped(NOON))
    assert home.state("status")[-1]["clock"] == "right"
    assert home.health.problems() == {}
    assert home.counted("raven_clock_problem", clock=whose) == 0
    lines = [record for record in caplog.records if getattr(record, "check", "") == "clock"]
    assert [record.message for record in lines] == ["problem", "recovered"]


def test_a_report_repeated_after_a_restart_is_no_new_one(home):
    """What the device sends again after the reader's restart was stored before it."""
    home.hear(price())
    home.restart().hear(price())
    assert len(home.readings) == 1
    assert [reading["seq"] for reading in home.state("latest/price_cluster")] == [1, 1]


def test_what_is_rejected_is_a_dead_letter(home):
    """A fragment that cannot be used waits with its reason, its bytes and their number."""
    bad = demand("0x70059d").strip()
    home.hear(demand(), bad)
    (letter,) = home.letters
    assert (letter.reason, letter.node, letter.topic) == ("demand-too-large", "home", None)
    assert (letter.payload, letter.size, letter.at) == (bad, len(bad), NOON)
    assert home.counted("raven_rejected_total", reason="demand-too-large") == 1
    assert len(home.readings) == 1


def test_a_dead_letter_shows_no_secret(home):
    """The bytes of a DeviceInfo that cannot be used are masked, as long as they were."""
    bad = device_info(ImageType="0x22019").strip()
    home.hear(bad)
    (letter,) = home.letters
    assert len(letter.payload) == letter.size == len(bad)
    assert b"Rainforest" in letter.payload
    for secret in (b"0123456789abcdef", b"00112233445566778899aabbccddeeff"):
        assert secret in bad
        assert secret not in letter.payload


def test_no_secret_is_logged_or_published(make, caplog):
    """With everything published and logged, no credential is in any of it."""
    home = make(raven_publish_raw=True, raven_allow_setters=True)
    caplog.set_level(logging.DEBUG)
    bad = device_info(ImageType="0x22019")
    home.hear(device_info(), of_example("meter"), bad)
    home.node.command(received(b'{"name":"set_meter_info","parameters":{"Auth":"hush-hush"}}'))
    shown = repr(home.bus.states) + repr(home.bus.sent) + repr(home.entries)
    shown += "".join(repr(record.__dict__) for record in caplog.records)
    for secret in ("0123456789abcdef", "00112233445566778899aabbccddeeff", "hush-hush"):
        assert secret not in shown


def test_a_notification_that_is_new_is_only_counted(home):
    """A root that no manual has fills neither the stores nor the dead letters."""
    home.hear(fragment("NwkTable", {"DeviceMacId": "0xd8d5b90000001234"}))
    assert home.entries == []
    assert home.counted("raven_rejected_total", reason="unknown-kind") == 1


def test_damage_is_counted(home):
    """A fragment that was cut is counted as damaged when the next one shows it."""
    home.hear(demand()[:100], demand())
    assert home.counted("raven_fragments_total", outcome="damaged") == 1
    assert home.counted("raven_fragments_total", outcome="accepted") == 1


def test_a_full_disk_loses_nothing_of_what_comes(home):
    """While the disk is full readings wait in memory; with room each is there once, in order."""
    home.hear(demand("0x000000"))
    with Crowded(home.spool):
        for number in range(1, 300):
            home.hear(demand(f"0x{number:06x}"))
        home.hear(demand("0x70059d"))
        kept = len(home.readings)
        assert kept < 300
        assert "full" in home.health.problems()["spool"]
    home.hear(b"")
    assert len(home.readings) == kept, "the disk is not tried with each byte"
    home.seconds += module.KEEP_AGAIN_S
    home.hear(b"")
    found = [(r.envelope.seq, r.notification.demand) for r in home.readings]
    assert found == [(number + 1, number) for number in range(300)]
    assert [letter.reason for letter in home.letters] == ["demand-too-large"]
    assert "spool" not in home.health.problems()
    assert home.counted("raven_refused_total") == 0


def test_a_disk_that_stays_full_refuses_the_oldest_and_counts_it(home, monkeypatch):
    """Memory is bounded while the disk is full, and what it costs is counted."""
    monkeypatch.setattr(module, "PENDING_MAX", 5)
    home.restart()
    with Crowded(home.spool):
        home.hear(*(demand(f"0x{number:06x}") for number in range(400)))
        kept = len(home.readings)
        assert len(home.reader._pending) == 5
    home.seconds += module.KEEP_AGAIN_S
    home.hear(b"")
    assert home.counted("raven_refused_total") == 400 - kept - 5
    found = [(r.envelope.seq, r.notification.demand) for r in home.readings]
    assert found[-5:] == [(kept + number + 1, 395 + number) for number in range(5)]


def test_readings_are_written_together_where_the_disk_is_to_be_spared(make):
    """The first at once, the others when it is time or the reader ends, with the times at which they came."""
    home = make(raven_write_every_s=20)
    home.hear(demand("0x000000"))
    assert len(home.readings) == 1
    for number in range(1, 5):
        home.clock.forward(5)
        home.seconds += 5
        home.hear(b"")
        assert len(home.readings) == (4 if number == 4 else 1)
        home.hear(demand(f"0x{number:06x}"))
    home.reader.end()
    found = [reading.envelope.received for reading in home.readings]
    assert found == [found[0] + number * timedelta(seconds=5) for number in range(5)]
    assert [reading.notification.demand for reading in home.readings] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("sign", ["00", "70"])
def test_many_readings_do_not_wait_for_the_next_write(make, monkeypatch, sign):
    """Nor do many that are rejected, as those of 7 MW are."""
    monkeypatch.setattr(module, "GATHERED_MAX", 5)
    home = make(raven_write_every_s=20)
    home.hear(demand(), *(demand(f"0x{sign}{number:04x}") for number in range(1, 9)))
    assert len(home.readings) + len(home.letters) == 6


def test_what_waits_in_memory_is_kept_at_the_end(home):
    """A reader that stops puts what is pending in the spool, then says goodbye."""
    home.hear(demand())
    with Crowded(home.spool):
        home.hear(*(demand(f"0x{number:06x}") for number in range(300)))
    home.reader.end()
    assert len(home.readings) == 301
    assert home.statuses[-1] == ("offline", "disconnected", None)


def test_the_status_follows_the_line(home):
    """Silent when opened, connected when heard, silent when asked, disconnected when lost."""
    home.reader.opened("/dev/ttyACM0")
    home.hear(b"", b"noise")
    home.clock.forward(5)
    home.hear(demand(), demand("0x000001"))
    home.reader.silent(120.0)
    assert "silent for more than 120 s" in home.health.problems()["device"]
    home.hear(demand("0x000002"))
    assert home.health.problems() == {}
    home.reader.lost("/dev/ttyACM0 is gone")
    assert home.statuses == [
        ("online", "disconnected", None),
        ("online", "silent", "/dev/ttyACM0"),
        ("online", "connected", "/dev/ttyACM0"),
        ("online", "silent", "/dev/ttyACM0"),
        ("online", "connected", "/dev/ttyACM0"),
        ("online", "disconnected", None),
    ]
    assert home.state("status")[-1]["detail"] == "/dev/ttyACM0 is gone"
    assert home.counted("raven_device_connected") == 0


def test_a_line_that_says_nothing_shows_in_the_health(home):
    """A line's thread that hangs is a problem by the age of its last turn."""
    turn = SimpleNamespace(now=0.0)
    home.health._clock = lambda: turn.now
    home.hear(b"")
    turn.now = module.LINE_STALL_S + 1
    assert "line" in home.health.problems()


def test_another_stick_is_accepted_at_another_port(home):
    """What was unfinished at one port is not continued at the next, whose stick counts."""
    home.hear(demand(), demand("0x000001")[:90])
    home.reader.opened("/dev/ttyACM1")
    home.hear(demand("0x000001")[90:], demand("0x000002", DeviceMacId="0x00158d0000001234"))
    assert [reading.notification.demand for reading in home.readings] == [1437, 2]


def test_a_reading_is_valid_json_of_the_contract(home):
    """What leaves is one flat object with the identity, the kind and the raw and scaled value."""
    home.hear(demand("0xfffffa36"))
    (entry,) = home.entries
    found = msgspec.json.decode(entry.payload)
    expected = {
        "v": 1,
        "node": "home",
        "seq": 1,
        "kind": "instantaneous_demand",
        "time": "2026-03-01T12:00:00Z",
        "received": "2026-03-01T12:00:00Z",
        "demand": -1482,
        "demand_kw": -1.482,
    }
    assert expected.items() <= found.items()
