"""The XML fragment of every notification, and the little that is read back from one.

Layout as captured from real sticks: CRLF, two-space indent, one child a line.
The device's id (EUI-64) and the meter's are given as integers; times are whole seconds since 2000-01-01T00:00:00Z, or UNSET.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EPOCH_UNIX_S: Final = 946_684_800
UNSET: Final = 0xFFFF_FFFF
NO_DEMAND: Final = -0x80_0000

KINDS: Final[Mapping[str, str]] = {
    "ConnectionStatus": "connection_status",
    "NetworkInfo": "network_info",
    "DeviceInfo": "device_info",
    "ScheduleInfo": "schedule_info",
    "MeterList": "meter_list",
    "MeterInfo": "meter_info",
    "TimeCluster": "time_cluster",
    "MessageCluster": "message_cluster",
    "PriceCluster": "price_cluster",
    "InstantaneousDemand": "instantaneous_demand",
    "CurrentSummationDelivered": "current_summation_delivered",
    "CurrentPeriodUsage": "current_period_usage",
    "LastPeriodUsage": "last_period_usage",
    "ProfileData": "profile_data",
    "BlockPriceDetail": "block_price_detail",
    "FastPollStatus": "fast_poll_status",
    "BillingPeriodList": "billing_period_list",
    "Warning": "warning",
}
"""Root tag to kind, for the notifications that this module makes."""


@dataclass(frozen=True, slots=True)
class Network:
    """Place of the stick in its ZigBee network."""

    ext_pan: int
    channel: int = 25
    short_addr: int = 0x4A10


@dataclass(frozen=True, slots=True)
class Identity:
    """Data that a stick reports of itself; the codes are made up, and secret on a real one."""

    install_code: int
    link_key: int
    firmware: str
    hardware: str
    manufacturer: str
    model_id: str
    date_code: str
    image_type: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """A price per kWh: raw / 10**trailing_digits in a currency (ISO 4217 number)."""

    raw: int
    trailing_digits: int
    label: str
    tier: int = 0
    currency: int = 840


@dataclass(frozen=True, slots=True)
class Message:
    """A text from the utility."""

    id: int
    text: str
    confirmation_required: bool = True
    confirmed: bool = False


def device_time(unix_s: float) -> int:
    """Seconds since 2000-01-01T00:00:00Z of a Unix time in seconds (RAVEn XML API r127 p.17)."""
    return int(unix_s) - EPOCH_UNIX_S


def connection_status(
    *,
    device: int,
    meter: int,
    status: str = "Connected",
    description: str | None = None,
    network: Network | None = None,
    link_strength: int = 100,
) -> bytes:
    """ConnectionStatus; link_strength is 0 to 100 percent (RAVEn XML API r127 p.10)."""
    return _fragment(
        "ConnectionStatus",
        *_ids(device, meter),
        *_joined(status, description, network, link_strength),
    )


def network_info(
    *,
    device: int,
    coordinator: int,
    status: str = "Connected",
    description: str | None = None,
    network: Network | None = None,
    link_strength: int = 100,
) -> bytes:
    """NetworkInfo, which names the coordinator and no meter (RAVEn XML API r127 p.15)."""
    return _fragment(
        "NetworkInfo",
        *_ids(device, None),
        _child("CoordMacId", _hex(coordinator, 16)),
        *_joined(status, description, network, link_strength),
    )


def device_info(*, device: int, identity: Identity) -> bytes:
    """DeviceInfo (RAVEn XML API r127 p.11); ImageType only where the identity has one."""
    image = identity.image_type
    return _fragment(
        "DeviceInfo",
        *_ids(device, None),
        *_hexes(16, InstallCode=identity.install_code),
        *_hexes(32, LinkKey=identity.link_key),
        *_texts(FWVersion=identity.firmware, HWVersion=identity.hardware),
        *([] if image is None else _hexes(4, ImageType=image)),
        *_texts(Manufacturer=identity.manufacturer, ModelId=identity.model_id),
        *_texts(DateCode=identity.date_code),
    )


def schedule_info(
    *, device: int, meter: int | None, event: str, frequency_s: int | None, mode: str | None = None
) -> bytes:
    """ScheduleInfo of one event; frequency_s None: disabled, printed as 0xffffffff and N (RAVEn XML API r127 p.12)."""
    return _fragment(
        "ScheduleInfo",
        *_ids(device, meter),
        *([] if mode is None else [_child("Mode", mode)]),
        _child("Event", event),
        _child("Frequency", _hex(UNSET if frequency_s is None else frequency_s, 8)),
        _child("Enabled", _yes(frequency_s is not None)),
    )


def meter_list(*, device: int, meters: Sequence[int]) -> bytes:
    """MeterList of any number of meters (RAVEn XML API r127 p.13)."""
    return _fragment(
        "MeterList",
        *_ids(device, None),
        *(_child("MeterMacId", _hex(meter, 16)) for meter in meters),
    )


def meter_info(
    *,
    device: int,
    meter: int | None,
    meter_type: str = "electric",
    nick_name: str = "",
    account: str = "",
    auth: str = "",
    host: str = "",
    enabled: bool = True,
) -> bytes:
    """MeterInfo (RAVEn XML API r127 p.14)."""
    return _fragment(
        "MeterInfo",
        *_ids(device, meter),
        *_texts(MeterType=meter_type, NickName=nick_name, Account=account, Auth=auth, Host=host),
        _child("Enabled", _yes(enabled)),
    )


def time_cluster(*, device: int, meter: int | None, utc: int, local: int) -> bytes:
    """TimeCluster (RAVEn XML API r127 p.17); it has no TimeStamp."""
    children = _hexes(8, UTCTime=utc, LocalTime=local)
    return _fragment("TimeCluster", *_ids(device, meter), *children)


def message_cluster(
    *, device: int, meter: int | None, time: int, message: Message | None, extended: bool = False
) -> bytes:
    """MessageCluster; message None: its values are empty elements (RAVEn XML API r127 p.18).

    extended adds Priority, StartTime and Duration, as an EMU-2 does.
    """
    if message is None:
        names = ["TimeStamp", "Id", "Text"]
        names += ["Priority", "StartTime", "Duration"] if extended else []
        values = [_empty(name) for name in names]
    else:
        values = [*_hexes(8, TimeStamp=time, Id=message.id), *_texts(Text=message.text)]
        if extended:
            values += [_child("Priority", "Medium"), *_hexes(8, StartTime=time)]
            values += _hexes(4, Duration=0xFFFF)
    required = message is not None and message.confirmation_required
    return _fragment(
        "MessageCluster",
        *_ids(device, meter),
        *values,
        _child("ConfirmationRequired", _yes(required)),
        _child("Confirmed", _yes(message is not None and message.confirmed)),
        _child("Queue", "Active"),
    )


def price_cluster(
    *, device: int, meter: int | None, time: int, price: Price, window: tuple[int, int] | None
) -> bytes:
    """PriceCluster (RAVEn XML API r127 p.21).

    window is StartTime and Duration as an EMU-2 sends them, with the label as RateLabel; None: a RAVEn's shape, with TierLabel.
    """
    if window is None:
        rest = _texts(TierLabel=price.label)
    else:
        label = _texts(RateLabel=price.label) if price.label else [_empty("RateLabel")]
        rest = [*_hexes(8, StartTime=window[0]), *_hexes(4, Duration=window[1]), *label]
    return _fragment(
        "PriceCluster",
        *_ids(device, meter),
        *_hexes(8, TimeStamp=time, Price=price.raw),
        *_hexes(4, Currency=price.currency),
        *_hexes(2, TrailingDigits=price.trailing_digits, Tier=price.tier),
        *rest,
    )


def instantaneous_demand(
    *,
    device: int,
    meter: int | None,
    time: int,
    demand: int,
    multiplier: int = 1,
    divisor: int = 1000,
    width: int = 6,
) -> bytes:
    """InstantaneousDemand: demand * multiplier / divisor kW (RAVEn XML API r127 p.23).

    width is the number of hex digits, demand is printed in two's complement of it (6: 24 bits, 8: 32 bits).
    Raises ValueError where demand does not fit.
    """
    limit = 1 << (4 * width - 1)
    if not -limit <= demand < limit:
        raise ValueError(f"demand {demand} does not fit {width} hex digits")
    return _fragment(
        "InstantaneousDemand",
        *_ids(device, meter),
        _child("TimeStamp", _hex(time, 8)),
        _child("Demand", _hex(demand & (2 * limit - 1), width)),
        *_scale(multiplier, divisor, digits=(3, 6)),
    )


def current_summation_delivered(
    *,
    device: int,
    meter: int | None,
    time: int,
    delivered: int,
    received: int,
    multiplier: int = 1,
    divisor: int = 1000,
    width: int = 16,
) -> bytes:
    """CurrentSummationDelivered: counts * multiplier / divisor kWh, unsigned (RAVEn XML API r127 p.24).

    width is 8 hex digits on a RAVEn, 16 on an EMU-2; a register wraps at its width.
    """
    wrap = 1 << (4 * width)
    return _fragment(
        "CurrentSummationDelivered",
        *_ids(device, meter),
        _child("TimeStamp", _hex(time, 8)),
        *_hexes(width, SummationDelivered=delivered % wrap, SummationReceived=received % wrap),
        *_scale(multiplier, divisor, digits=(1, 6)),
    )


def current_period_usage(
    *,
    device: int,
    meter: int | None,
    time: int,
    usage: int,
    start: int,
    multiplier: int = 1,
    divisor: int = 1000,
    width: int = 16,
) -> bytes:
    """CurrentPeriodUsage since start, two's complement of its width (RAVEn XML API r127 p.25)."""
    return _fragment(
        "CurrentPeriodUsage",
        *_ids(device, meter),
        _child("TimeStamp", _hex(time, 8)),
        _child("CurrentUsage", _hex(usage % (1 << (4 * width)), width)),
        *_scale(multiplier, divisor, digits=(1, 0)),
        _child("StartDate", _hex(start, 8)),
    )


