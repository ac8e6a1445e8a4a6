"""What a fragment means: the examples of the API, and the rules for its values."""

from __future__ import annotations

import re
from datetime import timedelta
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven_reader.decoding import decode
from raven_reader.framing import Parser
from ravenbus.errors import PoisonError
from ravenbus.messages import Envelope, Reading, decode_reading, encode
from ravenbus.notifications import KINDS, kind_of

from .examples import (
    EPOCH,
    EXAMPLES,
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
from .strategies import reports, steady

ENVELOPE = Envelope(
    node="n", run="r", hash="00000000-0000-4000-8000-000000000000", seq=1, received=NOON
)


def read(xml):
    """Return what one whole fragment means."""
    (whole,) = Parser().feed(xml)
    return decode(whole)


def reason_against(xml):
    with pytest.raises(PoisonError) as refused:
        read(xml)
    return refused.value.reason


def usage(text):
    """Return a CurrentPeriodUsage of a usage as printed."""
    return of_example("usage of the period").replace(b"0x0000000000001075", text.encode())


@pytest.mark.parametrize(
    "layout",
    [bytes, on_one_line, with_line_feeds, in_upper_case],
    ids=["as printed", "one line", "LF", "upper case"],
)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_of_the_api_means_what_the_manual_says(example, layout):
    """Every kind and variant decodes to its values, whatever the layout and the tags' case."""
    assert read(layout(example.xml)) == example.meaning


def test_the_examples_cover_every_kind():
    """No kind of the contract is without an example."""
    assert {kind_of(example.meaning) for example in EXAMPLES} == set(KINDS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x00059d", 1437),
        ("0xfffff6", -10),
        ("0x7ffffe", 0x7FFFFE),
        ("0x800001", -0x7FFFFF),
        ("0xfffffa36", -1482),
        ("0xfffffc18", -1000),
        ("0XFFFFFFF0", -16),
        ("0x0000059d", 1437),
        ("0xffffff6", 0xFFFFFF6),
        ("0x8000000", 0x8000000),
        ("0x10", 16),
        ("0xff", 255),
        ("0x9", 9),
        ("00059d", 1437),
        ("fffff6", -10),
        ("0x800000", None),
        ("0xff800000", None),
        ("0xfffffffffffffa36", -1482),
    ],
)
def test_the_printed_width_carries_the_sign_of_a_demand(text, value):
    """6, 8 and 16 digits are two's complement, other widths are not; 0x800000 is no reading."""
    found = read(demand(text))
    assert (found.demand, found.demand_kw) == (value, None if value is None else value / 1000)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0xfffffa36", -1482), ("0xfffffffffffffa36", -1482), ("0x1075", 4213)],
)
def test_the_printed_width_carries_the_sign_of_a_usage(text, value):
    """A usage is negative in 32 and in 64 bits."""
    assert read(usage(text)).current_usage == value


@pytest.mark.parametrize(
    ("text", "kwh"),
    [
        ("0x80000000", 2147483.648),
        ("0xfffffffe", 4294967.294),
        ("0x0000000080000000", 2147483.648),
        ("0x0000000100000000", 4294967.296),
        ("0x0000fffffffffffe", 281474976710.654),
    ],
)
def test_a_register_has_no_sign(text, kwh):
    """A register of 2^31, 2^32 or more is as large as it says, to the last digit."""
    assert read(summation(text)).delivered_kwh == kwh


@pytest.mark.parametrize(
    ("multiplier", "divisor", "kw"),
    [
        ("0x00000000", "0x00000000", 1437.0),
        ("0x00000000", "0x000003e8", 1.437),
        ("0x00000002", "0x00000000", 2874.0),
        ("0x00000003", "0x000003e8", 4.311),
        ("0x1", "0x2710", 0.1437),
    ],
)
def test_zero_counts_as_one_in_a_scale(multiplier, divisor, kw):
    """Value = raw x multiplier / divisor, the raw scale is passed on as it came."""
    found = read(demand(Multiplier=multiplier, Divisor=divisor))
    assert found.demand_kw == kw
    assert (found.multiplier, found.divisor) == (int(multiplier, 16), int(divisor, 16))


def test_the_manuals_own_example_of_a_scale():
    """123456 x 2 / 10000 is 24.6912, whatever the hints for a display say."""
    scale = {"Multiplier": "0x00000002", "Divisor": "0x00002710"}
    hints = {"DigitsRight": "0x01", "DigitsLeft": "0x01", "SuppressLeadingZero": "N"}
    found = read(demand("0x01e240", **scale, **hints))
    assert found.demand_kw == 24.6912
    assert (found.digits_right, found.digits_left, found.suppress_leading_zero) == (1, 1, False)


