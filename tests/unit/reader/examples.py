"""The notifications of the API, each in the forms that devices print, with what they mean.

Ids, codes and times are made up.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ravenbus import notifications as n

DEVICE = "0xd8d5b90000001234"
RAVEN = "0x00158d0000001234"
METER = "0x0013500100abcdef"
OTHER_METER = "0x0013500200fedcba"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""0x3136e6c0 on the device's clock."""
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""0 on the device's clock."""

EMU = {"device": DEVICE[2:], "meter": METER[2:], "time": NOON}
_IDS = {"DeviceMacId": DEVICE, "MeterMacId": METER}
_NOON = {"TimeStamp": "0x3136e6c0"}
_HINTS = {"DigitsRight": "0x01", "DigitsLeft": "0x06", "SuppressLeadingZero": "Y"}
_SCALE = {"Multiplier": "0x00000001", "Divisor": "0x000003e8", **_HINTS}
_SCALED = {
    "multiplier": 1,
    "divisor": 1000,
    "digits_right": 1,
    "digits_left": 6,
    "suppress_leading_zero": True,
}


class Example(NamedTuple):
    """One form of a notification, and what it means."""

    name: str
    xml: bytes
    meaning: n.Notification


def fragment(root, children):
    """Return a fragment as a stick prints it; a list is repeated, None is empty and self-closed."""
    lines = [
        f"  <{name} />" if text is None else f"  <{name}>{text}</{name}>"
        for name, value in children.items()
        for text in (value if isinstance(value, list) else [value])
    ]
    return "\r\n".join([f"<{root}>", *lines, f"</{root}>", ""]).encode("cp1252")


def demand(demand="0x00059d", **changed):
    """Return an InstantaneousDemand with children changed; one that is "" is left out."""
    children = {**_IDS, **_NOON, "Demand": demand, **_SCALE, **changed}
    return fragment("InstantaneousDemand", {k: v for k, v in children.items() if v != ""})


def stamped(when):
    """Return an InstantaneousDemand of a time."""
    return demand(TimeStamp=f"0x{int((when - EPOCH).total_seconds()):08x}")


def summation(delivered="0x0000000009586914", received="0x0000000000000000", **changed):
    """Return a CurrentSummationDelivered with children changed."""
    registers = {"SummationDelivered": delivered, "SummationReceived": received}
    return fragment(
        "CurrentSummationDelivered", {**_IDS, **_NOON, **registers, **_SCALE, **changed}
    )


def price(**changed):
    """Return a PriceCluster with children changed."""
    children = {
        **_IDS,
        **_NOON,
        "Price": "0x0000025b",
        "Currency": "0x0348",
        "TrailingDigits": "0x04",
        "Tier": "0x01",
        "StartTime": "0xffffffff",
        "Duration": "0xffff",
        "RateLabel": "Tier 1",
    }
    return fragment("PriceCluster", {**children, **changed})


def device_info(**changed):
    """Return an EMU-2's DeviceInfo with children changed."""
    children = {
        "DeviceMacId": DEVICE,
        "InstallCode": "0x0123456789abcdef",
        "LinkKey": "0x00112233445566778899aabbccddeeff",
        "FWVersion": "2.0.0 (7400)",
        "HWVersion": "2.7.3",
        "ImageType": "0x2201",
        "Manufacturer": "Rainforest Automation, Inc.",
        "ModelId": "Z105-2-EMU2-LEDD_JM",
        "DateCode": "2020051100000042",
    }
    return fragment("DeviceInfo", {**children, **changed})


def on_one_line(xml):
    """Return a fragment as other firmware prints it."""
    return re.sub(rb"\r\n *", b"", xml)


def with_line_feeds(xml):
    """Return a fragment with the line ends of Unix."""
    return xml.replace(b"\r\n", b"\n")


def in_upper_case(xml):
    """Return a fragment with every tag in capitals."""
    return re.sub(rb"</?\w+ ?/?>", lambda tag: tag[0].upper(), xml)


def of_raven(**fields):
    return {"device": RAVEN[2:], "meter": METER[2:], "time": NOON, **fields}


def at(seconds):
    """Return noon and some seconds."""
    return NOON + timedelta(seconds=seconds)


NO_TIME = {**EMU, "time": None}
NO_METER = {**NO_TIME, "meter": None}

