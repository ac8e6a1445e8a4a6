"""What reaches a reader, and what the ledger says of it."""

import io
import json
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from raven_simulator.device import Device
from raven_simulator.faults import Faults
from raven_simulator.ledger import Ledger
from raven_simulator.load import Playback, Sample, Table
from raven_simulator.models import EMU2, RAVEN, Model, Setup
from raven_simulator.orders import parse
from raven_simulator.reports import EPOCH_UNIX_S, is_whole
from raven_simulator.station import Limits, Station
from raven_simulator.timeline import Timeline

UNIX_S = 1_800_000_000.0


class Line:
    """A port in memory: a reader comes and goes, and may stop reading."""

    def __init__(self) -> None:
        self.address = "line"
        self.plugged = True
        self.reader = False
        self.room = 1 << 30
        self.heard = b""
        self.said = b""
        self.stalls = 0

    def plug(self, address: str | None = None):
        self.plugged = True
        self.address = address or self.address

    def unplug(self):
        self.plugged = self.reader = False

    def opened(self):
        return self.reader

    def read(self):
        said, self.said = self.said, b""
        return said

    def write(self, data: bytes):
        taken = data[: self.room]
        self.room -= len(taken)
        self.heard += taken
        return len(taken)

    def stall(self):
        self.stalls += 1

    def unread(self):
        return 0

    def descriptor(self):
        return None


class Bench:
    """A station on a line, and a clock that a test turns."""

    def __init__(
        self,
        *ordered: str,
        model: Model = RAVEN,
        chances: dict[str, float] | None = None,
        speed: float = 8.0,
        **limits: float,
    ) -> None:
        rng = random.Random(1)
        source = Playback(Table([Sample(n, exact=True) for n in range(500, 900)], 0))
        self.line = Line()
        self.output = io.StringIO()
        self.now_s = 100.0
        self.station = Station(
            reporter=Device(model, Setup(device=1, meter=2, speed=speed), source, rng),
            faults=Faults(random.Random(1), chances),
            timeline=Timeline(tuple(parse(text) for text in ordered)),
            port=self.line,
            ledger=Ledger(1, self.output),
            limits=replace(Limits(), **limits),
        )

    def run(self, seconds: float):
        for _ in range(round(seconds * 20)):
            self.station.step(self.now_s, UNIX_S + self.now_s)
            self.now_s += 0.05

    @property
    def ledger(self):
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


def test_reports_without_a_reader_are_unheard():
    """Nothing is written while nobody listens or the port is just opened, and the ledger says so; then all is heard."""
    bench = Bench()
    bench.run(5)
    assert bench.line.heard == b""
    bench.line.reader = True
    bench.run(0.15)
    before = bench.ledger
    assert before
    assert not any(entry["heard"] or entry["whole"] for entry in before)
    bench.line.heard = b""
    bench.run(5)
    after = bench.ledger[len(before) :]
    assert after
    assert all(entry["heard"] and entry["whole"] for entry in after)
    assert bench.line.heard.count(b"</") == sum(len(entry["fields"]) + 1 for entry in after)


def test_an_entry_tells_the_whole_story():
    """A ledger line has the agreed names and the raw texts of the report."""
    bench = Bench(wait=True, count=2)
    bench.line.reader = True
    bench.run(3)
    entry = bench.ledger[1]
    fields = entry.pop("fields")
    assert entry == {
        "device": "0000000000000001",
        "n": 2,
        "at": "2027-01-15T08:01:41.200Z",
        "kind": "instantaneous_demand",
        "heard": True,
        "whole": True,
        "cached": False,
        "fault": None,
    }
    assert fields["Demand"] == "0x0001f4"
    assert int(fields["TimeStamp"], 16) == int(UNIX_S) + 101 - EPOCH_UNIX_S


def test_a_reader_that_does_not_read_holds_nothing_up():
    """Reports that do not fit are given up as unheard, the torn one is not whole, and later ones arrive whole."""
    bench = Bench(wait=True)
    bench.line.reader = True
    bench.line.room = 1000
    bench.run(10)
    bench.line.room = 1 << 30
    bench.run(10)
    heard = [entry["heard"] for entry in bench.ledger]
    assert heard[0]
    assert not all(heard)
    assert heard[-1]
    assert all(entry["whole"] == entry["heard"] for entry in bench.ledger)
    first_after = heard.index(True, heard.index(False))
    assert bench.ledger[first_after]["n"] == first_after + 1


def test_a_closed_port_drops_what_was_queued():
    """What a reader left behind is unheard and is not given to the next reader."""
    bench = Bench()
    bench.line.reader = True
    bench.line.room = 100
    bench.run(2)
    bench.line.reader = False
    bench.run(1)
    bench.line.room = 1 << 30
    bench.line.heard = b""
    bench.line.reader = True
    bench.run(3)
    assert bench.line.heard.startswith(b"<")


def test_count_and_wait():
    """A station that waits starts with its first reader, sends its count, and is done."""
    bench = Bench(wait=True, count=7)
    bench.run(3)
    assert bench.ledger == []
    bench.line.reader = True
    bench.run(20)
    assert bench.station.done
    assert [entry["n"] for entry in bench.ledger] == [1, 2, 3, 4, 5, 6, 7]
    assert all(entry["heard"] for entry in bench.ledger)