def last_period_usage(
    *,
    device: int,
    meter: int | None,
    usage: int,
    period: tuple[int, int] = (UNSET, UNSET),
    multiplier: int = 1,
    divisor: int = 1000,
    width: int = 16,
) -> bytes:
    """LastPeriodUsage from period[0] to period[1]; it has no TimeStamp (RAVEn XML API r127 p.27)."""
    return _fragment(
        "LastPeriodUsage",
        *_ids(device, meter),
        _child("LastUsage", _hex(usage % (1 << (4 * width)), width)),
        *_scale(multiplier, divisor, digits=(1, 0)),
        *_hexes(8, StartDate=period[0], EndDate=period[1]),
    )


def profile_data(
    *,
    device: int,
    meter: int | None,
    end: int,
    intervals: Sequence[int | None],
    status: int = 0,
    interval_period: int = 3,
) -> bytes:
    """ProfileData, newest interval first, None an invalid one (RAVEn XML API r127 p.28).

    interval_period is the manual's code: 3 means 15 minutes.
    """
    return _fragment(
        "ProfileData",
        *_ids(device, meter),
        _child("EndTime", _hex(end, 8)),
        _child("Status", _hex(status, 2)),
        _child("ProfileIntervalPeriod", str(interval_period)),
        _child("NumberOfPeriodsDelivered", _hex(len(intervals), 2)),
        *(_child("IntervalData", _hex(0xFFFFFF if i is None else i, 6)) for i in intervals),
    )


