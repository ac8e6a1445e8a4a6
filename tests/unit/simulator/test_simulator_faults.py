"""Each fault damages exactly the reports that it says it damages."""

import random
import re

import pytest

from raven_simulator import control, faults, orders, reports
from raven_simulator.timeline import ClockJump, Reset, Silence, Stall, Timeline, Unplug

ROOT = re.compile(b"<(" + "|".join(reports.KINDS).encode() + b")>")


def fragments(count: int = 400):
    """Make reports of several kinds, each different from the others."""
    ids = {"device": 0xD8D5B90000001234, "meter": 0x0013500100ABCDEF}
    price = reports.Price(603, 4, "Tier 1")
    made = []
    for n in range(count):
        if n % 5 == 3:
            made.append(reports.price_cluster(**ids, time=n, price=price, window=None))
        elif n % 5 == 4:
            made.append(reports.time_cluster(**ids, utc=n, local=n))
        else:
            made.append(reports.instantaneous_demand(**ids, time=n, demand=1000 + n))
    return made


def read(line: bytes):
    """Read a line as a careful host does: a known root starts afresh, and only well-formed notifications count."""
    line = line.replace(b"\0", b"")
    starts = [found.start() for found in ROOT.finditer(line)]
    found = []
    for start, end in zip(starts, [*starts[1:], len(line)], strict=True):
        name = ROOT.match(line, start)[1]
        candidate, closed, _ = line[start:end].partition(b"</" + name + b">")
        if closed and reports.is_whole(candidate + closed):
            found.append(faults.oneline(candidate + closed))
    return found


@pytest.mark.parametrize(
    "kind",
    ["garbage", "nul", "cut", "overwrite", "letters", "repeat", "negative", "sentinel", "oneline"],
)
@pytest.mark.parametrize("chance", [0.3, 1.0])
def test_exactly_the_whole_reports_are_readable(kind: str, chance: float):
    """What a careful host reads from the line are the reports marked whole: none missing, none made up."""
    sent = faults.play(fragments(), {kind: chance}, random.Random(3))
    line = b"".join(item.payload for item in sent)
    assert read(line) == [faults.oneline(item.fragment) for item in sent if item.whole]
    if kind in ("cut", "overwrite", "letters"):
        assert {item.fault for item in sent if not item.whole} == {kind}
        assert any(not item.whole for item in sent)
    else:
        assert all(item.whole for item in sent)


def test_all_faults_together_stay_accounted_for():
    """With every fault at once a careful host reads the whole reports, and those with a wrong digit."""
    chances = dict.fromkeys(faults.CHANCES, 0.1)
    sent = faults.play(fragments(3000), chances, random.Random(4))
    line = b"".join(item.payload for item in sent)
    readable = [item for item in sent if item.whole or item.fault == "digit"]
    found = read(line)
    assert len(found) == len(readable)
    for item, fragment in zip(readable, found, strict=True):
        assert (fragment == faults.oneline(item.fragment)) == item.whole


def test_a_wrong_digit_is_well_formed_and_marked():
    """A digit fault changes one value of a report and nothing else; the report is not whole."""
    for item in faults.play(fragments(100), {"digit": 1.0}, random.Random(1)):
        assert reports.is_whole(item.payload)
        assert not item.whole
        original, damaged = reports.fields_of(item.fragment), reports.fields_of(item.payload)
        assert sum(original[name] != damaged[name] for name in original) == 1
        assert original["DeviceMacId"] == damaged["DeviceMacId"]


def test_overwrite_opens_a_root_inside_another():
    """The report after an overwritten one stands whole inside it, and the rest of the overwritten one follows."""
    first, second = faults.play(fragments(2), {"overwrite": 1.0}, random.Random(1))
    assert (first.whole, second.whole) == (False, True)
    tail = second.payload.removeprefix(second.fragment)
    assert first.payload + tail == first.fragment
    assert first.payload
    assert tail


