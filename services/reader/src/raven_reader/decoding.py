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
from typing import Any, Final

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


_DEVICE: dict[str, tuple[str, Convert]] = {
    "devicemacid": ("device", _mac),
    "metermacid": ("meter", _mac),
}


def _spec(
    build: Callable[[dict[str, Any]], n.Notification],
    required: str,
    *shared: Mapping[str, tuple[str, Convert]],
    repeated: str = "",
    **fields: tuple[str, Convert],
) -> _Spec:
    every = dict(_DEVICE)
    for part in (*shared, fields):
        every.update(part)
    return _Spec(build, every, tuple(required.split()), re.compile(repeated) if repeated else None)


def _plain(kind: type[n.Notification]) -> Callable[[dict[str, Any]], n.Notification]:
    return lambda values: kind(**values)


def _demand(values: dict[str, Any]) -> n.Notification:
    kw = n.scaled(values["demand"], values["multiplier"], values["divisor"])
    return n.InstantaneousDemand(demand_kw=kw, **values)


def _summation(values: dict[str, Any]) -> n.Notification:
    scale = values["multiplier"], values["divisor"]
    return n.CurrentSummationDelivered(
        delivered_kwh=n.scaled(values["summation_delivered"], *scale),
        received_kwh=n.scaled(values["summation_received"], *scale),
        **values,
    )


def _usage(kind: Callable[..., n.Notification], raw: str) -> Callable[..., n.Notification]:
    def build(values: dict[str, Any]) -> n.Notification:
        kwh = n.scaled(values[raw], values["multiplier"], values["divisor"])
        return kind(usage_kwh=kwh, **values)

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


_SCALED: dict[str, tuple[str, Convert]] = {
    "multiplier": ("multiplier", _FACTOR),
    "divisor": ("divisor", _FACTOR),
    "digitsright": ("digits_right", _hint(_unsigned(8, tuple(range(2, 17))))),
    "digitsleft": ("digits_left", _hint(_unsigned(8, tuple(range(2, 17))))),
    "suppressleadingzero": ("suppress_leading_zero", _hint(_flag)),
}
_LINK: dict[str, tuple[str, Convert]] = {
    "status": ("status", _required_text),
    "description": ("description", _text),
    "statuscode": ("status_code", lambda text: None if text == "null" else _U8(text)),
    "extpanid": ("ext_pan_id", _mac),
    "channel": ("channel", _decimal(0, 255)),
    "shortaddr": ("short_addr", _U16),
    "linkstrength": ("link_strength", _U8),
}
_SUMMATION = _spec(
    _summation,
    "device time summation_delivered summation_received multiplier divisor",
    _SCALED,
    timestamp=("time", _instant),
    summationdelivered=("summation_delivered", _register),
    summationreceived=("summation_received", _register),
)

