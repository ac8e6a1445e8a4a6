"""From a whole fragment to a typed notification, or the reason why it cannot be one.

The rules are those of the RAVEn XML API manual and of real devices where they differ: numbers
are hexadecimal with or without ``0x``, the printed width carries the sign, sentinels mean
nothing, times count from 2000-01-01 UTC and one that no device can have had is what it claimed.
A number that is padded with zeros to a width that its
field never has lost a digit on the way, and the fragment is rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, get_type_hints

from raven_reader.framing import Fragment
from ravenbus import notifications as n
from ravenbus.errors import PoisonError

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Zero of the device's clock (RAVEn XML API r127 p.17)."""

_OLDEST: Final = EPOCH + timedelta(seconds=0x10000000)
"""July 2008: no such device was made before, so an earlier clock was never set."""
_UNSET_TIMES = (0, 0xFFFFFFFF)
_TEXT_MAX = 1024
_HEX = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,16})")
_EUI64 = re.compile(r"(?:0[xX])?([0-9a-fA-F]{16})")

Convert = Callable[[str], Any]
"""Converters of fields that hold few different texts are cached: a line repeats itself."""


def decode(fragment: Fragment) -> n.Notification:
    """Return the notification that a fragment is; raise PoisonError with the reason."""
    spec = _SPECS.get(fragment.root)
    if spec is None:
        raise PoisonError("unknown-kind", f"<{fragment.root}> is no notification of the manual")
    values: dict[str, Any] = {}
    for name, text in fragment.children:
        found = spec.fields.get(name)
        if found is None:
            if spec.repeated and (match := spec.repeated.fullmatch(name)):
                texts = values.setdefault(match[1], [])
                texts.append(text)
                if match[2] and int(match[2]) != len(texts):
                    detail = f"<{name}> is number {len(texts)} in <{fragment.root}>"
                    raise PoisonError("missing-field", detail)
            continue
        attribute, convert = found
        if attribute in values:
            raise PoisonError("duplicate-field", f"<{name}> comes twice in <{fragment.root}>")
        try:
            values[attribute] = convert(text)
        except ValueError as error:
            raise PoisonError("bad-value", f"<{name}> in <{fragment.root}>: {error}") from None
    for attribute in spec.required:
        if attribute not in values:
            raise PoisonError("missing-field", f"<{fragment.root}> has no {attribute}")
    for attribute in ("device", "meter", "time"):
        values.setdefault(attribute, None)
    _claim(values)
    try:
        return spec.build(values)
    except ValueError as error:
        raise PoisonError("bad-value", f"<{fragment.root}>: {error}") from None


def _claim(values: dict[str, Any]) -> None:
    """Take a time that cannot be true for what the device's clock claims."""
    if values["time"] and values["time"] < _OLDEST:
        values["claimed_time"], values["time"] = values["time"], None


def _integer(text: str) -> tuple[int, int]:
    """Return a number and its printed width in digits."""
    match = _HEX.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:32]!r} is not a hexadecimal number")
    digits = match[1]
    return int(digits, 16), len(digits)


def _unsigned(bits: int, widths: tuple[int, ...], none: tuple[int, ...] = ()) -> Convert:
    """Return a converter for numbers printed unpadded or with one of ``widths`` digits."""
    limit = 1 << bits

    @lru_cache(maxsize=256)
    def convert(text: str) -> int | None:
        if not text:
            return None
        value, width = _integer(text)
        if width not in widths and width > 1 and value < 1 << 4 * (width - 1):
            raise ValueError(f"{text!r} is padded to {width} digits: allowed is {widths}")
        if value in none:
            return None
        if value >= limit:
            raise ValueError(f"{text!r} is larger than {bits} bits")
        return value

    return convert


def _register(text: str) -> int | None:
    """Return a register's 48 bits; all ones, or all but the sign, at any width mean no value."""
    value: int | None = _WIDE_REGISTER(text)
    if value is None:
        return None
    width = len(text.lower().removeprefix("0x"))
    widths = {32, 48, 64, 4 * width if width >= _NARROWEST else 64}
    if any(value in ((1 << bits) - 1, (1 << bits - 1) - 1) for bits in widths):
        return None
    if value >> _REGISTER_BITS:
        raise ValueError(f"{text!r} is larger than {_REGISTER_BITS} bits")
    return value


