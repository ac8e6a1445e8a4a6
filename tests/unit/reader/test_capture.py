"""Sixteen hours of a real EMU-2's line, a quarter of them damaged, against a strict XML parser.

The file is not part of the repository; RAVEN_DATA names the folder it is in.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from raven_reader.acceptance import Limits
from raven_reader.intake import Accepted, Intake, Rejected
from ravenbus.notifications import kind_of

STICK = "0xd8d5b9000001146c"
NOTIFICATIONS = (
    b"ConnectionStatus|NetworkInfo|DeviceInfo|ScheduleInfo|MeterList|MeterInfo|TimeCluster|"
    b"MessageCluster|PriceCluster|InstantaneousDemand|CurrentSummationDelivered|"
    b"CurrentPeriodUsage|LastPeriodUsage|ProfileData|BlockPriceDetail|FastPollStatus|"
    b"BillingPeriodList|Warning"
)


class Whole(NamedTuple):
    """A stretch of the file that is well-formed XML of the API's shape."""

    raw: bytes
    children: dict[str, str]

    def has_whole_ids(self):
        """Whether both ids have their 16 digits."""
        macs = (self.children["DeviceMacId"], self.children["MeterMacId"])
        return all(re.fullmatch("0x[0-9a-f]{16}", mac) for mac in macs)


def strictly_read(data):
    """Yield what ElementTree reads from a root's start tag to the next end tag of that name."""
    for start in re.finditer(b"<(" + NOTIFICATIONS + b")>", data):
        end = data.find(b"</" + start[1] + b">", start.end())
        if end < 0:
            continue
        raw = data[start.start() : end + len(start[1]) + 3]
        try:
            root = ET.fromstring(raw)  # noqa: S314 - a file of our own
        except ET.ParseError:
            continue
        stray = (root.text or "") + "".join(child.tail or "" for child in root)
        if not stray.strip() and not any(len(child) for child in root):
            yield Whole(raw, {child.tag: child.text or "" for child in root})


@pytest.fixture(scope="module")
def data():
    beside = Path(__file__).parents[4] / "shared" / "data"
    path = Path(os.environ.get("RAVEN_DATA", beside)) / "emu2-capture.txt"
    if not path.exists():
        pytest.skip("no real capture here: RAVEN_DATA names the folder with emu2-capture.txt")
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(data):
    return list(strictly_read(data))


@pytest.fixture(scope="module")
def read(data):
    """What becomes of the file, and what the intake counts of it."""
    intake = Intake(Limits())
    return intake.feed(data, None) + intake.finish(), intake.counts


@pytest.fixture(scope="module")
def outcomes(read):
    return read[0]


@pytest.fixture(scope="module")
def counts(read):
    return read[1]


def test_every_good_fragment_is_read_and_nothing_else(whole, outcomes):
    """The readings are what a strict parser accepts with whole ids and the stick's own."""
    good = [w.raw for w in whole if w.has_whole_ids() and w.children["DeviceMacId"] == STICK]
    assert [outcome.raw for outcome in outcomes if isinstance(outcome, Accepted)] == good
    assert len(good) == 765


def test_the_rest_of_the_whole_fragments_is_rejected_for_its_ids(whole, outcomes, counts):
    """Of 814 whole fragments 24 have ids that lost digits, and 25 name another device."""
    rejected = {
        reason: [o.raw for o in outcomes if isinstance(o, Rejected) and o.error.reason == reason]
        for reason in ("bad-value", "other-device")
    }
    assert rejected["bad-value"] == [w.raw for w in whole if not w.has_whole_ids()]
    assert rejected["other-device"] == [
        w.raw for w in whole if w.has_whole_ids() and w.children["DeviceMacId"] != STICK
    ]
    assert {reason: len(raws) for reason, raws in rejected.items()} == {
        "bad-value": 24,
        "other-device": 25,
    }
    assert counts.whole == len(whole) == 814


def test_the_other_starts_are_damaged(data, whole, counts):
    """Each start tag that begins no whole fragment counts as damage, also if it lost letters."""
    known = len(re.findall(b"<(?:" + NOTIFICATIONS + b")>", data))
    lost_letters = len(re.findall(rb"<(?!(?:" + NOTIFICATIONS + rb")>)\w+>\s*<DeviceMacId>", data))
    assert (known, lost_letters) == (1352, 40)
    assert counts.damaged == known - len(whole) + lost_letters == 578


def test_what_is_read_is_plausible(outcomes):
    """No reading is made up: one meter, demands of a house, a clock and registers that only grow."""
    read = [outcome.report.notification for outcome in outcomes if isinstance(outcome, Accepted)]
    assert Counter(kind_of(reading) for reading in read) == {
        "instantaneous_demand": 602,
        "price_cluster": 98,
        "current_summation_delivered": 26,
        "connection_status": 25,
        "time_cluster": 14,
    }
    assert len({reading.meter for reading in read}) == 1
    demands = [reading for reading in read if kind_of(reading) == "instantaneous_demand"]
    assert all(0.3 < reading.demand_kw < 12 for reading in demands)
    times = [reading.time for reading in demands]
    assert times == sorted(set(times))
    registers = [r.delivered_kwh for r in read if kind_of(r) == "current_summation_delivered"]
    assert registers == sorted(registers)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_pieces_do_not_matter(data, outcomes, size):
    """The same readings come from the line byte by byte, and as a USB port gives them."""
    intake = Intake(Limits())
    found = [
        outcome
        for start in range(0, len(data), size)
        for outcome in intake.feed(data[start : start + size], None)
    ]
    found += intake.finish()
    assert [(type(o), o.raw) for o in found] == [(type(o), o.raw) for o in outcomes]