@pytest.mark.parametrize(
    ("xml", "field"),
    [
        (demand(TimeStamp="0xffffffff"), "time"),
        (demand(TimeStamp="0x00000000"), "time"),
        (demand(TimeStamp=None), "time"),
        (price(StartTime="0xffffffff"), "start_time"),
        (price(StartTime="0x00000000"), "start_time"),
        (of_example("fast poll that is off"), "end_time"),
        (price(Price="0xffffffff", TrailingDigits="0x0f"), "price"),
        (price(Price="0xffffffff", TrailingDigits="0x0f"), "price_per_kwh"),
        (price(Price="0x00000000", RateLabel=None), "price"),
        (price(Duration="0xffff"), "duration"),
        (of_example("schedule that is off"), "frequency_s"),
        (demand("0x800000"), "demand"),
        (demand("0x7fffff"), "demand"),
        (demand("0x7fffffff"), "demand"),
        (demand("0xffffffffff800000"), "demand"),
        (demand("0xff800000"), "demand_kw"),
        (demand(Multiplier="0xffffff"), "multiplier"),
        (demand(Divisor="0x00ffffff"), "demand_kw"),
        (summation("0x0000ffffffffffff"), "summation_delivered"),
        (summation("0xffffffffffff"), "delivered_kwh"),
        (summation("0xffffffff"), "delivered_kwh"),
        (summation("0x00000000ffffffff"), "delivered_kwh"),
        (summation("0xffffffffffffffff"), "delivered_kwh"),
        (summation("0xffffffffff"), "delivered_kwh"),
        (summation("0xffffff"), "delivered_kwh"),
        (summation("0x7fffffff"), "delivered_kwh"),
        (summation("0x000000007fffffff"), "delivered_kwh"),
        (summation("0x00007fffffffffff"), "delivered_kwh"),
        (summation("0x7fffffffffffffff"), "delivered_kwh"),
        (summation(received="0xffffffff"), "received_kwh"),
        (usage("0xffffffff"), "current_usage"),
        (usage("0x7fffffffffffffff"), "current_usage"),
        (usage("0x8000000000000000"), "usage_kwh"),
        (demand(Divisor="0xffffffff"), "divisor"),
        (price(Price="0x7fffffff"), "price"),
        (price(Price="0x80000000"), "price"),
        (price(StartTime="0x00000e10"), "start_time"),
        (of_example("network not found"), "status_code"),
        (of_example("not joined").replace(b"0xab", b"null"), "status_code"),
        (of_example("not joined"), "meter"),
    ],
)
def test_a_sentinel_means_nothing(xml, field):
    """What stands for "no value" is null, and what is made of it too: never a number."""
    assert getattr(read(xml), field) is None


@pytest.mark.parametrize(
    ("raw", "per_kwh"),
    [("0xfffffff6", -0.01), ("0x80000001", -2147483.647), ("0xa", 0.01), ("0x0000000a", 0.01)],
)
def test_the_printed_width_carries_the_sign_of_a_price(raw, per_kwh):
    """A price below zero is negative, never four million."""
    assert read(price(Price=raw, TrailingDigits="0x03")).price_per_kwh == per_kwh
    xml = of_example("block prices of an EMU-2").replace(b"0x000039ac", raw.encode())
    assert read(xml.replace(b"0x05", b"0x03")).blocks[0].price_per_kwh == per_kwh


@pytest.mark.parametrize(
    ("hints", "meant"),
    [
        (("0x00000003", "0x0000000f", "0x0001"), (3, 15, True)),
        (("0x03", "0x000f", "0x00000000"), (3, 15, False)),
        (("0x100", "-1", "maybe"), (None, None, None)),
        (("", "x", "0x02"), (None, None, None)),
    ],
)
def test_a_display_hint_rejects_nothing(hints, meant):
    """Hints are never applied, so one of any width, or none that can be read, costs no value."""
    names = ("DigitsRight", "DigitsLeft", "SuppressLeadingZero")
    found = read(demand(**dict(zip(names, hints, strict=True))))
    assert found.demand_kw == 1.437
    assert (found.digits_right, found.digits_left, found.suppress_leading_zero) == meant