def test_duration_ends_a_station():
    """A station is done when its time is over."""
    bench = Bench(duration_s=4)
    bench.run(3)
    assert not bench.station.done
    bench.run(2)
    assert bench.station.done


def test_a_repetition_counts_as_cached_once_the_first_was_heard():
    """An EMU-2's price is cached where a reader had it whole before, not where it went unheard."""
    bench = Bench(model=EMU2, speed=90)
    bench.run(2.5)
    bench.line.reader = True
    bench.run(4)
    prices = [entry for entry in bench.ledger if entry["kind"] == "price_cluster"]
    heard = [entry for entry in prices if entry["heard"]]
    assert len({entry["fields"]["TimeStamp"] for entry in prices}) == 1
    assert len(prices) > len(heard) > 2
    assert [entry["cached"] for entry in heard] == [False] + [True] * (len(heard) - 1)


def test_unplugged_the_stick_says_nothing_and_comes_back():
    """While it is unplugged nothing is produced; then it appears under its new name and rejoins."""
    bench = Bench("unplug:5,10,other")
    bench.line.reader = True
    bench.run(6)
    count = len(bench.ledger)
    assert not bench.line.plugged
    bench.run(8)
    assert len(bench.ledger) == count
    bench.run(2)
    assert bench.line.plugged
    assert bench.line.address == "other"
    back = [entry["fields"].get("Status") for entry in bench.ledger[count : count + 3]]
    assert back == ["Initializing", "Rejoining", "Connected"]


def test_silence_and_clock():
    """Silence sends nothing and answers nothing; the clock jumps where it was ordered to."""
    bench = Bench("silence:2,10", "clock:15,-3600")
    bench.line.reader = True
    bench.run(2.5)
    count = len(bench.ledger)
    bench.line.said = b"<Command><Name>get_time</Name></Command>"
    bench.run(9)
    assert [entry.get("command") for entry in bench.ledger[count:]] == ["get_time"]
    bench.run(10)
    stamps = [
        int(entry["fields"]["TimeStamp"], 16)
        for entry in bench.ledger
        if entry.get("kind") == "instantaneous_demand"
    ]
    steps = [after - before for before, after in pairwise(stamps)]
    assert min(steps) == 1 - 3600
    assert sum(step < 0 for step in steps) == 1


def test_a_command_is_answered_and_recorded():
    """A reader that speaks at once is heard and answered, and the ledger has the command."""
    bench = Bench()
    bench.run(0.5)
    bench.line.reader = True
    bench.line.said = b"<Command><Name>get_device_info</Name></Command>"
    bench.run(0.05)
    assert b"<ModelId>RFA-Z106</ModelId>" in bench.line.heard
    assert {"command", "at", "device"} == set(bench.ledger[-2])
    assert bench.ledger[-1]["kind"] == "device_info"


@pytest.mark.parametrize("kind", ["cut", "overwrite", "letters", "digit", "midstart"])
def test_the_ledger_marks_the_damaged_report(kind: str):
    """A damaged report is heard and not whole, with its fault; its fields are what the device meant."""
    bench = Bench(wait=True, count=40, chances={kind: 0.5})
    bench.line.reader = True
    bench.run(60)
    damaged = [entry for entry in bench.ledger if not entry["whole"]]
    assert damaged
    assert all(entry["heard"] and entry["fault"] == kind for entry in damaged)
    whole = [entry for entry in bench.ledger if entry["whole"]]
    assert whole
    assert all(entry["fault"] is None for entry in whole)


def test_raw_text_is_sent_and_recorded():
    """Bytes of a test's own reach the line as they are; a notification among them is known as such."""
    bench = Bench()
    bench.line.reader = True
    bench.run(1)
    raw = b"<Warning><Text>x</Text></Warning>\r\n"
    bench.station.send(raw, bench.now_s, UNIX_S)
    bench.station.send(b"\xffnoise", bench.now_s, UNIX_S)
    bench.run(0.05)
    assert raw + b"\xffnoise" in bench.line.heard
    sent = [entry for entry in bench.ledger if entry["fault"] == "sent"]
    assert [(entry["kind"], entry["whole"]) for entry in sent] == [
        ("warning", True),
        ("unknown", False),
    ]
    assert is_whole(raw)


def test_a_reset_breaks_off_what_is_said():
    """The port goes in the middle of the next report, which nobody heard, and is there again at once."""
    bench = Bench("reset:5")
    bench.line.reader = True
    bench.run(8)
    assert bench.line.plugged
    assert not bench.line.reader
    broken = bench.line.heard[bench.line.heard.rindex(b"\r\n<") :]
    assert b"</" in broken
    assert not is_whole(broken)
    (back,) = [
        n for n, one in enumerate(bench.ledger) if one["fields"].get("Status") == "Rejoining"
    ]
    assert not bench.ledger[back - 2]["heard"]
    bench.line.reader = True
    bench.run(5)
    assert bench.ledger[-1]["whole"]


def test_a_stall_is_the_ports():
    """It is handed on when it is due, once."""
    bench = Bench("stall:5")
    bench.run(4)
    assert bench.line.stalls == 0
    bench.run(4)
    assert bench.line.stalls == 1
