"""What becomes of the malformed input that captures and other readers' authors have seen.

The numbers are those of the list of malformed input in the project's facts about the device.
"""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import given

from raven_reader.acceptance import Limits
from raven_reader.intake import Accepted, Intake, Rejected, Repeated, Waiting
from raven_simulator import faults
from ravenbus.messages import Envelope, Reading, decode_reading, encode

from .examples import (
    METER,
    NOON,
    demand,
    device_info,
    fragment,
    in_upper_case,
    of_example,
    on_one_line,
    price,
    summation,
    with_line_feeds,
)
from .strategies import cut_into, noise, sizes, steady


class Line:
    """A reader's intake, and what became of what was fed to it."""

    def __init__(self, **limits):
        self.intake = Intake(Limits(**limits))
        self.outcomes = []

    def feed(self, *pieces, at=NOON):
        for piece in pieces:
            self.outcomes += self.intake.feed(piece, at)
        return self

    @property
    def accepted(self):
        return [o.report.notification for o in self.outcomes if isinstance(o, Accepted)]

    @property
    def demands(self):
        return [notification.demand for notification in self.accepted]

    @property
    def reasons(self):
        return [o.error.reason for o in self.outcomes if isinstance(o, Rejected)]

    @property
    def whole_and_damaged(self):
        return self.intake.counts.whole, self.intake.counts.damaged


def test_01_start_mid_fragment():
    """1: the tail of a fragment is passed over, wherever the port was opened in it."""
    xml = demand("0x000001")
    for start in range(1, len(xml) - 2):
        line = Line().feed(xml[start:] + demand("0x000002"))
        assert line.demands == [2]
        assert line.reasons == []
        assert line.intake.counts.skipped_bytes == len(b"".join(xml[start:].split()))


def test_02_nul_bytes():
    """2: NUL bytes before and inside a fragment cost nothing."""
    nul = faults.nul(demand(), random.Random(2))
    assert nul.count(b"\0") > 1
    line = Line().feed(b"\0\0\0" + nul)
    assert line.demands == [1437]
    assert line.whole_and_damaged == (1, 0)


def test_03_new_root_inside_unfinished_root():
    """3: a root that opens inside an unfinished one is read; the unfinished one is counted."""
    xml = demand("0x000001")
    for place in (xml.index(b"1</Mult"), xml.index(b"</Mult"), xml.index(b"<Divisor"), 30):
        line = Line().feed(xml[:place] + demand("0x000002") + xml[place:] + demand("0x000003"))
        assert line.demands == [2, 3]
        assert line.whole_and_damaged == (2, 1)


def test_04_cut_mid_tag():
    """4: a fragment that was cut anywhere costs itself, not the one that follows at once."""
    xml = demand("0x000001").strip()
    for end in range(len("<InstantaneousDemand>"), len(xml)):
        line = Line().feed(xml[:end] + demand("0x000002"))
        assert line.demands == [2]
        assert line.whole_and_damaged == (1, 1)


@pytest.mark.parametrize("layout", [on_one_line, with_line_feeds, bytes.strip])
def test_05_no_line_ends(layout):
    """5: fragments on one line, with nothing between them, or with LF are read alike."""
    line = Line().feed(layout(demand("0x000001")) + layout(summation()) + layout(price()))
    assert [type(found).__name__ for found in line.accepted] == [
        "InstantaneousDemand",
        "CurrentSummationDelivered",
        "PriceCluster",
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 13, 64])
def test_06_small_reads(size):
    """6: reads may end anywhere."""
    data = demand("0x000001") + price() + demand("0x000002")
    line = Line().feed(*(data[start : start + size] for start in range(0, len(data), size)))
    assert len(line.accepted) == 3


def test_07_invalid_utf_8():
    """7: bytes of 0xFF in DateCode, which are no UTF-8, are dropped from it."""
    line = Line().feed(device_info().replace(b"00000042", b"\xff" * 8))
    assert line.accepted[0].date_code == "20200511"


def test_08_other_case():
    """8: tags are read in any case, also where the end tag is written otherwise."""
    mixed = demand().replace(b"</Demand>", b"</demand>").replace(b"</Instant", b"</INSTANT")
    line = Line().feed(mixed + in_upper_case(demand("0x000002")))
    assert line.demands == [1437, 2]


