"""What is compared means the same on both sides."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from raven_harness.crash.stores import Behind, copy, sent, stated_in_text, stated_of_reading
from raven_reader.decoding import decode
from raven_reader.framing import Parser
from raven_simulator import reports
from raven_simulator.faults import Sent as Report
from raven_simulator.ledger import Ledger

MACS = {"device": 0xD8D5B90000001234, "meter": 0x0013500100ABCDEF}


def fields(payload: bytes) -> tuple[str, dict]:
    (fragment,) = Parser().feed(payload)
    notification = decode(fragment)
    kind = str(notification.__struct_config__.tag)
    envelope = {"node": "n", "seq": 1, "received": datetime(2026, 1, 1, tzinfo=UTC)}
    return kind, envelope | msgspec.structs.asdict(notification)


def test_what_the_ledger_says_is_what_the_reader_reads(tmp_path: Path):
    """The ledger's texts, read without the reader's code, mark the same reading, and no other."""
    payloads = [
        reports.instantaneous_demand(**MACS, time=825681600, demand=demand)
        for demand in (1437, -1437, 0, 0x7FFFFE)
    ]
    path = tmp_path / "ledger"
    with path.open("w") as file:
        ledger = Ledger(MACS["device"], file)
        for payload in payloads:
            ledger.report(Report(payload, payload), heard=True, unix_s=1.7e9)
    told = [one.stated for one in sent(path)]
    read = [copy(*fields(payload)).stated for payload in payloads]
    assert told == read
    assert len(set(told)) == len(payloads)
    for payload, one in zip(payloads, told, strict=True):
        kind, told_fields = fields(payload)
        message = {**told_fields, "kind": kind, "time": told_fields["time"].isoformat()}
        texts = dict(re.findall(r"<(\w+)>([^<]*)</", payload.decode()))
        assert stated_of_reading(message) == one
        assert stated_in_text("InstantaneousDemand", texts) == one
    (first, *_) = path.read_text().splitlines()
    path.write_text(first + "\n" + json.dumps({"command": "get_time", "at": "x"}) + "\n" + first)
    assert [one.stated for one in sent(path)] == told[:1]


def test_every_field_counts_and_how_a_driver_types_it_does_not():
    """A mark differs with any field, and not between a driver's own number and a number."""

    class DriversOwn(int):
        pass

    kind, told = fields(reports.instantaneous_demand(**MACS, time=825681600, demand=5))
    assert copy(kind, told) == copy(kind, told | {"demand": DriversOwn(5)})
    for name in told.keys() - {"seq"}:
        assert copy(kind, told | {name: "another"}).whole != copy(kind, told).whole


def test_a_store_is_behind_by_what_is_not_found():
    """Numbers are asked for until they are found, in their order."""
    behind = Behind()
    assert behind.by(3) == 3
    assert behind.ask(3) == [1, 2, 3]
    behind.found({1, 3})
    assert (behind.by(1), behind.by(3), behind.by(5)) == (0, 1, 3)
    assert behind.ask(5) == [2, 4, 5]
    behind.found({2, 4, 5})
    assert behind.by(5) == 0