def block_price_detail(
    *,
    device: int,
    meter: int | None,
    time: int,
    blocks: Sequence[tuple[int, int]],
    currency: int = 840,
    trailing_digits: int = 5,
    multiplier: int = 1,
    divisor: int = 10,
) -> bytes:
    """BlockPriceDetail of (threshold, price) pairs, as an EMU-2 sends it.

    A threshold is raw * multiplier / divisor kWh; 0xffffffff has no limit.
    """
    prices = {
        f"{name}{n}": value
        for n, block in enumerate(blocks, start=1)
        for name, value in zip(("Threshold", "Price"), block, strict=True)
    }
    return _fragment(
        "BlockPriceDetail",
        *_ids(device, meter),
        *_hexes(8, TimeStamp=time),
        *_hexes(2, NumberOfBlocks=len(blocks)),
        *_hexes(8, Multiplier=multiplier, Divisor=divisor),
        *_hexes(4, Currency=currency),
        *_hexes(2, TrailingDigits=trailing_digits),
        *_hexes(8, **prices),
    )


def fast_poll_status(
    *, device: int, meter: int | None, frequency_s: int = 0, end: int = UNSET
) -> bytes:
    """FastPollStatus; frequency 0 and end UNSET: fast poll is off."""
    children = [*_hexes(2, Frequency=frequency_s), *_hexes(8, EndTime=end)]
    return _fragment("FastPollStatus", *_ids(device, meter), *children)