def test_09_empty_and_unknown_children():
    """9: empty children mean nothing, a meter may be missing, children that are new are ignored."""
    line = Line().feed(of_example("no message") + demand(MeterMacId="", Port="/dev/ttySP0"))
    message, reading = line.accepted
    assert (message.time, message.text) == (None, None)
    assert (reading.meter, reading.demand) == (None, 1437)
    assert line.feed(demand("0x000001", MeterMacId=None, Port=None)).accepted[2].meter is None


@pytest.mark.parametrize(
    ("multiplier", "divisor", "kw"),
    [("0x00000000", "0x000003e8", 1.437), ("0x00000003", "0x000003e8", 4.311)],
)
def test_10_multiplier_and_divisor(multiplier, divisor, kw):
    """10: zero counts as one, and a multiplier of 3 is not dropped."""
    line = Line().feed(demand(Multiplier=multiplier, Divisor=divisor))
    assert line.accepted[0].demand_kw == kw


def test_10_divisor_of_zero_is_judged_as_scaled():
    """10: a divisor of zero makes kilowatts of the raw value, which no house uses."""
    line = Line().feed(demand(Divisor="0x00000000"))
    assert line.reasons == ["demand-too-large"]
    assert Line(max_demand_kw=0).feed(demand(Divisor="0x00000000")).demands == [1437]


def test_11_negative_values():
    """11: exported power and energy are negative, printed in 24, 32 or 64 bits."""
    line = Line().feed(demand("0xfffa36") + demand("0xfffffa36", TimeStamp="0x3136e6cf"))
    assert line.demands == [-1482, -1482]
    line.feed(of_example("usage of a period of export"))
    assert line.accepted[2].usage_kwh == -1.482


def test_12_sentinels():
    """12: what stands for "no value" is accepted as null, never as a number or a time."""
    (found,) = Line().feed(of_example("no price")).accepted
    assert (found.time, found.price, found.price_per_kwh, found.start_time) == (None,) * 4
    (found,) = Line().feed(demand(TimeStamp="0xffffffff")).accepted
    assert (found.time, found.demand) == (None, 1437)


def test_13_repeated_and_backward_times():
    """13: a report sent again is counted as repeated; a clock that was set back is accepted."""
    line = Line().feed(price(), price(), price(Price="0x0000025c"), price())
    assert [type(outcome) for outcome in line.outcomes] == [Accepted, Repeated, Accepted, Accepted]
    line = Line().feed(demand(), demand(TimeStamp="0x3136e000"), demand("0x000001"))
    assert line.demands == [1437, 1437, 1]


def test_13_without_a_clock_nothing_is_a_repetition():
    """13: two reports without a time are two readings; in a file none is judged a repetition."""
    assert len(Line().feed(demand(TimeStamp=None), demand(TimeStamp=None)).accepted) == 2
    assert len(Line().feed(price(), price(), at=None).accepted) == 2


def test_14_registers():
    """14: registers beyond 2^31 and 2^32 are read; one that goes down is rejected."""
    line = Line().feed(summation("0x80000000"), summation("0x0000000080000001"))
    assert [found.summation_delivered for found in line.accepted] == [2**31, 2**31 + 1]
    assert Line().feed(summation("0x0000000100000000")).accepted[0].delivered_kwh == 4294967.296
    assert line.feed(summation("0x000000007ffffffe")).reasons == []
    line.feed(summation("0x0000000080000002"))
    assert line.reasons == ["summation-down"]


@pytest.mark.parametrize(
    "xml",
    [
        of_example("meter of a numbered type"),
        of_example("schedule that is off"),
        of_example("connected").replace(b">Connected", b">Hibernating"),
        price(Currency="0x0840"),
    ],
)
def test_15_values_outside_the_lists(xml):
    """15: types, events, states and currencies that nobody listed are accepted."""
    assert len(Line().feed(xml).accepted) == 1


def test_16_warning():
    """16: a Warning names no device, and belongs to whichever stick is plugged in."""
    line = Line().feed(demand(), of_example("warning"), demand("0x000001"))
    assert [type(found).__name__ for found in line.accepted][1] == "Warning"
    assert line.accepted[1].device is None


