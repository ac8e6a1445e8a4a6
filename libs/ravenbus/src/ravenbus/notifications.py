"""The notifications of a RAVEn or EMU-2, typed: one frozen struct for each kind.

A field keeps the name that the RAVEn XML API gives it, in snake case, and its raw integer.
A scaled value stands beside it with its unit in the name, ``value = raw x multiplier / divisor``
where a multiplier or divisor of zero counts as one (RAVEn XML API r127 p.22).
``null`` means that the device sent nothing, or the sentinel that stands for nothing.
Display hints (digits and leading zeros) are passed on and never applied.
"""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import reduce
from operator import or_
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

DERIVED_DIGITS: Final = Decimal(1).scaleb(-9)
"""The digits of a scaled value that a store keeps."""
EXACT: Final = Context(prec=60)

Eui64 = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{16}\Z", description="EUI-64, 16 lower-case hex digits")
]
UtcTime = Annotated[datetime, Meta(tz=True, description="UTC, RFC 3339 with Z")]
Uint8 = Annotated[int, Meta(ge=0, le=2**8 - 1)]
Uint16 = Annotated[int, Meta(ge=0, le=2**16 - 1)]
Uint24 = Annotated[int, Meta(ge=0, le=2**24 - 1)]
Uint32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Uint48 = Annotated[int, Meta(ge=0, le=2**48 - 1)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, Meta(max_length=1024)]
Kilowatts = Annotated[float, Meta(description="kW")]
KilowattHours = Annotated[float, Meta(description="kWh")]
PricePerKwh = Annotated[float, Meta(description="currency units for each kWh")]
Percent = Annotated[int, Meta(ge=0, le=255, description="percent")]
Seconds = Annotated[int, Meta(ge=0, le=2**32 - 1, description="seconds")]
IntervalChannel = Literal["delivered", "received"]


class Notification(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="kind",
    tag=lambda name: "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_"),
):
    """What every kind has.

    ``device`` is the stick and ``meter`` the meter it heard, null where the fragment names none.
    ``time`` is the device's clock, null where the fragment has none or what it said cannot be true;
    ``claimed_time`` then has what it said.
    """

    device: Annotated[Eui64 | None, Meta(description="the stick, EUI-64, 16 lower-case hex digits")]
    meter: Annotated[Eui64 | None, Meta(description="the meter, EUI-64, 16 lower-case hex digits")]
    time: Annotated[UtcTime | None, Meta(description="the device's clock, UTC, RFC 3339 with Z")]
    claimed_time: Annotated[
        UtcTime | None,
        Meta(description="what the device's clock said where it cannot be true, so `time` is null"),
    ] = None


class Scaled(Notification, frozen=True, kw_only=True):
    """A register with its scale and display hints (RAVEn XML API r127 p.22)."""

    multiplier: Uint32 | None
    divisor: Uint32 | None
    digits_right: Uint8 | None = None
    digits_left: Uint8 | None = None
    suppress_leading_zero: bool | None = None


class ConnectionStatus(Notification, frozen=True, kw_only=True):
    """State of the link to the meter (RAVEn XML API r127 p.10)."""

    status: Text
    description: Text | None = None
    status_code: Uint8 | None = None
    ext_pan_id: Eui64 | None = None
    channel: Uint8 | None = None
    short_addr: Uint16 | None = None
    link_strength: Percent | None = None


class NetworkInfo(ConnectionStatus, frozen=True, kw_only=True):
    """State of the network, with its coordinator (RAVEn XML API r127 p.15)."""

    coordinator: Eui64 | None = None


class DeviceInfo(Notification, frozen=True, kw_only=True):
    """The stick itself, without its secrets (RAVEn XML API r127 p.11)."""

    fw_version: Text | None = None
    hw_version: Text | None = None
    image_type: Uint16 | None = None
    manufacturer: Text | None = None
    model_id: Text | None = None
    date_code: Text | None = None


class ScheduleInfo(Notification, frozen=True, kw_only=True):
    """How often the device reports an event (RAVEn XML API r127 p.12)."""

    event: Text
    mode: Text | None = None
    frequency_s: Seconds | None = None
    enabled: bool | None = None


class MeterList(Notification, frozen=True, kw_only=True):
    """The meters that the device knows (RAVEn XML API r127 p.13)."""

    meters: list[Eui64]


class MeterInfo(Notification, frozen=True, kw_only=True):
    """What the device was told of a meter, without its credential (RAVEn XML API r127 p.14)."""

    meter_type: Text | None = None
    nick_name: Text | None = None
    account: Text | None = None
    host: Text | None = None
    enabled: bool | None = None


class TimeCluster(Notification, frozen=True, kw_only=True):
    """The device's clock: ``time`` is UTCTime (RAVEn XML API r127 p.17).

    ``local_offset_s`` is LocalTime - UTCTime; devices disagree on daylight saving.
    """

    local_offset_s: Annotated[int, Meta(ge=-(2**32), le=2**32, description="seconds")] | None = None


class MessageCluster(Notification, frozen=True, kw_only=True):
    """A text from the utility (RAVEn XML API r127 p.18)."""

    id: Uint32 | None = None
    text: Text | None = None
    priority: Text | None = None
    start_time: UtcTime | None = None
    duration: Uint16 | None = None
    confirmation_required: bool | None = None
    confirmed: bool | None = None
    queue: Text | None = None


CURRENCIES: Final = {
    36: "AUD",
    124: "CAD",
    484: "MXN",
    554: "NZD",
    826: "GBP",
    840: "USD",
    978: "EUR",
}
"""ISO 4217 numbers of the places where these sticks are sold."""