def _signed(bits: int, widths: tuple[int, ...], none: Callable[[int], tuple[int, ...]]) -> Convert:
    """Return a converter that takes the sign from a printed width of 6, 8 or 16 digits.

    ``none`` returns what means no value in so many bits.
    """
    unsigned = _unsigned(64, widths)
    limit = 1 << bits - 1
    nothing = {value for width in (6, 8, 16) for value in none(4 * width)}

    @lru_cache(maxsize=256)
    def convert(text: str) -> int | None:
        value: int | None = unsigned(text)
        if value is None:
            return None
        width = len(text.lower().removeprefix("0x"))
        if width in (6, 8, 16) and value >> (4 * width - 1):
            value -= 1 << (4 * width)
        if value in nothing:
            return None
        if not -limit <= value < limit:
            raise ValueError(f"{text!r} is larger than {bits} bits")
        return value

    return convert


def _extremes(bits: int) -> tuple[int, ...]:
    """Return the smallest and the largest signed number: Zigbee's invalid values."""
    return -(1 << bits - 1), (1 << bits - 1) - 1


def _extremes_and_ones(bits: int) -> tuple[int, ...]:
    """Return those, and all ones, with which meters report an error."""
    return (*_extremes(bits), -1)


def _instant(text: str) -> datetime | None:
    """Return the time that the device's clock says, however wrong it is."""
    if not text:
        return None
    value, width = _integer(text)
    if value in _UNSET_TIMES:
        return None
    if width != 8:  # noqa: PLR2004 - 32 bits
        raise ValueError(f"{text!r} is no time: allowed is 0x and 8 digits")
    return EPOCH + timedelta(seconds=value)


def _time(text: str) -> datetime | None:
    """Return a time that a field names, None if no such device was made before it."""
    found = _instant(text)
    return found if found and found >= _OLDEST else None


@lru_cache(maxsize=256)
def _mac(text: str) -> str | None:
    if not text:
        return None
    match = _EUI64.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:32]!r} is not an EUI-64 of 16 hexadecimal digits")
    return None if match[1] == "0" * 16 else match[1].lower()


def _text(text: str) -> str | None:
    text = text.rstrip("\xff")  # filler that real devices leave in DateCode
    if len(text) > _TEXT_MAX:
        raise ValueError(f"{len(text)} characters: allowed are {_TEXT_MAX}")
    return text or None


def _required_text(text: str) -> str:
    found = _text(text)
    if found is None:
        raise ValueError("is empty")
    return found


@lru_cache(maxsize=16)
def _flag(text: str) -> bool | None:
    match text.lower():
        case "y" | "true":
            return True
        case "n" | "false":
            return False
        case "":
            return None
    if _HEX.fullmatch(text) and (value := _integer(text)[0]) in (0, 1):
        return bool(value)
    raise ValueError(f"{text[:32]!r} is neither Y nor N")


def _hint(convert: Convert) -> Convert:
    """Return a converter for a display hint: it is never applied, so it rejects nothing."""

    def converted(text: str) -> Any:
        try:
            return convert(text)
        except ValueError:
            return None

    return converted


def _trailing_digits(text: str) -> int | None:
    """Return the digits after a price's point: 4 bits (Zigbee Smart Energy, Publish Price)."""
    value: int | None = _U8(text)
    if value is not None and value > _TRAILING_DIGITS_MAX:
        raise ValueError(f"{text!r}: a price has at most {_TRAILING_DIGITS_MAX} digits")
    return value


def _decimal(low: int, high: int) -> Convert:
    def convert(text: str) -> int | None:
        if not text:
            return None
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"{text[:32]!r} is not a number from {low} to {high}")
        return int(text)

    return convert


_U8 = _unsigned(8, (2, 4))
_U16 = _unsigned(16, (4,))
_U32 = _unsigned(32, (8,))
_U32_OR_NONE = _unsigned(32, (8,), none=(0xFFFFFFFF,))
_DURATION = _unsigned(16, (4,), none=(0xFFFF,))
_FACTOR = _unsigned(32, (6, 8), none=(0xFFFFFF, 0xFFFFFFFF))
_WIDE_REGISTER = _unsigned(64, (8, 12, 16))
_REGISTER_BITS = 48
_NARROWEST = 6
"""Digits of the narrowest register; fewer are those of an unpadded number."""
_INTERVAL = _unsigned(24, (6,), none=(0xFFFFFF,))
_DEMAND = _signed(32, (6, 8, 16), none=_extremes)
_USAGE = _signed(64, (8, 16), none=_extremes_and_ones)
_PRICE = _signed(32, (8,), none=_extremes_and_ones)
_TRAILING_DIGITS_MAX = 15

INTERVALS_S: Final = (86400, 3600, 1800, 900, 600, 450, 300, 150)
"""Seconds of ProfileIntervalPeriod 0 to 7 (RAVEn XML API r127 p.28)."""


