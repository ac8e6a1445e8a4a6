"""What the pages and the API are told, from a store's history and from the bus."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from io import StringIO
from itertools import islice
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from raven_dashboard import api, words
from raven_dashboard.feed import Feed, Home, now
from raven_dashboard.memory import Remembered
from ravenbus.cost import Cost, by_rate, cost, costs
from ravenbus.energy import Energy
from ravenbus.errors import RavenError
from ravenbus.history import (
    DEMAND,
    KEYS,
    History,
    MeterHistory,
    Step,
    edges,
    runs_of,
    spans,
    step_for,
)
from ravenbus.messages import Reading
from ravenbus.notifications import (
    CURRENCIES,
    ConnectionStatus,
    InstantaneousDemand,
    NetworkInfo,
    PriceCluster,
    kind_of,
)
from ravenbus.readback import Choice
from ravenbus.tariff import DevicePrices, Prices, TariffFile, TariffPrices

POINTS_MAX: Final = 5000
HOURS_MAX: Final = 2 * 366 * 24
"""Of so many hours a base load, or what they come to by the hour of the day, is computed."""
LETTERS_MAX: Final = 10_000
LETTERS_OF: Final = timedelta(days=30)
LETTERS_S: Final = 60.0
TODAY_S: Final = 20.0
"""For how long is remembered what has to be asked of every letter, and of every home."""
PRICE_KIND: Final = "price_cluster"
IDLE_KW: Final = Decimal("0.001")
COLUMNS: Final = {
    "demand": ("mean_kw", "min_kw", "max_kw"),
    "energy": ("delivered_kwh", "received_kwh"),
}
"""What a CSV file may be of, and its columns beside the time."""
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What begins so a spreadsheet computes, unless a quotation mark stands before it."""
UNPRICED_MOST: Final = 0.05
"""Part of an energy that may have no price where its cost is shown."""
YEARS: Final = range(1971, 9000)
_SECONDS: Final = {
    Step.RAW: 1,
    Step.FIVE_MINUTES: 300,
    Step.HOUR: 3600,
    Step.DAY: 86400,
    Step.MONTH: 28 * 86400,
}
_RAW_S: Final = 5
"""A stick says its demand every 8 seconds, or every 4 when it is asked to be fast."""
CHARGED_FOR: Final = timedelta(days=30 * 366)
"""The longest span that is charged at all: a tariff may change its price many times a day."""
REPORTED_FOR: Final = timedelta(days=40)
"""The longest span that is charged by the device's own prices: each report of one is read."""
_LINKS: Final = ("connection_status", "network_info")
_NOTHING: Final = api.Used(delivered_kwh=None, received_kwh=None, cost=None)


class RequestError(Exception):
    """A question that cannot be answered; its text says why, and what is allowed."""


@dataclass(frozen=True)
class Span:
    """A meter and a span of time."""

    node: str
    meter: str
    start: datetime
    end: datetime


class Today(NamedTuple):
    """What a home used today, and when its last reading in the store ended, empty for never."""

    kwh: float | None = None
    last: str = ""