_SPECS: Final[dict[str, _Spec]] = {
    "connectionstatus": _spec(_plain(n.ConnectionStatus), "device status", _LINK),
    "networkinfo": _spec(
        _plain(n.NetworkInfo), "device status", _LINK, coordmacid=("coordinator", _mac)
    ),
    # InstallCode and LinkKey are secrets of the network: they are not even looked at.
    "deviceinfo": _spec(
        _plain(n.DeviceInfo),
        "device fw_version",
        fwversion=("fw_version", _text),
        hwversion=("hw_version", _text),
        imagetype=("image_type", _U16),
        manufacturer=("manufacturer", _text),
        modelid=("model_id", _text),
        datecode=("date_code", _text),
    ),
    "scheduleinfo": _spec(
        _plain(n.ScheduleInfo),
        "device event frequency_s enabled",
        event=("event", _required_text),
        mode=("mode", _text),
        frequency=("frequency_s", _U32_OR_NONE),
        enabled=("enabled", _flag),
    ),
    "meterlist": _Spec(
        _meter_list, {"devicemacid": ("device", _mac)}, ("device",), re.compile("(metermacid)()")
    ),
    # Auth is a credential.
    "meterinfo": _spec(
        _plain(n.MeterInfo),
        "device meter_type",
        metertype=("meter_type", _text),
        nickname=("nick_name", _text),
        account=("account", _text),
        host=("host", _text),
        enabled=("enabled", _flag),
    ),
    "timecluster": _spec(
        _time_cluster,
        "device time local",
        utctime=("time", _instant),
        localtime=("local", _instant),
    ),
    "messagecluster": _spec(
        _plain(n.MessageCluster),
        "device time id text",
        timestamp=("time", _instant),
        id=("id", _U32),
        text=("text", _text),
        priority=("priority", _text),
        starttime=("start_time", _time),
        duration=("duration", _DURATION),
        confirmationrequired=("confirmation_required", _flag),
        confirmed=("confirmed", _flag),
        queue=("queue", _text),
    ),
    "pricecluster": _spec(
        _price_cluster,
        "device time price currency trailing_digits tier",
        timestamp=("time", _instant),
        price=("price", _PRICE),
        currency=("currency", _U16),
        trailingdigits=("trailing_digits", _trailing_digits),
        tier=("tier", _U8),
        starttime=("start_time", _time),
        duration=("duration", _DURATION),
        tierlabel=("tier_label", _text),
        ratelabel=("rate_label", _text),
    ),
    "instantaneousdemand": _spec(
        _demand,
        "device time demand multiplier divisor",
        _SCALED,
        timestamp=("time", _instant),
        demand=("demand", _DEMAND),
    ),
    "currentsummationdelivered": _SUMMATION,
    "currentsummation": _SUMMATION,  # the EAGLE's name for it
    "currentperiodusage": _spec(
        _usage(n.CurrentPeriodUsage, "current_usage"),
        "device time current_usage multiplier divisor start_date",
        _SCALED,
        timestamp=("time", _instant),
        currentusage=("current_usage", _USAGE),
        startdate=("start_date", _time),
    ),
    "lastperiodusage": _spec(
        _usage(n.LastPeriodUsage, "last_usage"),
        "device last_usage multiplier divisor start_date end_date",
        _SCALED,
        lastusage=("last_usage", _USAGE),
        startdate=("start_date", _time),
        enddate=("end_date", _time),
    ),
    "profiledata": _spec(
        _profile,
        "device end_time status profile_interval_period number_of_periods_delivered",
        repeated=r"(intervaldata)(\d{0,3})",
        endtime=("end_time", _time),
        status=("status", _U8),
        profileintervalperiod=("profile_interval_period", _decimal(0, 7)),
        numberofperiodsdelivered=("number_of_periods_delivered", _U8),
    ),
    "blockpricedetail": _spec(
        _blocks,
        "device time number_of_blocks multiplier divisor trailing_digits",
        repeated=r"(threshold|price)(\d{1,3})",
        timestamp=("time", _instant),
        currentstart=("current_start", _time),
        currentduration=("current_duration", _unsigned(32, (4, 8))),
        blockperiodconsumption=("block_period_consumption", _USAGE),
        blockperiodconsumptionmultiplier=("block_period_consumption_multiplier", _FACTOR),
        blockperiodconsumptiondivisor=("block_period_consumption_divisor", _FACTOR),
        numberofblocks=("number_of_blocks", _U8),
        multiplier=("multiplier", _FACTOR),
        divisor=("divisor", _FACTOR),
        currency=("currency", _U16),
        trailingdigits=("trailing_digits", _trailing_digits),
    ),
    "fastpollstatus": _spec(
        _plain(n.FastPollStatus),
        "device frequency_s end_time",
        frequency=("frequency_s", _U8),
        endtime=("end_time", _time),
        coordmacid=("meter", _mac),
    ),
    "billingperiodlist": _spec(
        _plain(n.BillingPeriodList),
        "device time number_of_periods",
        timestamp=("time", _instant),
        numberofperiods=("number_of_periods", _U8),
        currentstart=("current_start", _time),
        currentduration=("current_duration", _unsigned(32, (4, 8))),
    ),
    # The only notification that does not name its device.
    "warning": _Spec(_plain(n.Warning), {"text": ("text", _required_text)}, ("text",)),
}
