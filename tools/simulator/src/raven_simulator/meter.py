"""The meter as its stick hears it: demand, registers and usage, prices, a message, the time."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypedDict

from raven_simulator import reports
from raven_simulator.reports import UNSET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raven_simulator.load import Sample, Source
    from raven_simulator.models import Model, Setup
    from raven_simulator.station import Moment

_PROFILE_MOST: Final = 12
_PROFILE_SHORT: Final = 3
_PROFILE_PERIOD_S: Final = 900
_PAST_STEP_S: Final = 60
_NO_INTERVAL: Final = 0xFFFFFF
_REMEMBERED: Final = 50_000
"""Moments at which a register is remembered: some four days of demands 8 s apart."""
_PEAK_HOURS: Final = range(16, 21)
_UNTIL_CHANGED: Final = (UNSET, 0xFFFF)


class Meter:
    """Each method returns a notification of now; at_s is the second of the schedule.

    The schedule runs at the setup's speed; the clock and the registers do not: registers integrate the reported demand
    over wall time, so that summation agrees with demand and TimeStamps.
    """

    def __init__(self, model: Model, setup: Setup, source: Source) -> None:
        self._model = model
        self._setup = setup
        self._ids = setup.ids
        self._source = source
        self._register = _Register(setup.delivered_wh, setup.received_wh)
        self._ended_s: dict[int, float] = {}
        self._spread = _Spread()
        self._period = _Period(self._register.net_wh)
        self._price = b""
        self._price_at_s = 0.0
        self._user_price: reports.Price | None = None
        self._message = None if setup.message is None else reports.Message(7, setup.message)
        self._message_clock = UNSET

    def start(self, moment: Moment) -> None:
        """Start the first period, and have the message from now."""
        self._message_clock = self._period.start = moment.clock
        past = range(-int(self._setup.past_s), 0, _PAST_STEP_S)
        if past:
            day_s = self._setup.day_s
            self._register.remember([(one, self._source.sample(day_s + one)) for one in past])

    # Demand and registers

    def demand(self, moment: Moment, at_s: float) -> bytes:
        """Measure the demand."""
        sample = self._source.sample(self._setup.day_s + at_s)
        if not sample.exact:
            sample = replace(sample, raw=self._spread.unused(sample.raw, moment.clock))
        self._register.measure(sample, moment.elapsed_s)
        width = 6 if sample.raw >= 0 else self._setup.negative_width
        return reports.instantaneous_demand(
            **self._ids,
            time=moment.clock,
            demand=sample.raw,
            multiplier=sample.multiplier,
            divisor=sample.divisor,
            width=width if abs(sample.raw) < -reports.NO_DEMAND else 8,
        )

    def summation(self, moment: Moment, _at_s: float) -> bytes:
        """Read the registers; the usage of the period is up to date then."""
        register = self._register
        register.advance(moment.elapsed_s)
        self._period.usage_wh = register.net_wh - self._period.base_wh
        self._period.updated = moment.clock
        return reports.current_summation_delivered(
            **self._ids,
            **self._form,
            time=moment.clock,
            delivered=register.counts(register.delivered_wh),
            received=register.counts(register.received_wh),
        )

    def period_usage(self) -> bytes:
        """Usage of the period as of the last summation."""
        period = self._period
        usage = self._register.counts(period.usage_wh)
        return reports.current_period_usage(
            **self._ids, **self._form, time=period.updated, usage=usage, start=period.start
        )

    def last_period_usage(self) -> bytes:
        """Usage of the period before."""
        usage = self._register.counts(self._period.last_wh)
        return reports.last_period_usage(
            **self._ids, **self._form, usage=usage, period=self._period.last
        )

    def close_period(self, moment: Moment) -> None:
        """Begin another period."""
        self._register.advance(moment.elapsed_s)
        closed, net_wh = self._period, self._register.net_wh
        self._period = _Period(
            net_wh,
            start=moment.clock,
            updated=moment.clock,
            last_wh=net_wh - closed.base_wh,
            last=(closed.start, moment.clock),
        )

    def profile(self, asked: int, end: int, moment: Moment, *, received: bool) -> bytes:
        """Say what the registers grew by in the intervals up to end, none from before the start.

        The intervals are differences of counts, so they add up to what the registers say.
        """
        if self._setup.intervals == "refused":
            return reports.profile_data(**self._ids, end=0, intervals=[], status=2)
        register = self._register
        register.advance(moment.elapsed_s)
        last = end - end % _PROFILE_PERIOD_S
        most = _PROFILE_SHORT if self._setup.intervals == "short" else _PROFILE_MOST
        asked_for = [last - _PROFILE_PERIOD_S * back for back in range(min(asked, most) + 1)]
        # A clock has whole seconds: when an interval ended must not move from one answer to the next.
        ended = [
            self._ended_s.setdefault(one, one - moment.clock + moment.elapsed_s)
            for one in asked_for
        ]
        known = [register.counts_at(one) for one in ended]
        counts = [one[received] for one in known if one]
        grown = [after - before for after, before in pairwise(counts)]
        if self._setup.intervals == "invalid":
            grown[2::3] = [_NO_INTERVAL] * len(grown[2::3])
        none_available = asked > 0 and not grown
        return reports.profile_data(
            **self._ids,
            end=0 if none_available else last,
            intervals=[one if 0 <= one < _NO_INTERVAL else None for one in grown],
            status=5 if none_available else 4 if asked > _PROFILE_MOST else 0,
        )

    @property
    def _form(self) -> _Form:
        multiplier, divisor = self._register.scale
        return {
            "multiplier": multiplier,
            "divisor": divisor,
            "width": self._model.summation_width,
        }

    # Price

    def price(self, moment: Moment, at_s: float) -> bytes:
        """Repeat the price for as long as the model does, else tell it anew."""
        keep_s = (self._model.price_refresh_s or 0) / self._setup.speed
        if self._price and moment.elapsed_s - self._price_at_s < keep_s:
            return self._price
        return self.new_price(moment, at_s)

    def new_price(self, moment: Moment, at_s: float) -> bytes:
        """Tell the price that the host has set, or else the tariff's."""
        self._price_at_s = moment.elapsed_s
        self._price = reports.price_cluster(
            **self._ids,
            time=moment.clock,
            price=self._user_price or _tariff(int((self._setup.day_s + at_s) / 3600) % 24),
            window=_UNTIL_CHANGED if self._model.extended else None,
        )
        return self._price

    def set_price(self, raw: int | None, digits: int | None, currency: int | None) -> None:
        """Set the user's price; 0 goes back to the tariff, and what fits no price is passed over."""
        if raw is not None and 0 <= raw <= UNSET:
            self._user_price = None
            if raw:
                price = reports.Price(raw, (digits or 0) & 0xFF, "Set by User")
                self._user_price = replace(price, currency=(currency or price.currency) & 0xFFFF)

    def price_blocks(self, moment: Moment) -> bytes:
        """Two blocks."""
        blocks = ((0x102C, 0x39AC), (UNSET, 0x42B5))
        return reports.block_price_detail(**self._ids, time=moment.clock, blocks=blocks)

    def billing_periods(self, moment: Moment) -> bytes:
        """Period under way, if its start is known."""
        current = None if self._period.start == UNSET else (self._period.start, 0xFFFF)
        return reports.billing_period_list(**self._ids, time=moment.clock, current=current)

    # Message and time

    def message(self, _moment: Moment, _at_s: float) -> bytes:
        """Message of the utility, or that there is none."""
        return reports.message_cluster(
            **self._ids,
            time=self._message_clock,
            message=self._message,
            extended=self._model.extended,
        )

    def confirm_message(self, number: int | None) -> None:
        """Mark the message with this id as confirmed."""
        if self._message and number == self._message.id:
            self._message = replace(self._message, confirmed=True)

    def time(self, moment: Moment, _at_s: float) -> bytes:
        """Time in UTC and of the place."""
        utc = moment.clock
        local = UNSET if utc == UNSET else utc + self._setup.utc_offset_s
        return reports.time_cluster(**self._ids, utc=utc, local=local)