def test_17_another_port():
    """17: after the line was gone, an unfinished fragment is dropped, another stick accepted."""
    line = Line().feed(demand(), demand("0x000001")[:90])
    line.intake.another_port()
    line.feed(demand("0x000001")[90:], demand("0x000002", DeviceMacId="0x00158d0000001234"))
    assert line.demands == [1437, 2]
    assert (line.reasons, line.whole_and_damaged) == ([], (2, 1))


def test_18_odd_hex():
    """18: 0x800000 is no reading; hex without 0x and unpadded hex are numbers."""
    line = Line().feed(demand("0x800000"), demand("0xff800000", TimeStamp="0x3136e6c1"))
    assert line.demands == [None, None]
    assert Line().feed(demand("00059d")).demands == [1437]
    assert Line().feed(demand("0x59d", Divisor="0x3e8")).demands == [1437]
    assert Line().feed(of_example("billing period")).accepted[0].current_duration == 0x3983DB9


@pytest.mark.parametrize("garbage", [b"x", b"<", b"\xff", b"<InstantaneousDemand>x"])
def test_19_unbounded_garbage(garbage):
    """19: garbage without end is passed over in bounded memory, then reading goes on."""
    line = Line().feed(*[garbage * 1000] * 50, demand())
    assert line.demands == [1437]
    assert line.intake._parser.held == 0


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (demand("0x70059d"), "demand-too-large"),
        (price(Price="0x0f00025b"), "price-too-large"),
        (demand(DeviceMacId="0xd8d5b90000001235"), "other-device"),
        (demand(MeterMacId="0x0013500100abcdee"), "unknown-meter"),
        (demand(DeviceMacId="0xd8d5b9000000123"), "bad-value"),
        (demand(MeterMacId=METER[:-1]), "bad-value"),
        (summation("0x0000000009586913"), "summation-down"),
        (summation("0x0000000049586914"), "summation-jump"),
        (summation(received="0x0000000010000000"), "summation-jump"),
    ],
)
def test_20_damaged_digits(damaged, reason):
    """20: a well-formed value with a wrong digit is rejected where it is impossible."""
    later = {"TimeStamp": "0x3136e6cf"}
    line = Line().feed(summation(), demand(), damaged)
    line.feed(summation("0x0000000009586915", **later), demand("0x000001", **later))
    line.outcomes += line.intake.finish()
    assert line.reasons == [reason]
    assert len(line.accepted) == 4
    assert [o.raw for o in line.outcomes if isinstance(o, Rejected)] == [damaged.strip()]


def test_a_root_that_is_new_is_rejected_by_name():
    """A notification that the manual does not have is counted, whole, and not decoded."""
    line = Line().feed(fragment("NwkTable", {"DeviceMacId": "0xd8d5b90000001234"}))
    assert line.reasons == ["unknown-kind"]
    assert "<nwktable>" in line.outcomes[0].error.detail


def test_a_rejected_report_leaves_no_trace():
    """What was rejected is no last reading: the good report after it is no repetition."""
    line = Line().feed(demand(DeviceMacId="0xd8d5b90000001234"))
    bad = demand("0x70059d", TimeStamp="0x3136e6cf")
    line.feed(bad, bad, at=NOON + timedelta(seconds=15))
    assert [type(outcome) for outcome in line.outcomes] == [Accepted, Rejected, Rejected]


@steady
@given(noise, sizes)
def test_arbitrary_bytes_are_accepted_as_the_contract_says_or_rejected(noise, sizes):
    """Whatever comes, nothing raises, and what is accepted can be read by every store."""
    line = Line().feed(*cut_into(noise, sizes))
    run_hash = "00000000-0000-4000-8000-000000000000"
    for seq, notification in enumerate(line.accepted, 1):
        envelope = Envelope(node="n", run="r", hash=run_hash, seq=seq, received=NOON)
        reading = Reading(envelope, notification)
        assert decode_reading(encode(reading)) == reading
    rejected = [outcome.error for outcome in line.outcomes if isinstance(outcome, Rejected)]
    assert all(len(error.detail) <= 1024 for error in rejected)
    line.outcomes += line.intake.finish()
    decided = [outcome for outcome in line.outcomes if not isinstance(outcome, Waiting)]
    assert len(decided) == line.intake.counts.whole
