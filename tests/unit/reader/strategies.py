"""Reports with any values, and lines with any damage, for property tests."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from fractions import Fraction
from itertools import cycle

from hypothesis import settings
from hypothesis import strategies as st

from raven_reader.framing import ROOTS
from raven_simulator import reports as printed
from ravenbus import notifications as n

from .examples import EPOCH, Example

steady = settings(max_examples=150, deadline=None, derandomize=True, database=None)
"""The same examples at each run, so that a build does not fail by chance."""

UNSET = 0xFFFFFFFF


def up_to(bits, *, but=()):
    return st.integers(0, 2**bits - 1).filter(lambda value: value not in but)


def signed(bits):
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


ids = st.integers(1, 2**64 - 1)
OLDEST = 0x10000000
times = st.one_of(st.just(UNSET), st.just(0), st.integers(0, 0xFFFFFFFE))


def is_read_as_printed(text):
    """Say whether a text in code page 1252 is no other text in UTF-8, and has no filler."""
    with suppress(UnicodeDecodeError):
        return text == text.encode("cp1252").decode() == text.strip()
    return text == text.strip() and not text.endswith("ÿ")


texts = st.text(st.characters(codec="cp1252", exclude_categories=["Cc"]), max_size=40).filter(
    is_read_as_printed
)
factors = st.sampled_from([0, 1, 2, 3, 1000, 10000, 0xFFFFFF, 0xFFFFFFFF])
ONES = {2**bits - 1 for bits in (32, 48, 64)}
SEVENS = {2 ** (bits - 1) - 1 for bits in (32, 48, 64)}
LOWEST = {-(2 ** (bits - 1)) for bits in (24, 32, 64)}
HIGHEST = {2 ** (bits - 1) - 1 for bits in (24, 32, 64)}


def eui(number):
    return f"{number:016x}"


def said(seconds):
    return None if seconds in (0, UNSET) else EPOCH + timedelta(seconds=seconds)


def moment(seconds):
    """Return a time that a device can have had."""
    return said(seconds) if seconds >= OLDEST else None


def none_if(value, *sentinels):
    return None if value in sentinels else value


def factor(value):
    return none_if(value, 0xFFFFFF, 0xFFFFFFFF)


def scaled(raw, multiplier, divisor):
    if None in (raw, factor(multiplier), factor(divisor)):
        return None
    return float(Fraction(raw * (multiplier or 1), divisor or 1))


def money(raw, trailing_digits):
    return None if raw is None else float(Fraction(raw, 10**trailing_digits))


def _scale(multiplier, divisor, left):
    return {
        "multiplier": factor(multiplier),
        "divisor": factor(divisor),
        "digits_right": 3 if left == "demand" else 1,
        "digits_left": 0 if left == "usage" else 6,
        "suppress_leading_zero": True,
    }


class Ids:
    """A device and its meter, as they are printed and as they are meant."""

    def __init__(self, draw, *, meter=True):
        self.device = draw(ids)
        self.meter = draw(st.one_of(st.none(), ids)) if meter else None

    def __call__(self, time=UNSET):
        meter = None if self.meter is None else eui(self.meter)
        found = {"device": eui(self.device), "meter": meter, "time": moment(time)}
        return found | ({"claimed_time": said(time)} if time < OLDEST else {})

    @property
    def printed(self):
        return {"device": self.device, "meter": self.meter}


def _demand(draw):
    of, time, multiplier, divisor = Ids(draw), draw(times), draw(factors), draw(factors)
    width = draw(st.sampled_from([6, 8, 16]))
    raw = draw(signed(min(4 * width, 32)))
    xml = printed.instantaneous_demand(
        **of.printed, time=time, demand=raw, multiplier=multiplier, divisor=divisor, width=width
    )
    raw = none_if(raw, *LOWEST, *HIGHEST)
    return xml, n.InstantaneousDemand(
        **of(time),
        **_scale(multiplier, divisor, "demand"),
        demand=raw,
        demand_kw=scaled(raw, multiplier, divisor),
    )


def _summation(draw):
    of, time, multiplier, divisor = Ids(draw), draw(times), draw(factors), draw(factors)
    width = draw(st.sampled_from([8, 16]))
    raw = [draw(up_to(min(48, 4 * width))) for _ in range(2)]
    xml = printed.current_summation_delivered(
        **of.printed,
        time=time,
        delivered=raw[0],
        received=raw[1],
        multiplier=multiplier,
        divisor=divisor,
        width=width,
    )
    raw = [none_if(value, *ONES, *SEVENS) for value in raw]
    return xml, n.CurrentSummationDelivered(
        **of(time),
        **_scale(multiplier, divisor, "summation"),
        summation_delivered=raw[0],
        summation_received=raw[1],
        delivered_kwh=scaled(raw[0], multiplier, divisor),
        received_kwh=scaled(raw[1], multiplier, divisor),
    )


def _usage(draw):
    of, time, multiplier, divisor = Ids(draw), draw(times), draw(factors), draw(factors)
    start, end = draw(times), draw(times)
    width = draw(st.sampled_from([8, 16]))
    raw = draw(signed(4 * width))
    same = {**of.printed, "usage": raw, "multiplier": multiplier, "divisor": divisor}
    raw = none_if(raw, -1, *LOWEST, *HIGHEST)
    meant = {
        **_scale(multiplier, divisor, "usage"),
        "usage_kwh": scaled(raw, multiplier, divisor),
        "start_date": moment(start),
    }
    if draw(st.booleans()):
        xml = printed.current_period_usage(**same, time=time, start=start, width=width)
        return xml, n.CurrentPeriodUsage(**of(time), **meant, current_usage=raw)
    xml = printed.last_period_usage(**same, period=(start, end), width=width)
    return xml, n.LastPeriodUsage(**of(), **meant, last_usage=raw, end_date=moment(end))


def price(raw):
    """Return what 32 bits mean as a price: negative with the top bit."""
    return none_if(raw - 2**32 if raw >= 2**31 else raw, -1, *LOWEST, *HIGHEST)


def _price(draw):
    of, time, raw, digits = Ids(draw), draw(times), draw(up_to(32)), draw(up_to(4))
    raw = draw(st.sampled_from([raw, 0, UNSET]))
    tier, currency, label = draw(up_to(8)), draw(up_to(16)), draw(texts)
    start, duration = draw(times), draw(up_to(16))
    emu = draw(st.booleans())
    xml = printed.price_cluster(
        **of.printed,
        time=time,
        price=printed.Price(raw, digits, label, tier, currency),
        window=(start, duration) if emu else None,
    )
    raw = None if raw == 0 and not label else price(raw)
    return xml, n.PriceCluster(
        **of(time),
        price=raw,
        trailing_digits=digits,
        price_per_kwh=money(raw, digits),
        currency=currency,
        tier=tier,
        start_time=moment(start) if emu else None,
        duration=none_if(duration, 0xFFFF) if emu else None,
        rate_label=(label or None) if emu else None,
        tier_label=None if emu else (label or None),
    )


def _clock(draw):
    of, utc, local = Ids(draw), draw(times), draw(times)
    both = said(utc) and said(local)
    xml = printed.time_cluster(**of.printed, utc=utc, local=local)
    return xml, n.TimeCluster(**of(utc), local_offset_s=local - utc if both else None)


def _message(draw):
    of, time, text = Ids(draw), draw(times), draw(texts)
    number, required, confirmed = draw(up_to(32)), draw(st.booleans()), draw(st.booleans())
    extended = draw(st.booleans())
    message = printed.Message(number, text, required, confirmed)
    xml = printed.message_cluster(**of.printed, time=time, message=message, extended=extended)
    return xml, n.MessageCluster(
        **of(time),
        id=number,
        text=text or None,
        priority="Medium" if extended else None,
        start_time=moment(time) if extended else None,
        confirmation_required=required,
        confirmed=confirmed,
        queue="Active",
    )


def _link(draw):
    of, status, link = Ids(draw), draw(texts.filter(bool)), draw(up_to(8))
    of.meter = of.meter or 1
    status = "".join(c for c in status if c not in "<>&").strip(" \xa0ÿ") or "Connected"
    text, channel, short = draw(texts), draw(up_to(8)), draw(up_to(16))
    network = printed.Network(draw(ids), channel, short)
    same = {"status": status, "description": text, "network": network, "link_strength": link}
    meant = {
        "status": status,
        "description": text or None,
        "ext_pan_id": eui(network.ext_pan),
        "channel": channel,
        "short_addr": short,
        "link_strength": link,
    }
    if draw(st.booleans()):
        return printed.connection_status(**of.printed, **same), n.ConnectionStatus(**of(), **meant)
    xml = printed.network_info(device=of.device, coordinator=of.meter, **same)
    return xml, n.NetworkInfo(**{**of(), "meter": None}, coordinator=eui(of.meter), **meant)


def _device_info(draw):
    of = Ids(draw, meter=False)
    identity = printed.Identity(
        draw(up_to(64)),
        draw(up_to(128)),
        *(draw(texts) for _ in range(5)),
        draw(st.one_of(st.none(), up_to(16))),
    )
    return printed.device_info(device=of.device, identity=identity), n.DeviceInfo(
        **of(),
        fw_version=identity.firmware or None,
        hw_version=identity.hardware or None,
        image_type=identity.image_type,
        manufacturer=identity.manufacturer or None,
        model_id=identity.model_id or None,
        date_code=identity.date_code or None,
    )


def _schedule(draw):
    of, event = (
        Ids(draw),
        draw(st.sampled_from(["demand", "price", "profile_data", "block_period"])),
    )
    every, mode = draw(up_to(32, but=(UNSET,))), draw(st.sampled_from([None, "default", "rest"]))
    every = draw(st.sampled_from([every, None]))
    xml = printed.schedule_info(**of.printed, event=event, frequency_s=every, mode=mode)
    return xml, n.ScheduleInfo(
        **of(), event=event, frequency_s=every, enabled=every is not None, mode=mode
    )


def _meters(draw):
    of, meters = Ids(draw, meter=False), draw(st.lists(ids, max_size=5))
    xml = printed.meter_list(device=of.device, meters=meters)
    return xml, n.MeterList(**of(), meters=[eui(meter) for meter in meters])


def _meter(draw):
    of, said, enabled = Ids(draw), [draw(texts) for _ in range(4)], draw(st.booleans())
    names = ("meter_type", "nick_name", "account", "host")
    given = dict(zip(names, said, strict=True))
    xml = printed.meter_info(**of.printed, **given, auth=draw(texts), enabled=enabled)
    meant = {name: text or None for name, text in given.items()}
    return xml, n.MeterInfo(**of(), **meant, enabled=enabled)


def _profile(draw):
    of, end, period = Ids(draw), draw(times), draw(st.integers(0, 7))
    status = draw(up_to(8))
    intervals = draw(st.lists(st.one_of(st.none(), up_to(24, but=(0xFFFFFF,))), max_size=12))
    xml = printed.profile_data(
        **of.printed, end=end, intervals=intervals, status=status, interval_period=period
    )
    minutes = (1440, 60, 30, 15, 10, 7.5, 5, 2.5)
    return xml, n.ProfileData(
        **{**of(), "time": moment(end)},
        end_time=moment(end),
        status=status,
        profile_interval_period=period,
        interval_s=int(60 * minutes[period]),
        number_of_periods_delivered=len(intervals),
        intervals=intervals,
    )


def _blocks(draw):
    of, time, multiplier, divisor = Ids(draw), draw(times), draw(factors), draw(factors)
    currency, digits = draw(up_to(16)), draw(up_to(4))
    blocks = draw(st.lists(st.tuples(up_to(32), up_to(32)), max_size=6))
    xml = printed.block_price_detail(
        **of.printed,
        time=time,
        blocks=blocks,
        currency=currency,
        trailing_digits=digits,
        multiplier=multiplier,
        divisor=divisor,
    )
    meant = [(none_if(threshold, UNSET), price(raw)) for threshold, raw in blocks]
    return xml, n.BlockPriceDetail(
        **of(time),
        number_of_blocks=len(blocks),
        multiplier=factor(multiplier),
        divisor=factor(divisor),
        currency=currency,
        trailing_digits=digits,
        blocks=[
            n.PriceBlock(
                threshold=threshold,
                threshold_kwh=scaled(threshold, multiplier, divisor),
                price=per_kwh,
                price_per_kwh=money(per_kwh, digits),
            )
            for threshold, per_kwh in meant
        ],
    )


def _fast_poll(draw):
    of, every, end = Ids(draw), draw(up_to(8)), draw(times)
    xml = printed.fast_poll_status(**of.printed, frequency_s=every, end=end)
    return xml, n.FastPollStatus(**of(), frequency_s=every, end_time=moment(end))


def _billing(draw):
    of, time = Ids(draw), draw(times)
    current = draw(st.one_of(st.none(), st.tuples(times, up_to(32))))
    xml = printed.billing_period_list(**of.printed, time=time, current=current)
    start, duration = current or (UNSET, None)
    return xml, n.BillingPeriodList(
        **of(time),
        number_of_periods=0 if current is None else 1,
        current_start=moment(start),
        current_duration=duration,
    )


def _warning(draw):
    text = draw(texts.filter(bool))
    return printed.warning(text=text), n.Warning(device=None, meter=None, time=None, text=text)


@st.composite
def reports(draw):
    """Return a report of any kind with any values, and what it means."""
    kinds = (_demand, _summation, _usage, _price, _clock, _message, _link, _device_info)
    rare = (_schedule, _meters, _meter, _profile, _blocks, _fast_poll, _billing, _warning)
    kind = draw(st.sampled_from(kinds + rare))
    xml, meaning = kind(draw)
    return Example(kind.__name__, xml, meaning)


def lines(most=8):
    """Return several reports, no two the same."""
    return st.lists(reports(), min_size=1, max_size=most, unique_by=lambda report: report.xml)


sizes = st.lists(st.integers(1, 64), min_size=1, max_size=20)
"""How many bytes come at a time, over and over."""


def cut_into(data, sizes):
    """Return the bytes in pieces of these sizes, again from the first when they run out."""
    pieces, start = [], 0
    for size in cycle(sizes):
        if start >= len(data):
            return pieces
        pieces.append(data[start : start + size])
        start += size
    return pieces


_noise = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"<",
            b">",
            b"</",
            b"<![CDATA[",
            b"]]>",
            b"<Demand>",
            b"</Demand>",
            b"<Warning>",
            b"<Warning><Text>",
            b"</InstantaneousDemand>",
            b"<NwkTable><DeviceMacId>",
            b"<InstantaneousDemand><DeviceMacId>",
            b"\0\0",
            b"\xff",
        ]
    ),
)


@st.composite
def damaged(draw, xml):
    """Return a report with one stretch of it left out, replaced, or something put in."""
    start = draw(st.integers(0, len(xml)))
    length = draw(st.one_of(st.just(0), st.integers(0, 12), st.integers(0, len(xml))))
    return xml[:start] + draw(_noise) + xml[start + length :]


_TOKENS = [
    *(f"<{root}>".encode() for root in ROOTS.values()),
    *(f"</{root}>".encode() for root in ROOTS.values()),
    b"<Foo><DeviceMacId>",
    b"</Foo>",
    b"<DeviceMacId>0xd8d5b90000001234</DeviceMacId>",
    b"<TimeStamp>0x3136e6c0</TimeStamp>",
    b"<Text>x</Text>",
    b"<Text>",
    b"</Text>",
    b"<Text />",
    b"<![CDATA[",
    b"]]>",
    b"&amp;",
    b"&#x110000;",
    b"<",
    b">",
    b"\r\n  ",
    b"\0",
    b"\xff",
]
noise = st.lists(st.one_of(st.sampled_from(_TOKENS), st.binary(max_size=8)), max_size=60).map(
    b"".join
)
"""Any bytes, among which the parts of notifications are frequent."""