@dataclass(frozen=True)
class Answers:
    """Answers about homes, in the time zone of the homes; each may raise RetryableError.

    A store is for one thread at a time; what is remembered is for all.
    """

    history: History
    feed: Feed
    zone: ZoneInfo
    tariff: TariffFile | None = None
    today: Remembered[dict[str, Today]] = field(default_factory=lambda: Remembered(TODAY_S))
    letters: Remembered[list[api.Letters]] = field(default_factory=lambda: Remembered(LETTERS_S))

    def beside(self, history: History) -> Answers:
        """Return the same from a store of another thread's."""
        return replace(self, history=history)

    def meters(self) -> api.Meters:
        """Return the meters that there is history of."""
        return {
            "zone": self.zone.key,
            "meters": [
                {
                    "node": one.node,
                    "meter": one.meter,
                    "first": text_of(one.first),
                    "last": text_of(min(one.last, now())),
                }
                for one in self.history.meters()
            ],
        }

    def runs(self, node: str) -> api.Runs:
        """Return the runs of a home, the newest first."""
        return {
            "runs": [
                {
                    "run": one.run,
                    "start": text_of(one.start),
                    "end": text_of(one.end) if one.end else None,
                    "first": text_of(max(one.first, one.start)) if one.first else None,
                    "last": text_of(min(one.last, now())) if one.last else None,
                }
                for one in reversed(runs_of(self.history, node))
            ]
        }

    def now(self, node: str, meter: str | None) -> api.Now:
        """Return what a home's meter says now, and what today and this month came to so far.

        While the store is away these are not known, which is said.
        """
        home, at, of_store = self.feed.home(node), now(), list[api.State]()
        today, month, currency = _NOTHING, _NOTHING, None
        price = home.last(PRICE_KIND, meter)
        rest = self._rest_of_month(at)
        try:
            meter = self._meter_of(node, meter)
            today, _ = self._charged(node, meter, at, Step.DAY)
            month, currency = self._charged(node, meter, at, Step.MONTH)
            price = price or self._history(node, meter).latest(PRICE_KIND, at)
        except RavenError as error:
            of_store.append({"level": "alarm", "text": f"The store cannot be read: {error}."})
        return {
            **live_of(home.last(DEMAND, meter)),
            "today": today,
            "month": {
                **month,
                "forecast_kwh": _times(month["delivered_kwh"], rest),
                "forecast_cost": _times(month["cost"], rest),
            },
            "currency": currency,
            "price": _price(price),
            "link_percent": _link(home),
            "states": [*of_store, *states(self.feed, home)],
        }

    def demand(self, span: Span, step: Step | None) -> api.Demand:
        """Return the demand by steps, with its lowest and highest."""
        step = _checked(span, step or step_for(span.start, span.end))
        meter = self._meter(span)
        found: api.Demand = {
            "step": step.value,
            "zone": self.zone.key,
            "start": [],
            "mean_kw": [],
            "min_kw": [],
            "max_kw": [],
        }
        for part in (
            one for piece in self._pieces(span, step) for one in meter.demand(*piece, step)
        ):
            found["start"].append(int(part.start.timestamp()))
            found["mean_kw"].append(_number(part.value and part.value.mean_kw))
            found["min_kw"].append(_number(part.value and part.value.min_kw))
            found["max_kw"].append(_number(part.value and part.value.max_kw))
        return found

    def energy(self, span: Span, step: Step | None) -> api.Energy:
        """Return by steps what the registers grew by."""
        step = _checked(span, step or step_for(span.start, span.end))
        meter = self._meter(span)
        prices = self._prices(span) if step is not Step.RAW else None
        found: api.Energy = {
            "step": step.value,
            "zone": self.zone.key,
            "start": [],
            "end": [],
            "delivered_kwh": [],
            "received_kwh": [],
            "intervals": [],
            "cost": [],
            "currency": _currency(prices),
        }
        for part in (
            one for piece in self._pieces(span, step) for one in meter.energy(*piece, step)
        ):
            used = _used(part.value)
            found["start"].append(int(part.start.timestamp()))
            found["end"].append(int(part.end.timestamp()))
            found["delivered_kwh"].append(used["delivered_kwh"])
            found["received_kwh"].append(used["received_kwh"])
            found["intervals"].append(part.intervals)
            found["cost"].append(None)
        if prices:
            charged = costs(meter, prices, span.start, span.end, step)
            fixed = step in (Step.DAY, Step.MONTH)
            found["cost"] = [
                _money(one.cost, kwh, fixed=fixed)
                for one, kwh in zip(charged, found["delivered_kwh"], strict=True)
            ]
        return found

    def summary(self, span: Span) -> api.Summary:
        """Return what a span comes to: energy, mean, peak and base load."""
        meter = self._meter(span)
        total = meter.total(span.start, span.end)
        peak = meter.peak(span.start, span.end)
        few = _steps(span, Step.HOUR) <= HOURS_MAX
        prices = self._prices(span)
        charged = cost(meter, prices, span.start, span.end) if prices else None
        return {
            **_used(total.energy, charged),
            "mean_kw": _number(total.demand and total.demand.mean_kw),
            "peak": peak and {"kw": float(peak.kw), "at": text_of(peak.at)},
            "base_load_kw": _number(meter.base_load_kw(span.start, span.end) if few else None),
            "currency": _currency(prices),
        }

    def by(self, span: Span, key: str) -> api.By:
        """Return what a span comes to by the hour of the day, the weekday, the month or the price."""
        if key == api.PRICE:
            return self._by_price(span)
        if key not in KEYS:
            allowed = ", ".join(api.SUMS)
            raise RequestError(f"key: {key[:40]!r} cannot be used: allowed is {allowed}")
        _checked(span, KEYS[key][0], HOURS_MAX)
        found = self._meter(span).by(key, span.start, span.end)
        used = [_used(one.energy) for one in found.values()]
        return {
            "key": list(found),
            "delivered_kwh": [one["delivered_kwh"] for one in used],
            "received_kwh": [one["received_kwh"] for one in used],
            "mean_kw": [_number(one.demand and one.demand.mean_kw) for one in found.values()],
            "cost": [None] * len(found),
            "currency": None,
        }

    def homes(self) -> api.Homes:
        """Return a line for each home, those in trouble first."""
        known, of_store = dict.fromkeys(self.feed.homes, Today()), list[api.State]()
        try:
            known |= self.today(self._today)
        except RavenError as error:
            of_store.append({"level": "alarm", "text": f"The store cannot be read: {error}."})
        lines = [self._line(self.feed.home(node), today, of_store) for node, today in known.items()]
        return {"homes": sorted(lines, key=lambda one: (_rank(one["states"]), one["node"]))}

    def chain(self, node: str | None) -> api.Chain:
        """Return the chain from a home's stick to the stores, and what was buried of late.

        Without a name it is the home with most trouble.
        """
        at, found = now(), dict.fromkeys(self.feed.homes)
        letters: list[api.Letters] | None = None
        name = self.history.name
        store = words.Part(name, "ok", f"{name} answers.")
        try:
            found |= dict.fromkeys(one.node for one in self.history.meters())
            letters = self.letters(self._letters)
        except RavenError as error:
            store = words.Part(name, "alarm", f"{name} cannot be read: {error}.")
        nodes = sorted(found)
        if node is None:
            ranked = {one: _rank(states(self.feed, self.feed.home(one))) for one in nodes}
            node = min(ranked, key=ranked.__getitem__, default=None)
        stick, reader, *stores = words.chain(self.feed.home(node or ""), at)
        parts = [stick, reader, words.broker(self.feed.away_since, at), *stores, store]
        return {
            "node": node,
            "nodes": nodes,
            "parts": [
                {
                    "name": part.name,
                    "state": part.state,
                    "text": part.text,
                    "waiting": part.waiting,
                    "since": text_of(part.since) if part.since else None,
                }
                for part in parts
            ],
            "dead_letters": letters,
        }

    def span(self, node: str, meter: str | None, start: str, end: str) -> Span:
        """Return the span that a request names: days of the home's zone, or instants."""
        times = self._time("from", start), self._time("to", end)
        if times[0] >= times[1]:
            raise RequestError(
                "from is not before to: allowed is a span that begins before it ends"
            )
        return Span(node, self._meter_of(node, meter), *times)

    def pieces(self, what: str, span: Span, step: Step | None) -> list[Callable[[Answers], str]]:
        """Return what makes the text of a CSV file, at most a day or, by hours, a month at a time.

        Times are local, with their offset from UTC.  A file has nothing that a spreadsheet takes for
        a formula.
        """
        if what in api.SUMS:
            return [partial(Answers.sums, span=span, key=what)]
        if what not in COLUMNS:
            allowed = ", ".join([*COLUMNS, *api.SUMS])
            raise RequestError(f"what: {what[:40]!r} cannot be used: allowed is {allowed}")
        step = step or step_for(span.start, span.end)
        names = COLUMNS[what]
        return [
            lambda _: f"start,{','.join(names)}\r\n",
            *(
                partial(Answers.lines, what=what, span=Span(span.node, span.meter, *one), step=step)
                for one in self._pieces(span, step)
            ),
        ]

    def sums(self, span: Span, key: str) -> str:
        """Return a CSV file of what a span comes to by a key; a rate is called as somebody wrote."""
        found = self.by(span, key)
        text = StringIO()
        writer = csv.writer(text)
        writer.writerow([key, "delivered_kwh", "received_kwh", "mean_kw", "cost", "currency"])
        of_energy = found["delivered_kwh"], found["received_kwh"]
        for of, *values in zip(
            found["key"], *of_energy, found["mean_kw"], found["cost"], strict=True
        ):
            said = f"'{of}" if str(of).startswith(FORMULA) else of
            writer.writerow([said, *values, found["currency"]])
        return text.getvalue()

    def lines(self, what: str, span: Span, step: Step) -> str:
        """Return a span's lines of a CSV file."""
        meter = self._meter(span)
        series: Any = meter.demand if what == "demand" else meter.energy
        lines = []
        for part in series(span.start, span.end, step):
            values = (part.value and getattr(part.value, name) for name in COLUMNS[what])
            cells = ("" if one is None else f"{one.normalize():f}" for one in values)
            lines.append(",".join([part.start.astimezone(self.zone).isoformat(), *cells]) + "\r\n")
        return "".join(lines)

    def _pieces(self, span: Span, step: Step) -> Iterator[tuple[datetime, datetime]]:
        """Yield the parts of a span of which one is in memory at a time."""
        if step in (Step.DAY, Step.MONTH):
            return iter([(span.start, span.end)])
        piece = Step.MONTH if step is Step.HOUR else Step.DAY
        return spans(span.start, span.end, piece, self.zone)

    def _line(self, home: Home, today: Today, of_store: list[api.State]) -> api.Line:
        heard = max(today.last, text_of(home.heard) if home.heard else "")
        return {
            "node": home.node,
            "now_kw": live_of(home.last(DEMAND))["kw"],
            "today_kwh": today.kwh,
            "last": heard or None,
            "complete_percent": _complete(home),
            "version": home.status.version if home.status else None,
            "states": [*of_store, *states(self.feed, home)],
        }

    def _today(self) -> dict[str, Today]:
        """Return what each home used today."""
        at, found = now(), dict[str, Today]()
        midnight = self._midnight(at.astimezone(self.zone).date())
        for one in self.history.meters():
            kwh, last = found.get(one.node, Today())
            if one.last > midnight:
                used = self._used(one.node, one.meter, at, Step.DAY)["delivered_kwh"]
                kwh = kwh if used is None else round((kwh or 0) + used, 9)
            found[one.node] = Today(kwh, max(last, text_of(min(one.last, at))))
        return found

    def _letters(self) -> list[api.Letters]:
        letters = self.history.letters(Choice(since=now() - LETTERS_OF))
        counted = Counter((one.reason, one.service) for one in islice(letters, LETTERS_MAX))
        return [
            {"reason": reason, "service": service, "count": number}
            for (reason, service), number in counted.most_common()
        ]

    def _used(self, node: str, meter: str, at: datetime, step: Step) -> api.Used:
        """Return what the day, or the month, of a time came to."""
        history = self._history(node, meter)
        (part,) = history.energy(at, at + timedelta(seconds=1), step)
        return _used(part.value)

    def _charged(
        self, node: str, meter: str, at: datetime, step: Step
    ) -> tuple[api.Used, str | None]:
        """Return what the day, or the month, of a time came to so far with its cost, and the currency."""
        start, _ = edges(at, at + timedelta(seconds=1), step, self.zone)
        span = Span(node, meter, start.replace(tzinfo=UTC), at)
        (part,) = self._meter(span).energy(at, at + timedelta(seconds=1), step)
        prices = self._prices(span) if span.start < span.end else None
        charged = cost(self._meter(span), prices, span.start, span.end) if prices else None
        return _used(part.value, charged), _currency(prices)

    def _prices(self, span: Span) -> Prices | None:
        """Return the tariff's prices, or the device's own, of a span that is not too long."""
        if span.end - span.start > CHARGED_FOR:
            return None
        if self.tariff:
            return TariffPrices(self.tariff, self.zone)
        if span.end - span.start > REPORTED_FOR:
            return None
        found = DevicePrices.of(self.history, span.node, span.meter, span.start, span.end)
        return found if found.reported else None

    def _by_price(self, span: Span) -> api.By:
        prices = self._prices(span)
        found = by_rate(self._meter(span), prices, span.start, span.end) if prices else {}
        return {
            "key": list(found),
            "delivered_kwh": [float(one.delivered_kwh) for one in found.values()],
            "received_kwh": [float(one.received_kwh) for one in found.values()],
            "mean_kw": [None] * len(found),
            "cost": [float(one.delivered - one.received) for one in found.values()],
            "currency": _currency(prices),
        }

    def _rest_of_month(self, at: datetime) -> float | None:
        """Return by what the month so far is to be multiplied, None on its first day."""
        start, end = edges(at, at + timedelta(seconds=1), Step.MONTH, self.zone)
        passed_s = (at.replace(tzinfo=None) - start).total_seconds()
        return (end - start).total_seconds() / passed_s if passed_s >= _SECONDS[Step.DAY] else None

    def _meter(self, span: Span) -> MeterHistory:
        return self._history(span.node, span.meter)

    def _history(self, node: str, meter: str) -> MeterHistory:
        return MeterHistory(self.history, node, meter, self.zone)

    def _meter_of(self, node: str, meter: str | None) -> str:
        """Return the meter that is asked for, the home's only one if none is named."""
        if meter is not None:
            return meter
        found = [one.meter for one in self.history.meters() if one.node == node]
        if len(found) > 1:
            raise RequestError(
                f"the home has several meters: allowed is meter={' or '.join(found)}"
            )
        return found[0] if found else ""

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), self.zone)

    def _time(self, name: str, text: str) -> datetime:
        try:
            if len(text) == len("2026-03-29"):
                found = self._midnight(date.fromisoformat(text))
            else:
                found = datetime.fromisoformat(text)
                found = found if found.tzinfo else found.replace(tzinfo=self.zone)
            found = found.astimezone(UTC)
        except (ValueError, OverflowError):
            found = None
        if not found or found.year not in YEARS:
            raise RequestError(
                f"{name}: {text[:40]!r} cannot be used: allowed is a day as 2026-03-29 or a time as "
                f"2026-03-29T12:00:00Z, of the years {YEARS[0]} to {YEARS[-1]}"
            )
        return found