@pytest.mark.parametrize("seconds", [1, 0xE10, 0x0136E6C0, 0x0FFFFFFF])
def test_a_clock_that_was_never_set_costs_no_reading(seconds):
    """A clock that counts from power-up is no time of a reading; what it said stays visible."""
    claimed = EPOCH + timedelta(seconds=seconds)
    stamp = f"0x{seconds:08x}"
    for xml in (demand(TimeStamp=stamp), summation(TimeStamp=stamp), price(TimeStamp=stamp)):
        assert (read(xml).time, read(xml).claimed_time) == (None, claimed)
    ids = {"DeviceMacId": "0xd8d5b90000001234"}
    raw = fragment("TimeCluster", {**ids, "UTCTime": stamp, "LocalTime": stamp})
    assert (read(raw).time, read(raw).claimed_time) == (None, claimed)
    assert read(raw).local_offset_s == 0


def test_a_price_of_zero_with_a_label_is_a_price():
    """Electricity can be free: zero means "none set" only where no label says otherwise."""
    found = read(price(Price="0x00000000"))
    assert (found.price, found.price_per_kwh) == (0, 0.0)


def test_the_clock_counts_from_2000():
    """A time is seconds since 2000-01-01 UTC, over all of the clock's range."""
    for seconds in (0x10000000, 0x3136E6C0, 0x80000000, 0xFFFFFFFE):
        expected = EPOCH + timedelta(seconds=seconds)
        assert read(demand(TimeStamp=f"0x{seconds:08x}")).time == expected


@pytest.mark.parametrize(
    "xml",
    [
        demand("0x0059d"),
        demand("0x059d"),
        demand(Multiplier="0x0000001"),
        demand(TimeStamp="0x3136e6c"),
        summation("0x000000009586914"),
        price(Price="0x000025b"),
        price(Currency="0x048"),
        demand(DeviceMacId="0xd8d5b9000000123"),
        demand(MeterMacId="0x0013500100abcdef0"),
        demand(DeviceMacId="0x0xd5b90000001234"),
        of_example("intervals").replace(b"0x000155", b"0x00155"),
    ],
)
def test_a_number_that_lost_digits_is_rejected(xml):
    """Padding to a width that its field never has shows a lost digit; nobody guesses it."""
    assert reason_against(xml) == "bad-value"


@pytest.mark.parametrize(
    "xml",
    [
        demand("12.5"),
        demand("0x"),
        demand("-1"),
        demand("0x00059g"),
        demand("0x1ffffffff"),
        demand("0x0000000100000000"),
        price(TrailingDigits="0x10"),
        price(TrailingDigits="0xff"),
        demand(Divisor="0x100000000"),
        summation("0x0001000000000000"),
        of_example("connected").replace(b">25<", b">0x19<"),
        of_example("connected").replace(b">25<", b">256<"),
        of_example("intervals").replace(b">3<", b">8<"),
        fragment("Warning", {"Text": ""}),
        fragment("Warning", {"Text": "x" * 1025}),
    ],
)
def test_a_value_that_is_none_of_its_fields_is_rejected(xml):
    """A value outside its field's type is a reason to reject, never a default."""
    assert reason_against(xml) == "bad-value"


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (demand(Demand=""), "missing-field"),
        (demand(Divisor=""), "missing-field"),
        (demand(TimeStamp=""), "missing-field"),
        (demand(DeviceMacId=""), "missing-field"),
        (demand(Demand=["0x000001", "0x000002"]), "duplicate-field"),
        (demand(DEMAND="0x000002"), "duplicate-field"),
        (
            of_example("intervals").replace(b"  <IntervalData>0x000155</IntervalData>", b""),
            "bad-value",
        ),
        (of_example("block prices of an EMU-2").replace(b"Threshold1", b"T"), "missing-field"),
        (of_example("block prices of an EMU-2").replace(b"Price2", b"P"), "bad-value"),
        (of_example("block prices of an EMU-2").replace(b"Price2", b"Price1"), "missing-field"),
        (of_example("block prices of an EMU-2").replace(b"Multiplier", b"M"), "missing-field"),
    ],
)
def test_a_fragment_that_lost_or_mixed_up_children_is_rejected(xml, reason):
    """What is missing or comes twice is a reason to reject, never a zero."""
    assert reason_against(xml) == reason