EXAMPLES = [
    Example(
        "connected",
        fragment(
            "ConnectionStatus",
            {
                **_IDS,
                "Status": "Connected",
                "Description": "Successfully Joined",
                "ExtPanId": METER,
                "Channel": "25",
                "ShortAddr": "0x4a10",
                "LinkStrength": "0x64",
            },
        ),
        n.ConnectionStatus(
            **NO_TIME,
            status="Connected",
            description="Successfully Joined",
            ext_pan_id=METER[2:],
            channel=25,
            short_addr=0x4A10,
            link_strength=100,
        ),
    ),
    Example(
        "not joined",
        fragment(
            "ConnectionStatus",
            {
                "DeviceMacId": DEVICE,
                "MeterMacId": "0x" + "0" * 16,
                "Status": "Join: Fail",
                "Description": "No networks found",
                "StatusCode": "0xab",
                "LinkStrength": "0x00",
            },
        ),
        n.ConnectionStatus(
            **NO_METER,
            status="Join: Fail",
            description="No networks found",
            status_code=0xAB,
            link_strength=0,
        ),
    ),
    Example(
        "network",
        fragment(
            "NetworkInfo",
            {
                "DeviceMacId": DEVICE,
                "CoordMacId": METER,
                "Status": "Connected",
                "Description": "Successfully Joined",
                "ExtPanId": METER,
                "Channel": "18",
                "ShortAddr": "0x2776",
                "LinkStrength": "0x3c",
            },
        ),
        n.NetworkInfo(
            **NO_METER,
            coordinator=METER[2:],
            status="Connected",
            description="Successfully Joined",
            ext_pan_id=METER[2:],
            channel=18,
            short_addr=0x2776,
            link_strength=60,
        ),
    ),
    Example(
        "network not found",
        fragment(
            "NetworkInfo",
            {
                "DeviceMacId": DEVICE,
                "CoordMacId": "0x" + "0" * 16,
                "Status": "Network Discovery",
                "Description": "Scanning",
                "StatusCode": "",
                "ExtPanId": "0x" + "0" * 16,
                "Channel": "11",
                "ShortAddr": "0xffff",
                "LinkStrength": "0x00",
            },
        ),
        n.NetworkInfo(
            **NO_METER,
            status="Network Discovery",
            description="Scanning",
            channel=11,
            short_addr=0xFFFF,
            link_strength=0,
        ),
    ),
    Example(
        "EMU-2",
        device_info(),
        n.DeviceInfo(
            **NO_METER,
            fw_version="2.0.0 (7400)",
            hw_version="2.7.3",
            image_type=0x2201,
            manufacturer="Rainforest Automation, Inc.",
            model_id="Z105-2-EMU2-LEDD_JM",
            date_code="2020051100000042",
        ),
    ),
    Example(
        "RAVEn without ImageType",
        fragment(
            "DeviceInfo",
            {
                "DeviceMacId": RAVEN,
                "InstallCode": "0xfedcba9876543210",
                "LinkKey": "0xffeeddccbbaa99887766554433221100",
                "FWVersion": "1.4.13 (4718)",
                "HWVersion": "3.1.1",
                "Manufacturer": "Rainforest Automation, Inc.",
                "ModelId": "RFA-Z106",
                "DateCode": "20120601ZBLOT042",
            },
        ),
        n.DeviceInfo(
            device=RAVEN[2:],
            meter=None,
            time=None,
            fw_version="1.4.13 (4718)",
            hw_version="3.1.1",
            manufacturer="Rainforest Automation, Inc.",
            model_id="RFA-Z106",
            date_code="20120601ZBLOT042",
        ),
    ),
    Example(
        "schedule",
        fragment(
            "ScheduleInfo", {**_IDS, "Event": "demand", "Frequency": "0x00000008", "Enabled": "Y"}
        ),
        n.ScheduleInfo(**NO_TIME, event="demand", frequency_s=8, enabled=True),
    ),
    Example(
        "schedule that is off",
        fragment(
            "ScheduleInfo",
            {
                **_IDS,
                "Mode": "default",
                "Event": "profile_data",
                "Frequency": "0xffffffff",
                "Enabled": "N",
            },
        ),
        n.ScheduleInfo(
            **NO_TIME, mode="default", event="profile_data", frequency_s=None, enabled=False
        ),
    ),
    Example("one meter", fragment("MeterList", _IDS), n.MeterList(**NO_METER, meters=[METER[2:]])),
    Example(
        "two meters",
        fragment("MeterList", {"DeviceMacId": DEVICE, "MeterMacId": [METER, OTHER_METER]}),
        n.MeterList(**NO_METER, meters=[METER[2:], OTHER_METER[2:]]),
    ),
    Example(
        "no meter",
        fragment("MeterList", {"DeviceMacId": DEVICE}),
        n.MeterList(**NO_METER, meters=[]),
    ),
    Example(
        "meter",
        fragment(
            "MeterInfo",
            {
                **_IDS,
                "MeterType": "electric",
                "NickName": "House",
                "Account": "A-1001",
                "Auth": "hush-hush",
                "Host": "",
                "Enabled": "Y",
            },
        ),
        n.MeterInfo(
            **NO_TIME, meter_type="electric", nick_name="House", account="A-1001", enabled=True
        ),
    ),
    Example(
        "meter of a numbered type",
        fragment("MeterInfo", {**_IDS, "MeterType": "0x0000", "NickName": ""}),
        n.MeterInfo(**NO_TIME, meter_type="0x0000"),
    ),
    Example(
        "clock",
        fragment("TimeCluster", {**_IDS, "UTCTime": "0x3136e6c0", "LocalTime": "0x31367640"}),
        n.TimeCluster(**EMU, local_offset_s=-8 * 3600),
    ),
    Example(
        "clock that is not set",
        fragment("TimeCluster", {**_IDS, "UTCTime": "0xffffffff", "LocalTime": "0xffffffff"}),
        n.TimeCluster(**NO_TIME),
    ),
    Example(
        "message",
        fragment(
            "MessageCluster",
            {
                **_IDS,
                **_NOON,
                "Id": "0x00000007",
                "Text": "Peak today 4pm &amp; later: please use &lt; 2 kW",
                "ConfirmationRequired": "Y",
                "Confirmed": "N",
                "Queue": "Active",
            },
        ),
        n.MessageCluster(
            **EMU,
            id=7,
            text="Peak today 4pm & later: please use < 2 kW",
            confirmation_required=True,
            confirmed=False,
            queue="Active",
        ),
    ),
    Example(
        "no message",
        fragment(
            "MessageCluster",
            {
                **_IDS,
                **dict.fromkeys(("TimeStamp", "Id", "Text", "Priority", "StartTime", "Duration")),
                "ConfirmationRequired": "N",
                "Confirmed": "N",
                "Queue": "Active",
            },
        ),
        n.MessageCluster(**NO_TIME, confirmation_required=False, confirmed=False, queue="Active"),
    ),
    Example(
        "price",
        price(),
        n.PriceCluster(
            **EMU,
            price=603,
            trailing_digits=4,
            price_per_kwh=0.0603,
            currency=840,
            tier=1,
            rate_label="Tier 1",
        ),
    ),
    Example(
        "no price",
        price(
            TimeStamp="0xffffffff",
            Price="0xffffffff",
            TrailingDigits="0x0f",
            Tier="0x00",
            StartTime="0x00000000",
            Duration="0x0000",
            RateLabel=None,
        ),
        n.PriceCluster(
            **NO_TIME,
            price=None,
            trailing_digits=15,
            price_per_kwh=None,
            currency=840,
            tier=0,
            duration=0,
        ),
    ),
    Example(
        "price that a user set",
        fragment(
            "PriceCluster",
            {
                "DeviceMacId": RAVEN,
                "MeterMacId": METER,
                **_NOON,
                "Price": "0x0000007b",
                "Currency": "0x007c",
                "TrailingDigits": "0x03",
                "Tier": "0x00",
                "TierLabel": "Set by User",
            },
        ),
        n.PriceCluster(
            **of_raven(),
            price=123,
            trailing_digits=3,
            price_per_kwh=0.123,
            currency=124,
            tier=0,
            tier_label="Set by User",
        ),
    ),
    Example(
        "demand",
        demand(),
        n.InstantaneousDemand(**EMU, **_SCALED, demand=1437, demand_kw=1.437),
    ),
    Example(
        "demand of an exporting EMU-2",
        demand("0xfffffa36", TimeStamp="0x3136e6cf"),
        n.InstantaneousDemand(**{**EMU, "time": at(15)}, **_SCALED, demand=-1482, demand_kw=-1.482),
    ),
    Example(
        "demand of an exporting RAVEn that names no meter",
        fragment(
            "InstantaneousDemand",
            {
                "DeviceMacId": RAVEN,
                "TimeStamp": "0x3136e6cf",
                "Demand": "0xfffff6",
                "Multiplier": "0x00000003",
                "Divisor": "0x00000000",
                "DigitsRight": "0x03",
                "DigitsLeft": "0x06",
                "SuppressLeadingZero": "N",
            },
        ),
        n.InstantaneousDemand(
            device=RAVEN[2:],
            meter=None,
            time=at(15),
            demand=-10,
            demand_kw=-30.0,
            multiplier=3,
            divisor=0,
            digits_right=3,
            digits_left=6,
            suppress_leading_zero=False,
        ),
    ),
    Example(
        "registers of an EMU-2",
        summation(received="0x000000000165ec15", TimeStamp="0x3136e7b0"),
        n.CurrentSummationDelivered(
            **{**EMU, "time": at(240)},
            **_SCALED,
            summation_delivered=156789012,
            summation_received=23456789,
            delivered_kwh=156789.012,
            received_kwh=23456.789,
        ),
    ),
    Example(
        "registers of a RAVEn",
        summation(
            "0x00586914",
            "0x00000000",
            DigitsRight="0x03",
            DigitsLeft="0x0f",
            SuppressLeadingZero="N",
        ),
        n.CurrentSummationDelivered(
            **EMU,
            **{**_SCALED, "digits_right": 3, "digits_left": 15, "suppress_leading_zero": False},
            summation_delivered=5794068,
            summation_received=0,
            delivered_kwh=5794.068,
            received_kwh=0.0,
        ),
    ),
    Example(
        "registers by the EAGLE's name, with its extra children",
        summation(Port="/dev/ttySP0", Protocol="Zigbee", UnitOfMeasure="0x00").replace(
            b"CurrentSummationDelivered>", b"CurrentSummation>"
        ),
        n.CurrentSummationDelivered(
            **EMU,
            **_SCALED,
            summation_delivered=156789012,
            summation_received=0,
            delivered_kwh=156789.012,
            received_kwh=0.0,
        ),
    ),
    Example(
        "usage of the period",
        fragment(
            "CurrentPeriodUsage",
            {
                **_IDS,
                "TimeStamp": "0xffffffff",
                "CurrentUsage": "0x0000000000001075",
                **_SCALE,
                "StartDate": "0x31363e00",
            },
        ),
        n.CurrentPeriodUsage(
            **NO_TIME, **_SCALED, current_usage=4213, usage_kwh=4.213, start_date=at(-12 * 3600)
        ),
    ),
    Example(
        "usage of a period of export",
        fragment(
            "CurrentPeriodUsage",
            {
                **_IDS,
                "TimeStamp": "0x3136e7b0",
                "CurrentUsage": "0xfffffffffffffa36",
                **_SCALE,
                "StartDate": "0x31363e00",
            },
        ),
        n.CurrentPeriodUsage(
            **{**EMU, "time": at(240)},
            **_SCALED,
            current_usage=-1482,
            usage_kwh=-1.482,
            start_date=at(-12 * 3600),
        ),
    ),
    Example(
        "usage of the last period",
        fragment(
            "LastPeriodUsage",
            {
                **_IDS,
                "LastUsage": "0x000000000165ec15",
                **_SCALE,
                "StartDate": "0x31115400",
                "EndDate": "0x31363e00",
            },
        ),
        n.LastPeriodUsage(
            **NO_TIME,
            **_SCALED,
            last_usage=23456789,
            usage_kwh=23456.789,
            start_date=datetime(2026, 2, 1, tzinfo=UTC),
            end_date=datetime(2026, 3, 1, tzinfo=UTC),
        ),
    ),
    Example(
        "usage when no period was closed",
        fragment(
            "LastPeriodUsage",
            {
                **_IDS,
                "LastUsage": "0x0000000000000000",
                **_SCALE,
                "StartDate": "0xffffffff",
                "EndDate": "0xffffffff",
            },
        ),
        n.LastPeriodUsage(**NO_TIME, **_SCALED, last_usage=0, usage_kwh=0.0),
    ),
    Example(
        "intervals",
        fragment(
            "ProfileData",
            {
                **_IDS,
                "EndTime": "0x3136ea44",
                "Status": "0x00",
                "ProfileIntervalPeriod": "3",
                "NumberOfPeriodsDelivered": "0x03",
                "IntervalData": ["0x00016a", "0xffffff", "0x000155"],
            },
        ),
        n.ProfileData(
            **{**NO_TIME, "time": at(900)},
            end_time=at(900),
            status=0,
            profile_interval_period=3,
            interval_s=900,
            number_of_periods_delivered=3,
            intervals=[362, None, 341],
        ),
    ),
    Example(
        "no intervals",
        fragment(
            "ProfileData",
            {
                **_IDS,
                "EndTime": "0x00000000",
                "Status": "0x02",
                "ProfileIntervalPeriod": "0",
                "NumberOfPeriodsDelivered": "0x00",
            },
        ),
        n.ProfileData(
            **NO_TIME,
            status=2,
            profile_interval_period=0,
            interval_s=86400,
            number_of_periods_delivered=0,
        ),
    ),
    Example(
        "block prices of an EMU-2",
        fragment(
            "BlockPriceDetail",
            {
                **_IDS,
                **_NOON,
                "NumberOfBlocks": "0x02",
                "Multiplier": "0x00000001",
                "Divisor": "0x0000000a",
                "Currency": "0x0348",
                "TrailingDigits": "0x05",
                "Threshold1": "0x0000102c",
                "Price1": "0x000039ac",
                "Threshold2": "0xffffffff",
                "Price2": "0x000042b5",
            },
        ),
        n.BlockPriceDetail(
            **EMU,
            number_of_blocks=2,
            multiplier=1,
            divisor=10,
            currency=840,
            trailing_digits=5,
            blocks=[
                n.PriceBlock(
                    threshold=4140, threshold_kwh=414.0, price=14764, price_per_kwh=0.14764
                ),
                n.PriceBlock(price=17077, price_per_kwh=0.17077),
            ],
        ),
    ),
    Example(
        "block prices of an EAGLE, the last without a threshold",
        fragment(
            "BlockPriceDetail",
            {
                **_IDS,
                **_NOON,
                "CurrentStart": "0x00000000",
                "CurrentDuration": "0x0000",
                "BlockPeriodConsumption": "0x0000000000001075",
                "BlockPeriodConsumptionMultiplier": "0x00000001",
                "BlockPeriodConsumptionDivisor": "0x000003e8",
                "NumberOfBlocks": "0x02",
                "Multiplier": "0x00000001",
                "Divisor": "0x00000001",
                "Currency": "0x0348",
                "TrailingDigits": "0x02",
                "Price1": "0x0000000b",
                "Threshold1": "0x000001f4",
                "Price2": "0x0000000d",
            },
        ),
        n.BlockPriceDetail(
            **EMU,
            current_duration=0,
            block_period_consumption=4213,
            block_period_consumption_multiplier=1,
            block_period_consumption_divisor=1000,
            consumption_kwh=4.213,
            number_of_blocks=2,
            multiplier=1,
            divisor=1,
            currency=840,
            trailing_digits=2,
            blocks=[
                n.PriceBlock(threshold=500, threshold_kwh=500.0, price=11, price_per_kwh=0.11),
                n.PriceBlock(price=13, price_per_kwh=0.13),
            ],
        ),
    ),
    Example(
        "fast poll",
        fragment("FastPollStatus", {**_IDS, "Frequency": "0x04", "EndTime": "0x3136ea44"}),
        n.FastPollStatus(**NO_TIME, frequency_s=4, end_time=at(900)),
    ),
    Example(
        "fast poll that is off",
        fragment("FastPollStatus", {**_IDS, "Frequency": "0x00", "EndTime": "0xFFFFFFFF"}),
        n.FastPollStatus(**NO_TIME, frequency_s=0),
    ),
    Example(
        "billing period",
        fragment(
            "BillingPeriodList",
            {
                **_IDS,
                **_NOON,
                "NumberOfPeriods": "0x01",
                "CurrentStart": "0x31115400",
                "CurrentDuration": "0x3983db9",
            },
        ),
        n.BillingPeriodList(
            **EMU,
            number_of_periods=1,
            current_start=datetime(2026, 2, 1, tzinfo=UTC),
            current_duration=0x3983DB9,
        ),
    ),
    Example(
        "no billing period",
        fragment(
            "BillingPeriodList", {**_IDS, "TimeStamp": "0xffffffff", "NumberOfPeriods": "0x00"}
        ),
        n.BillingPeriodList(**NO_TIME, number_of_periods=0),
    ),
    Example(
        "warning",
        fragment("Warning", {"Text": "Unknown command"}),
        n.Warning(device=None, meter=None, time=None, text="Unknown command"),
    ),
]


def of_example(name):
    """Return the fragment of an example."""
    return next(example.xml for example in EXAMPLES if example.name == name)