def states(feed: Feed, home: Home) -> list[api.State]:
    """Return what is wrong with a home, in words."""
    at = now()
    found = words.states(home, at)
    broker = words.broker(feed.away_since, at)
    if broker.state != "ok":
        found.insert(0, words.State(broker.state, broker.text))
    return [{"level": one.level, "text": one.text} for one in found]


def live_of(reading: Reading | None) -> api.Power:
    """Return the power that a reading says, and its direction."""
    notification = reading and reading.notification
    if not reading or not isinstance(notification, InstantaneousDemand):
        return {"time": None, "kw": None, "direction": None}
    kw = notification.demand_kw
    return {"time": _time_of(reading), "kw": _number(kw), "direction": _direction(kw)}


def event_of(reading: Reading) -> dict[str, Any]:
    """Return what a page that is open is told of a reading."""
    told = {
        "node": reading.node,
        "meter": reading.notification.meter or "",
        "kind": kind_of(reading.notification),
        "time": _time_of(reading),
    }
    return told | live_of(reading) if reading.kind == DEMAND else told


def text_of(time: datetime) -> str:
    """Return a time in UTC, RFC 3339 with Z."""
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _time_of(reading: Reading) -> str:
    return text_of(reading.notification.time or reading.envelope.received)


def _direction(kw: Any) -> Any:
    if kw is None:
        return None
    if abs(Decimal(kw)) < IDLE_KW:
        return "idle"
    return "importing" if kw > 0 else "exporting"