class PriceCluster(Notification, frozen=True, kw_only=True):
    """The price in force, which may be negative (RAVEn XML API r127 p.21).

    ``currency`` is the ISO 4217 number.
    """

    price: Int32 | None
    trailing_digits: Uint8 | None
    price_per_kwh: PricePerKwh | None
    currency: Uint16 | None = None
    tier: Uint8 | None = None
    start_time: UtcTime | None = None
    duration: Uint16 | None = None
    tier_label: Text | None = None
    rate_label: Text | None = None


class InstantaneousDemand(Scaled, frozen=True, kw_only=True):
    """Power now, negative on export (RAVEn XML API r127 p.23)."""

    demand: Int32 | None
    demand_kw: Kilowatts | None


class CurrentSummationDelivered(Scaled, frozen=True, kw_only=True):
    """The meter's registers: delivered to the user, received from him (r127 p.24)."""

    summation_delivered: Uint48 | None
    summation_received: Uint48 | None
    delivered_kwh: KilowattHours | None
    received_kwh: KilowattHours | None


class CurrentPeriodUsage(Scaled, frozen=True, kw_only=True):
    """Energy since ``start_date``, added up by the device (RAVEn XML API r127 p.25)."""

    current_usage: Int64 | None
    usage_kwh: KilowattHours | None
    start_date: UtcTime | None = None


class LastPeriodUsage(Scaled, frozen=True, kw_only=True):
    """Energy of the period that was closed last (RAVEn XML API r127 p.27)."""

    last_usage: Int64 | None
    usage_kwh: KilowattHours | None
    start_date: UtcTime | None = None
    end_date: UtcTime | None = None


class ProfileData(Notification, frozen=True, kw_only=True):
    """Interval data, newest first, on the summation's scale (RAVEn XML API r127 p.28).

    The fragment does not say ``interval_channel``: it is what the reader asked for, if that is known.
    """

    interval_channel: IntervalChannel | None = None
    end_time: UtcTime | None = None
    status: Uint8 | None = None
    profile_interval_period: Uint8 | None = None
    interval_s: Seconds | None = None
    number_of_periods_delivered: Uint8 | None = None
    intervals: list[Uint24 | None] = []


class PriceBlock(msgspec.Struct, frozen=True, kw_only=True):
    """One block: what is used up to ``threshold`` costs ``price``."""

    threshold: Uint32 | None = None
    threshold_kwh: KilowattHours | None = None
    price: Int32 | None
    price_per_kwh: PricePerKwh | None


class BlockPriceDetail(Notification, frozen=True, kw_only=True):
    """Prices by blocks of use (EMU-2 only; the vendor's sample commands)."""

    current_start: UtcTime | None = None
    current_duration: Uint32 | None = None
    block_period_consumption: Int64 | None = None
    block_period_consumption_multiplier: Uint32 | None = None
    block_period_consumption_divisor: Uint32 | None = None
    consumption_kwh: KilowattHours | None = None
    number_of_blocks: Uint8 | None = None
    multiplier: Uint32 | None
    divisor: Uint32 | None
    currency: Uint16 | None = None
    trailing_digits: Uint8 | None
    blocks: list[PriceBlock] = []


class FastPollStatus(Notification, frozen=True, kw_only=True):
    """Whether the device polls faster for a while, and until when (EAGLE uploader manual)."""

    frequency_s: Seconds | None = None
    end_time: UtcTime | None = None


class BillingPeriodList(Notification, frozen=True, kw_only=True):
    """The billing period under way (vendor's sample commands; fields from one capture)."""

    number_of_periods: Uint8 | None = None
    current_start: UtcTime | None = None
    current_duration: Uint32 | None = None


class Warning(Notification, frozen=True, kw_only=True):  # noqa: A001 - the device's own name for it
    """The device refuses a command; it names neither itself nor the command."""

    text: Text


KINDS: Final[dict[str, type[Notification]]] = {
    str(kind.__struct_config__.tag): kind
    for kind in tuple(globals().values())
    if isinstance(kind, type)
    and issubclass(kind, Notification)
    and kind not in (Notification, Scaled)
}
"""Every kind by its name on the bus, in the order of the declarations above."""

AnyNotification: Final[Any] = reduce(or_, KINDS.values())
"""The kinds as one type to decode."""


def kind_of(notification: Notification) -> str:
    """Return the kind's name on the bus, as in ``instantaneous_demand``."""
    return str(notification.__struct_config__.tag)


def scaled(raw: int | None, multiplier: int | None, divisor: int | None) -> float | None:
    """Return raw x multiplier / divisor, where zero counts as one (RAVEn XML API r127 p.22).

    One division of integers is exact to the last digit that a double has.
    """
    if raw is None or multiplier is None or divisor is None:
        return None
    return raw * (multiplier or 1) / (divisor or 1)


def derived(raw: int | None, multiplier: int | None, divisor: int | None) -> Decimal | None:
    """Return raw x multiplier / divisor as a store keeps it, to 9 digits after the point.

    None if something is missing, or negative as a scale of a row that was made up.
    """
    if raw is None or multiplier is None or divisor is None or multiplier < 0 or divisor < 0:
        return None
    value = EXACT.divide(EXACT.multiply(Decimal(raw), multiplier or 1), divisor or 1)
    return value.quantize(DERIVED_DIGITS, ROUND_HALF_UP, EXACT)


def price_per_kwh(raw: int | None, trailing_digits: int | None) -> float | None:
    """Return raw / 10 ** trailing_digits (RAVEn XML API r127 p.21)."""
    if raw is None or trailing_digits is None:
        return None
    return float(raw / 10**trailing_digits)