@dataclass(frozen=True)
class _Spec:
    """Rules for reading one kind: child name to attribute and converter, and what is required."""

    build: Callable[[dict[str, Any]], n.Notification]
    fields: Mapping[str, tuple[str, Convert]]
    required: tuple[str, ...]
    repeated: re.Pattern[str] | None = None
    """Name and number, if it has one, of children that come several times."""


_CHILDREN: Final = {
    "device": "devicemacid",
    "meter": "metermacid",
    "time": "timestamp",
    "coordinator": "coordmacid",
}
"""Children that are not called as their attributes without the underscores."""
_BY_NAME: Final[Mapping[str, Convert]] = {
    "device": _mac,
    "meter": _mac,
    "time": _instant,
    "multiplier": _FACTOR,
    "divisor": _FACTOR,
    "block_period_consumption_multiplier": _FACTOR,
    "block_period_consumption_divisor": _FACTOR,
    "digits_right": _hint(_unsigned(8, tuple(range(2, 17)))),
    "digits_left": _hint(_unsigned(8, tuple(range(2, 17)))),
    "suppress_leading_zero": _hint(_flag),
    "status_code": lambda text: None if text == "null" else _U8(text),
    "channel": _decimal(0, 255),
    "demand": _DEMAND,
    "duration": _DURATION,
    "current_duration": _unsigned(32, (4, 8)),
    "trailing_digits": _trailing_digits,
    "profile_interval_period": _decimal(0, 7),
}
_BY_TYPE: Final[Mapping[Any, Convert]] = {
    n.Text: _required_text,
    n.Text | None: _text,
    n.Eui64 | None: _mac,
    n.UtcTime | None: _time,
    n.Uint8 | None: _U8,
    n.Percent | None: _U8,
    n.Uint16 | None: _U16,
    n.Uint32 | None: _U32,
    n.Uint48 | None: _register,
    n.Int32 | None: _PRICE,
    n.Int64 | None: _USAGE,
    bool | None: _flag,
}
"""Converters of the attributes that ``_BY_NAME`` has not; what has neither is no child."""


def _spec(
    kind: type[n.Notification],
    required: str,
    build: Callable[[dict[str, Any]], n.Notification] | None = None,
    repeated: str = "",
    **others: tuple[str, Convert],
) -> _Spec:
    """Return the rules for a kind; ``others`` are children in place of what follows from it.

    A time that the fragment does not have to have is none of its children.
    """
    needed = tuple(required.split())
    fields = {}
    elsewhere = {attribute for attribute, _ in others.values()}
    for attribute, annotation in get_type_hints(kind, include_extras=True).items():
        convert = _BY_NAME.get(attribute) or _BY_TYPE.get(annotation)
        left_out = attribute in elsewhere or (attribute == "time" and attribute not in needed)
        if convert and not left_out:
            child = _CHILDREN.get(attribute, attribute.replace("_", ""))
            fields[child] = (attribute, convert)
    plain: Callable[[dict[str, Any]], n.Notification] = lambda values: kind(**values)  # noqa: E731
    return _Spec(
        build or plain, fields | others, needed, re.compile(repeated) if repeated else None
    )


def _scaled(kind: type[n.Notification], **raw: str) -> Callable[[dict[str, Any]], n.Notification]:
    """Return what makes a notification with its scaled values, each of an attribute."""

    def build(values: dict[str, Any]) -> n.Notification:
        scale = values["multiplier"], values["divisor"]
        scaled: dict[str, Any] = {name: n.scaled(values[of], *scale) for name, of in raw.items()}
        return kind(**scaled, **values)

    return build


def _price_cluster(values: dict[str, Any]) -> n.Notification:
    labelled = values.get("rate_label") or values.get("tier_label")
    if values["price"] == 0 and not labelled:
        values["price"] = None
    per_kwh = n.price_per_kwh(values["price"], values["trailing_digits"])
    return n.PriceCluster(price_per_kwh=per_kwh, **values)


def _time_cluster(values: dict[str, Any]) -> n.Notification:
    local, utc = values.pop("local"), values["time"] or values.get("claimed_time")
    offset = int((local - utc).total_seconds()) if local and utc else None
    return n.TimeCluster(local_offset_s=offset, **values)


def _meter_list(values: dict[str, Any]) -> n.Notification:
    meters = [mac for mac in map(_mac, values.pop("metermacid", [])) if mac]
    return n.MeterList(meters=meters, **values)