def test_intervals_may_be_numbered():
    """The EAGLE numbers its intervals; a number that is missing is a lost interval."""
    intervals = {f"IntervalData{number}": f"0x00000{number}" for number in (1, 2)}
    xml = of_example("intervals").split(b"  <IntervalData>")[0].replace(b"0x03", b"0x02")
    xml += fragment("ProfileData", intervals).split(b"\r\n", 1)[1]
    assert read(xml).intervals == [1, 2]
    assert reason_against(xml.replace(b"IntervalData1", b"IntervalData3")) == "missing-field"


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        (b"<EndTime>0x3136ea44", b"<EndTime>0x013136ea44"),
        (b"Delivered>0x03", b"Delivered>0x0f"),
        (b"Period>3", b"Period>8"),
    ],
)
def test_intervals_of_no_certain_time_are_rejected(said, instead):
    """An EndTime of five bytes, a number of periods that did not come, no known length: no guess."""
    xml = of_example("intervals")
    assert said in xml
    assert reason_against(xml.replace(said, instead)) == "bad-value"


def test_what_the_lists_do_not_name_is_passed_on():
    """Meters' types, events, states and currencies that no manual lists do not raise."""
    assert read(of_example("meter of a numbered type")).meter_type == "0x0000"
    assert read(of_example("schedule").replace(b"demand", b"match_descriptor")).event == (
        "match_descriptor"
    )
    assert read(of_example("connected").replace(b">Connected", b">Asleep")).status == "Asleep"
    assert read(price(Currency="0x1234")).currency == 0x1234


def test_filler_in_a_date_code_is_dropped():
    """Bytes of 0xFF, which some devices leave at the end of DateCode, are not part of it."""
    xml = device_info().replace(b"2020051100000042", b"20200511\xff\xff\xff\xff")
    assert read(xml).date_code == "20200511"


def test_text_is_code_page_1252_and_unescaped_once():
    """A text is what the utility wrote: no character is lost, &amp;lt; stays escaped text."""
    xml = of_example("message").replace(b"&lt;", b"\x80 &amp;lt; <![CDATA[<b> &amp;]]>")
    assert read(xml).text == "Peak today 4pm & later: please use € &lt; <b> &amp; 2 kW"


def test_only_references_of_xml_are_resolved():
    """HTML's names, numbers of no character and cut references stay as the utility wrote them."""
    written = (
        b"&eacute;&copy &#233;&#xe9;&quot;&apos; &#0;&#xd800;&#x110000;&#9999999; &amp;eacute;"
    )
    xml = of_example("message").replace(b"&lt;", written)
    expected = "&eacute;&copy éé\"' &#0;&#xd800;&#x110000;&#9999999; &eacute;"
    assert f"please use {expected} 2 kW" in read(xml).text


@steady
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40))
def test_any_text_in_utf_8_is_read_as_it_was_written(text):
    """Whatever a utility writes in UTF-8 comes back, escaped as XML asks for."""
    xml = of_example("message").replace(b"Peak", escape(text).encode() + b"Peak")
    assert read(xml).text.startswith(f"{text.lstrip()}Peak")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_no_secret_is_in_a_notification(example):
    """InstallCode, LinkKey and Auth are never part of what is published."""
    found = encode(Reading(ENVELOPE, read(example.xml))).lower()
    for secret in re.findall(rb"<(?:InstallCode|LinkKey|Auth)>(?:0x)?([^<]+)<", example.xml):
        assert secret.lower() not in found


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_a_fragment_without_some_children_is_decoded_or_rejected(example):
    """Whichever child is missing, empty or doubled, the answer is a notification or a reason."""
    (whole,) = Parser().feed(example.xml)
    for place, (name, text) in enumerate(whole.children):
        before, after = whole.children[:place], whole.children[place + 1 :]
        for instead in ([], [(name, "")], [(name, text), (name, text)]):
            try:
                found = decode(whole._replace(children=before + instead + after))
            except PoisonError:
                continue
            reading = Reading(ENVELOPE, found)
            assert decode_reading(encode(reading)) == reading


@steady
@given(reports())
def test_what_a_device_reports_is_what_is_read(report):
    """Values of any kind, printed as a device does, come back as the same values."""
    assert read(report.xml) == report.meaning


@steady
@given(reports(), st.integers(1, 2**63 - 1))
def test_a_reading_survives_the_bus(report, seq):
    """Whatever is decoded satisfies the contract: its JSON decodes to the same reading."""
    envelope = Envelope(
        node="n", run="r", hash="00000000-0000-4000-8000-000000000000", seq=seq, received=NOON
    )
    reading = Reading(envelope, read(report.xml))
    assert decode_reading(encode(reading)) == reading
