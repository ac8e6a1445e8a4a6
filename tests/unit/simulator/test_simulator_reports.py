"""Fragments against the layout and the examples of the device's manual and captures."""

import pytest

from raven_simulator import reports
from raven_simulator.models import EMU2, RAVEN

DEVICE = 0xD8D5B90000001234
METER = 0x0013500100ABCDEF
TIME = 0x3136E6C0

IDS = {"device": DEVICE, "meter": METER}


def lines(*texts: str):
    return "".join(f"{text}\r\n" for text in texts).encode()


EVERY_KIND = {
    "connection_status": reports.connection_status(**IDS, network=reports.Network(METER)),
    "network_info": reports.network_info(device=DEVICE, coordinator=METER),
    "device_info": reports.device_info(device=DEVICE, identity=RAVEN.identity),
    "schedule_info": reports.schedule_info(**IDS, event="demand", frequency_s=8),
    "meter_list": reports.meter_list(device=DEVICE, meters=[METER, METER + 1]),
    "meter_info": reports.meter_info(**IDS, nick_name="Peter & Paul"),
    "time_cluster": reports.time_cluster(**IDS, utc=TIME, local=TIME - 28800),
    "message_cluster": reports.message_cluster(**IDS, time=TIME, message=None, extended=True),
    "price_cluster": reports.price_cluster(
        **IDS, time=TIME, price=reports.Price(603, 4, "Tier 1", tier=1), window=None
    ),
    "instantaneous_demand": reports.instantaneous_demand(**IDS, time=TIME, demand=1437),
    "current_summation_delivered": reports.current_summation_delivered(
        **IDS, time=TIME, delivered=156789012, received=0
    ),
    "current_period_usage": reports.current_period_usage(**IDS, time=TIME, usage=-1482, start=TIME),
    "last_period_usage": reports.last_period_usage(**IDS, usage=4213),
    "profile_data": reports.profile_data(**IDS, end=TIME, intervals=[362, None, 341]),
    "block_price_detail": reports.block_price_detail(
        **IDS, time=TIME, blocks=[(0x102C, 0x39AC), (0xFFFFFFFF, 0x42B5)]
    ),
    "fast_poll_status": reports.fast_poll_status(**IDS),
    "billing_period_list": reports.billing_period_list(**IDS, time=TIME, current=None),
    "warning": reports.warning(),
}


def test_all_kinds_are_made():
    """Each of the 18 notifications has its fragment, and each fragment is one whole notification of its kind."""
    assert list(EVERY_KIND) == list(reports.KINDS.values())
    for kind, fragment in EVERY_KIND.items():
        assert reports.kind_of(fragment) == kind
        assert reports.is_whole(fragment)


def test_demand_has_the_captured_layout():
    """A demand is printed byte for byte as an EMU-2 prints it."""
    assert EVERY_KIND["instantaneous_demand"] == lines(
        "<InstantaneousDemand>",
        "  <DeviceMacId>0xd8d5b90000001234</DeviceMacId>",
        "  <MeterMacId>0x0013500100abcdef</MeterMacId>",
        "  <TimeStamp>0x3136e6c0</TimeStamp>",
        "  <Demand>0x00059d</Demand>",
        "  <Multiplier>0x00000001</Multiplier>",
        "  <Divisor>0x000003e8</Divisor>",
        "  <DigitsRight>0x03</DigitsRight>",
        "  <DigitsLeft>0x06</DigitsLeft>",
        "  <SuppressLeadingZero>Y</SuppressLeadingZero>",
        "</InstantaneousDemand>",
    )


def test_prices_have_the_shape_of_their_model():
    """A RAVEn's price ends with TierLabel, an EMU-2's with StartTime, Duration and RateLabel."""
    price = reports.Price(603, 4, "Tier 1", tier=1)
    emu2 = reports.price_cluster(**IDS, time=TIME, price=price, window=(0xFFFFFFFF, 0xFFFF))
    assert emu2.endswith(
        lines(
            "  <Price>0x0000025b</Price>",
            "  <Currency>0x0348</Currency>",
            "  <TrailingDigits>0x04</TrailingDigits>",
            "  <Tier>0x01</Tier>",
            "  <StartTime>0xffffffff</StartTime>",
            "  <Duration>0xffff</Duration>",
            "  <RateLabel>Tier 1</RateLabel>",
            "</PriceCluster>",
        )
    )
    raven = EVERY_KIND["price_cluster"]
    assert raven.endswith(
        lines("  <Tier>0x01</Tier>", "  <TierLabel>Tier 1</TierLabel>", "</PriceCluster>")
    )


def test_negative_demand_is_twos_complement_of_its_width():
    """-1482 W is 0xfffffa36 in 8 digits and 0xfffa36 in 6."""
    for width, text in ((8, "0xfffffa36"), (6, "0xfffa36")):
        fragment = reports.instantaneous_demand(**IDS, time=TIME, demand=-1482, width=width)
        assert reports.fields_of(fragment)["Demand"] == text


def test_demand_that_does_not_fit_is_refused():
    """A demand that its width would turn into another one is not printed."""
    with pytest.raises(ValueError, match="does not fit 6 hex digits"):
        reports.instantaneous_demand(**IDS, time=TIME, demand=0x800000)


def test_no_message_is_empty_elements():
    """Without a message the values are self-closed, as captured."""
    assert b"  <TimeStamp />\r\n  <Id />\r\n  <Text />\r\n" in EVERY_KIND["message_cluster"]


def test_text_is_escaped_and_kept_raw_in_fields():
    """A text cannot open a tag, and fields give it as it stands on the line."""
    fields = reports.fields_of(EVERY_KIND["meter_info"])
    assert fields["NickName"] == "Peter &amp; Paul"


def test_repeated_children_are_a_list():
    """MeterList and ProfileData repeat a child; no value is lost."""
    fields = reports.fields_of(EVERY_KIND["profile_data"])
    assert fields["IntervalData"] == ["0x00016a", "0xffffff", "0x000155"]
    assert reports.fields_of(EVERY_KIND["meter_list"])["MeterMacId"] == [
        "0x0013500100abcdef",
        "0x0013500100abcdf0",
    ]


def test_models_name_themselves():
    """DeviceInfo tells a RAVEn from an EMU-2, and only the EMU-2 has an ImageType."""
    raven = reports.fields_of(reports.device_info(device=DEVICE, identity=RAVEN.identity))
    emu2 = reports.fields_of(reports.device_info(device=DEVICE, identity=EMU2.identity))
    assert raven["ModelId"] == "RFA-Z106"
    assert "ImageType" not in raven
    assert emu2["ModelId"] == "Z105-2-EMU2-LEDD_JM"
    assert emu2["ImageType"] == "0x2201"