class _Form(TypedDict):
    multiplier: int
    divisor: int
    width: int


class _Register:
    """The meter's two registers in Wh, fed by the last demand over the time that passed."""

    def __init__(self, delivered_wh: float, received_wh: float) -> None:
        self.delivered_wh = delivered_wh
        self.received_wh = received_wh
        self.watts = 0.0
        self.scale = (1, 1000)
        self._at_s: float | None = None
        self._past: deque[tuple[float, float, float]] = deque(maxlen=_REMEMBERED)

    @property
    def net_wh(self) -> float:
        return self.delivered_wh - self.received_wh

    def measure(self, sample: Sample, elapsed_s: float) -> None:
        self.advance(elapsed_s)
        self.watts = sample.watts
        self.scale = (sample.multiplier, sample.divisor)
        self._at_s = elapsed_s
        self._past.append((elapsed_s, self.delivered_wh, self.received_wh))

    def remember(self, samples: Sequence[tuple[float, Sample]]) -> None:
        """Have had the demands of moments before the first one measured, until that."""
        delivered_wh, received_wh = self.delivered_wh, self.received_wh
        after_s = 0.0
        past = [(after_s, delivered_wh, received_wh)]
        for at_s, sample in reversed(samples):
            energy_wh = sample.watts * (after_s - at_s) / 3600
            delivered_wh -= max(energy_wh, 0.0)
            received_wh -= max(-energy_wh, 0.0)
            after_s = at_s
            past.append((at_s, delivered_wh, received_wh))
        self._past.extend(reversed(past))

    def advance(self, elapsed_s: float) -> None:
        if self._at_s is not None:
            energy_wh = self.watts * (elapsed_s - self._at_s) / 3600
            self.delivered_wh += max(energy_wh, 0.0)
            self.received_wh += max(-energy_wh, 0.0)
            self._at_s = elapsed_s
            self._past.append((elapsed_s, self.delivered_wh, self.received_wh))

    def counts_at(self, elapsed_s: float) -> tuple[int, int] | None:
        """Both registers at a moment, None before the first that is remembered and after the last."""
        index = bisect_left(self._past, elapsed_s, key=lambda one: one[0])
        if index == len(self._past) or (index == 0 and self._past[0][0] > elapsed_s):
            return None
        before, after = self._past[max(index - 1, 0)], self._past[index]
        part = (elapsed_s - before[0]) / ((after[0] - before[0]) or 1)
        _, delivered, received = (
            old + (new - old) * part for old, new in zip(before, after, strict=True)
        )
        return self.counts(delivered), self.counts(received)

    def counts(self, energy_wh: float) -> int:
        multiplier, divisor = self.scale
        return int(energy_wh / 1000 * (divisor or 1) / (multiplier or 1))


class _Spread:
    """Keeps demands that share a TimeStamp apart, so that none is taken for another sent again."""

    def __init__(self) -> None:
        self._clock = UNSET
        self._after: dict[int, int] = {}

    def unused(self, raw: int, clock: int) -> int:
        if clock == UNSET:
            return raw
        if clock != self._clock:
            self._clock = clock
            self._after.clear()
        free = raw
        while free in self._after:
            free = self._after[free]
        self._after[raw] = self._after[free] = free + 1
        return free


@dataclass(slots=True)
class _Period:
    base_wh: float
    start: int = UNSET
    updated: int = UNSET
    usage_wh: float = 0.0
    last_wh: float = 0.0
    last: tuple[int, int] = (UNSET, UNSET)


def _tariff(hour: int) -> reports.Price:
    if hour in _PEAK_HOURS:
        return reports.Price(2140, 4, "Tier 2", tier=2)
    return reports.Price(1090, 4, "Tier 1", tier=1)