def billing_period_list(
    *, device: int, meter: int | None, time: int, current: tuple[int, int] | None
) -> bytes:
    """BillingPeriodList; current is CurrentStart and CurrentDuration, None: no period."""
    period = []
    if current is not None:
        period = [*_hexes(8, CurrentStart=current[0]), *_hexes(4, CurrentDuration=current[1])]
    return _fragment(
        "BillingPeriodList",
        *_ids(device, meter),
        _child("TimeStamp", _hex(time, 8)),
        _child("NumberOfPeriods", _hex(0 if current is None else 1, 2)),
        *period,
    )


def warning(*, text: str = "Unknown command") -> bytes:
    """Warning, the only notification without DeviceMacId."""
    return _fragment("Warning", *_texts(Text=text))


_ROOT = re.compile(rb"\s*<(\w+)>")
_CHILD = re.compile(r"<(\w+)>([^<]*)</\1>|<(\w+)\s*/>")
_WHOLE = re.compile(rb"\s*<(\w+)>(?:\s*(?:<(\w+)>[^<]*</\2>|<\w+\s*/>))*\s*</\1>\s*")


def kind_of(fragment: bytes) -> str | None:
    """Kind (a value of KINDS) of the fragment that these bytes begin, or None."""
    found = _ROOT.match(fragment)
    return KINDS.get(found[1].decode("ascii", "replace")) if found else None


def is_whole(fragment: bytes) -> bool:
    """Return True if these bytes are exactly one well-formed notification."""
    return kind_of(fragment) is not None and _WHOLE.fullmatch(fragment) is not None


def fields_of(fragment: bytes) -> dict[str, str | list[str]]:
    """Text of each child as it stands on the line (code page 1252, still escaped); a repeated child gives a list."""
    fields: dict[str, str | list[str]] = {}
    for opened, text, closed in _CHILD.findall(fragment.decode("cp1252", "replace")):
        name = opened or closed
        earlier = fields.get(name)
        if earlier is None:
            fields[name] = text
        elif isinstance(earlier, list):
            earlier.append(text)
        else:
            fields[name] = [earlier, text]
    return fields


def _fragment(root: str, *children: str) -> bytes:
    lines = [f"<{root}>", *(f"  {child}" for child in children), f"</{root}>", ""]
    return "\r\n".join(lines).encode("cp1252", "replace")


def _child(name: str, value: str) -> str:
    return f"<{name}>{value}</{name}>"


def _texts(**texts: str) -> list[str]:
    return [_child(name, escape(text, quote=False)) for name, text in texts.items()]


def _hexes(digits: int, **numbers: int) -> list[str]:
    return [_child(name, _hex(number, digits)) for name, number in numbers.items()]


def _empty(name: str) -> str:
    return f"<{name} />"


def _hex(value: int, digits: int) -> str:
    return f"0x{value:0{digits}x}"


def _yes(value: bool) -> str:
    return "Y" if value else "N"


def _ids(device: int, meter: int | None) -> list[str]:
    return _hexes(16, DeviceMacId=device) + ([] if meter is None else _hexes(16, MeterMacId=meter))


def _joined(
    status: str, description: str | None, network: Network | None, link_strength: int
) -> list[str]:
    children = [_child("Status", status)]
    if description is not None:
        children += _texts(Description=description)
    if network is not None:
        children += [*_hexes(16, ExtPanId=network.ext_pan), _child("Channel", str(network.channel))]
        children += _hexes(4, ShortAddr=network.short_addr)
    return [*children, *_hexes(2, LinkStrength=link_strength)]


def _scale(multiplier: int, divisor: int, *, digits: tuple[int, int]) -> list[str]:
    return [
        *_hexes(8, Multiplier=multiplier, Divisor=divisor),
        *_hexes(2, DigitsRight=digits[0], DigitsLeft=digits[1]),
        _child("SuppressLeadingZero", "Y"),
    ]