def test_midstart_hits_the_first_report_of_each_reader():
    """After each opening one report lacks its beginning, and the next are whole."""
    stream = faults.Faults(random.Random(1), {"midstart": 1.0})
    marks = []
    for fragment in fragments(6):
        if len(marks) in (0, 3):
            stream.reader_opened()
        (sent,) = stream.apply(fragment)
        assert fragment.endswith(sent.payload)
        marks.append(sent.whole)
    assert marks == [False, True, True, False, True, True]


def test_chunks_are_the_payload():
    """Pieces have 1 to 64 bytes and lose nothing."""
    payload = b"".join(fragments(20))
    pieces = faults.chunks(payload, random.Random(1))
    assert b"".join(pieces) == payload
    assert {len(piece) for piece in pieces} <= set(range(1, 65))


def test_filler_in_the_date_code():
    """0xFF bytes stand in DateCode and nowhere else, and the report is whole."""
    identity = reports.Identity(1, 2, "1", "2", "Maker", "Model", "20120601ZBLOT042")
    info = reports.device_info(device=1, identity=identity)
    (sent,) = faults.play([info], {"ff": 1.0}, random.Random(1))
    assert sent.whole
    assert b"\xff</DateCode>" in sent.payload
    assert faults.play(fragments(5), {"ff": 1.0}, random.Random(1)) == faults.play(
        fragments(5), {}, random.Random(1)
    )


def test_the_same_seed_damages_the_same():
    """Faults depend on the seed alone."""
    chances = dict.fromkeys(faults.CHANCES, 0.1)
    first, again, other = (
        faults.play(fragments(), chances, random.Random(seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_timeline_is_asked_at_any_time():
    """Silence holds and repeats, the clock jumps for good, what befalls the port is handed out once."""
    ordered = (Silence(10, 2, 60), ClockJump(5, -30), Stall(9), Reset(8), Unplug(7, 1, "tty{n}"))
    timeline = Timeline(ordered, 3)
    assert [t for t in range(150) if timeline.silent(t)] == [10, 11, 70, 71, 130, 131]
    assert [timeline.clock_offset_s(t) for t in (4, 5, 100)] == [0, -30, -30]
    assert timeline.next_of_port(6) is None
    assert timeline.next_of_port(7.5) == Unplug(7, 1, "tty3")
    assert timeline.next_of_port(7.5) is None
    assert [timeline.next_of_port(9) for _ in range(3)] == [Reset(8), Stall(9), None]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cute", "unknown fault 'cute'; known: garbage, "),
        ("cut:2", r"probability 2 is not between 0 and 1; allowed: cut\[:PROBABILITY\]"),
        ("cut:often", "'often' is not a number"),
        ("silence:5", r"1 parameters; allowed: silence:AT,SECONDS\[,EVERY\]"),
        ("silence:0,9,5", "EVERY is not longer than SECONDS"),
        ("unplug:-1,5", "-1 is negative"),
        ("reset", "0 parameters; allowed: reset:AT"),
        ("clock:nan,1", "'nan' is not finite"),
    ],
)
def test_a_bad_fault_is_named(text: str, complaint: str):
    """An order that cannot be followed says what was wrong and what is allowed."""
    with pytest.raises(ValueError, match=complaint):
        orders.parse(text)


def test_control_lines():
    """A control line is read with its device, and raw text with its escapes."""
    assert control.parse("@2 replug /dev/x\n") == control.Order("replug", "/dev/x", 2)
    assert control.parse(r"send a\r\n\x00\\") == control.Order("send", b"a\r\n\0\\")
    assert control.parse("fault cut:0.5").argument == orders.Chance("cut", 0.5)
    for line in ("", "plug", "silence", "clock soon", r"send \q", "fault unplug:1,2", "@x stop"):
        with pytest.raises(ValueError, match=r"."):
            control.parse(line)