def _profile(values: dict[str, Any]) -> n.Notification:
    intervals = [_INTERVAL(text) for text in values.pop("intervaldata", [])]
    said = values["number_of_periods_delivered"]
    if said != len(intervals):
        raise ValueError(f"NumberOfPeriodsDelivered is {said}, but {len(intervals)} came")
    period = values["profile_interval_period"]
    interval_s = None if period is None else INTERVALS_S[period]
    # Its only time is the one that it is about.
    values["time"] = values["end_time"]
    return n.ProfileData(interval_s=interval_s, intervals=intervals, **values)


def _blocks(values: dict[str, Any]) -> n.Notification:
    thresholds = [_U32_OR_NONE(text) for text in values.pop("threshold", [])]
    prices = [_PRICE(text) for text in values.pop("price", [])]
    said = values["number_of_blocks"]
    if said != len(prices) or len(thresholds) > len(prices):
        raise ValueError(f"NumberOfBlocks is {said}, but {len(prices)} prices came")
    thresholds += [None] * (len(prices) - len(thresholds))
    scale = values.get("multiplier"), values.get("divisor")
    blocks = [
        n.PriceBlock(
            threshold=threshold,
            threshold_kwh=n.scaled(threshold, *scale),
            price=price,
            price_per_kwh=n.price_per_kwh(price, values.get("trailing_digits")),
        )
        for threshold, price in zip(thresholds, prices, strict=True)
    ]
    consumption = n.scaled(
        values.get("block_period_consumption"),
        values.get("block_period_consumption_multiplier"),
        values.get("block_period_consumption_divisor"),
    )
    return n.BlockPriceDetail(blocks=blocks, consumption_kwh=consumption, **values)


_SPECS: Final[dict[str, _Spec]] = {
    "connectionstatus": _spec(n.ConnectionStatus, "device status"),
    "networkinfo": _spec(n.NetworkInfo, "device status"),
    # InstallCode and LinkKey are secrets of the network: they are not even looked at.
    "deviceinfo": _spec(n.DeviceInfo, "device fw_version"),
    "scheduleinfo": _spec(
        n.ScheduleInfo,
        "device event frequency_s enabled",
        frequency=("frequency_s", _U32_OR_NONE),
    ),
    "meterlist": _Spec(
        _meter_list, {"devicemacid": ("device", _mac)}, ("device",), re.compile("(metermacid)()")
    ),
    # Auth is a credential.
    "meterinfo": _spec(n.MeterInfo, "device meter_type"),
    "timecluster": _spec(
        n.TimeCluster,
        "device time local",
        _time_cluster,
        utctime=("time", _instant),
        localtime=("local", _instant),
    ),
    "messagecluster": _spec(n.MessageCluster, "device time id text"),
    "pricecluster": _spec(
        n.PriceCluster, "device time price currency trailing_digits tier", _price_cluster
    ),
    "instantaneousdemand": _spec(
        n.InstantaneousDemand,
        "device time demand multiplier divisor",
        _scaled(n.InstantaneousDemand, demand_kw="demand"),
    ),
    "currentsummationdelivered": _spec(
        n.CurrentSummationDelivered,
        "device time summation_delivered summation_received multiplier divisor",
        _scaled(
            n.CurrentSummationDelivered,
            delivered_kwh="summation_delivered",
            received_kwh="summation_received",
        ),
    ),
    "currentperiodusage": _spec(
        n.CurrentPeriodUsage,
        "device time current_usage multiplier divisor start_date",
        _scaled(n.CurrentPeriodUsage, usage_kwh="current_usage"),
    ),
    "lastperiodusage": _spec(
        n.LastPeriodUsage,
        "device last_usage multiplier divisor start_date end_date",
        _scaled(n.LastPeriodUsage, usage_kwh="last_usage"),
    ),
    "profiledata": _spec(
        n.ProfileData,
        "device end_time status profile_interval_period number_of_periods_delivered",
        _profile,
        repeated=r"(intervaldata)(\d{0,3})",
    ),
    "blockpricedetail": _spec(
        n.BlockPriceDetail,
        "device time number_of_blocks multiplier divisor trailing_digits",
        _blocks,
        repeated=r"(threshold|price)(\d{1,3})",
    ),
    "fastpollstatus": _spec(
        n.FastPollStatus,
        "device frequency_s end_time",
        frequency=("frequency_s", _U8),
        metermacid=("meter", _mac),
        coordmacid=("meter", _mac),
    ),
    "billingperiodlist": _spec(n.BillingPeriodList, "device time number_of_periods"),
    # The only notification that does not name its device.
    "warning": _Spec(
        lambda values: n.Warning(**values), {"text": ("text", _required_text)}, ("text",)
    ),
}
_SPECS["currentsummation"] = _SPECS["currentsummationdelivered"]  # the EAGLE's name for it