def _steps(span: Span, step: Step) -> float:
    return (span.end - span.start).total_seconds() / _SECONDS[step]


def _checked(span: Span, step: Step, most: int = POINTS_MAX) -> Step:
    """Return the step; raise RequestError if it makes too many points of a span."""
    most *= _RAW_S if step is Step.RAW else 1
    if _steps(span, step) > most:
        days = most * _SECONDS[step] / 86400
        raise RequestError(
            f"from and to are too far apart for steps of {step.value}: allowed is {days:.1f} days"
        )
    return step


def _used(found: Energy | None, charged: Cost | None = None) -> api.Used:
    kwh = _number(found and found.delivered_kwh)
    return {
        "delivered_kwh": kwh,
        "received_kwh": _number(found and found.received_kwh),
        "cost": charged and _money(charged, kwh, fixed=True),
    }


def _money(charged: Cost, kwh: float | None, *, fixed: bool) -> float | None:
    """Return what is to be paid for energy; for parts of a day, without fixed charges.

    None where more than a little of it was taken while no price was known.
    """
    if charged.total is None or float(charged.unpriced_kwh) > UNPRICED_MOST * (kwh or 0):
        return None
    return float(charged.total if fixed else charged.total - charged.fixed)


def _currency(prices: Prices | None) -> str | None:
    """Return a currency's letters; a device says its number."""
    said = prices.currency if prices else None
    return CURRENCIES.get(int(said)) if said and said.isdigit() else said


def _times(value: float | None, factor: float | None) -> float | None:
    return None if value is None or factor is None else round(value * factor, 3)


def _price(reading: Reading | None) -> api.Price | None:
    notification = reading and reading.notification
    if not isinstance(notification, PriceCluster) or notification.price_per_kwh is None:
        return None
    currency = CURRENCIES.get(notification.currency or 0)
    return {"value": float(notification.price_per_kwh), "currency": currency}


def _link(home: Home) -> int | None:
    """Return the strength of the link to the meter in percent."""
    for kind in _LINKS:
        reading = home.last(kind)
        said = reading and reading.notification
        if isinstance(said, ConnectionStatus | NetworkInfo) and said.link_strength is not None:
            return min(said.link_strength, 100)
    return None


def _complete(home: Home) -> float | None:
    """Return how much of the run under way every store has confirmed, in percent."""
    waiting = [home.behind(store) for store in list(home.stores)]
    if not waiting or not home.last_seq:
        return None
    return round(100 * (1 - max(waiting) / home.last_seq), 2)


def _rank(found: list[api.State]) -> int:
    return min((words.RANK[one["level"]] for one in found), default=words.RANK["ok"])


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
