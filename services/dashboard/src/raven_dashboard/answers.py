"""What the pages and the API are told, from a store's history and from the bus."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Final
from zoneinfo import ZoneInfo

from raven_dashboard import words
from raven_dashboard.feed import Feed, Home, now
from ravenbus.energy import Energy
from ravenbus.history import DEMAND, KEYS, History, MeterHistory, Step, step_for
from ravenbus.messages import Reading
from ravenbus.notifications import (
    ConnectionStatus,
    InstantaneousDemand,
    NetworkInfo,
    PriceCluster,
    kind_of,
)
from ravenbus.readback import Choice

Answer = dict[str, Any]

POINTS_MAX: Final = 5000
LETTERS_MAX: Final = 10_000
LETTERS_OF: Final = timedelta(days=30)
IDLE_KW: Final = Decimal("0.001")
_SECONDS: Final = {
    Step.RAW: 1,
    Step.FIVE_MINUTES: 300,
    Step.HOUR: 3600,
    Step.DAY: 86400,
    Step.MONTH: 28 * 86400,
}
_LINKS: Final = ("connection_status", "network_info")


class RequestError(Exception):
    """A question that cannot be answered; its text says why, and what is allowed."""


@dataclass(frozen=True)
class Span:
    """A meter and a span of time."""

    node: str
    meter: str
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Answers:
    """Answers about homes, in the time zone of the homes; each may raise RetryableError."""

    history: History
    feed: Feed
    zone: ZoneInfo

    def meters(self) -> Answer:
        """Return the meters that there is history of."""
        return {
            "meters": [
                {
                    "node": one.node,
                    "meter": one.meter,
                    "first": text_of(one.first),
                    "last": text_of(one.last),
                }
                for one in self.history.meters()
            ]
        }

    def now(self, node: str, meter: str) -> Answer:
        """Return what a home's meter says now, and what today and this month came to so far."""
        home, at = self.feed.home(node), now()
        local = at.astimezone(self.zone)
        today = self._midnight(local.date())
        month = self._midnight(local.date().replace(day=1))
        after = self._midnight((local.date().replace(day=1) + timedelta(days=32)).replace(day=1))
        of_month = self._energy_of(Span(node, meter, month, at))
        elapsed_s, month_s = ((end - month).total_seconds() for end in (at, after))
        used = of_month["delivered_kwh"]
        forecast = used * month_s / elapsed_s if used and elapsed_s > _SECONDS[Step.DAY] else None
        return {
            **live_of(home.last(DEMAND, meter)),
            "today": self._energy_of(Span(node, meter, today, at)),
            "month": of_month | {"forecast_kwh": forecast and round(forecast, 3)},
            "price": _price(home.last("price_cluster", meter)),
            "link_percent": _link(home),
            "states": self.states(home),
        }

    def states(self, home: Home) -> list[Answer]:
        """Return what is wrong with a home, in words."""
        found = words.states(home, now())
        if not self.feed.connected:
            away = words.duration(now() - self.feed.away_since)
            found.insert(0, words.State("alarm", f"The broker has been away for {away}."))
        return [one._asdict() for one in found]

    def demand(self, span: Span, step: Step | None) -> Answer:
        """Return the demand by steps, with its lowest and highest."""
        step = _checked(span, step)
        parts = self._meter(span).demand(span.start, span.end, step)
        values = [part.value for part in parts]
        return self._by_step(step, parts) | {
            name: [_number(value and getattr(value, name)) for value in values]
            for name in ("mean_kw", "min_kw", "max_kw")
        }

    def energy(self, span: Span, step: Step | None) -> Answer:
        """Return by steps what the registers grew by."""
        step = _checked(span, step)
        parts = self._meter(span).energy(span.start, span.end, step)
        values = [part.value for part in parts]
        return self._by_step(step, parts) | {
            "end": [int(part.end.timestamp()) for part in parts],
            **{
                name: [_number(value and getattr(value, name)) for value in values]
                for name in ("delivered_kwh", "received_kwh")
            },
        }

    def summary(self, span: Span) -> Answer:
        """Return what a span comes to: energy, mean, peak and base load."""
        meter = self._meter(span)
        total = meter.total(span.start, span.end)
        peak = meter.peak(span.start, span.end)
        return {
            **_energy(total.energy),
            "mean_kw": _number(total.demand and total.demand.mean_kw),
            "peak": peak and {"kw": _number(peak.kw), "at": text_of(peak.at)},
            "base_load_kw": _number(meter.base_load_kw(span.start, span.end)),
        }

    def by(self, span: Span, key: str) -> Answer:
        """Return what a span comes to by the hour of the day, the weekday or the month."""
        if key not in KEYS:
            raise RequestError(f"key: {key!r} cannot be used: allowed is {', '.join(KEYS)}")
        _checked(span, KEYS[key][0])
        found = self._meter(span).by(key, span.start, span.end)
        return {
            "key": list(found),
            "mean_kw": [_number(one.demand and one.demand.mean_kw) for one in found.values()],
            **{
                name: [_energy(one.energy)[name] for one in found.values()]
                for name in ("delivered_kwh", "received_kwh")
            },
        }

    def homes(self) -> Answer:
        """Return a line for each home, those in trouble first."""
        at = now()
        today = self._midnight(at.astimezone(self.zone).date())
        lines: dict[str, Answer] = {}
        for one in self.history.meters():
            line = lines.setdefault(one.node, {"today_kwh": None, "last": None})
            if one.last > today:
                used = self._energy_of(Span(one.node, one.meter, today, at))["delivered_kwh"]
                if used is not None:
                    line["today_kwh"] = round((line["today_kwh"] or 0) + used, 9)
            line["last"] = max(line["last"] or "", text_of(one.last))
        for node in list(self.feed.homes):
            lines.setdefault(node, {"today_kwh": None, "last": None})
        return {"homes": sorted(self._lines(lines), key=_trouble)}

    def chain(self, node: str | None) -> Answer:
        """Return the chain from a home's stick to the stores, and what was buried of late.

        Without a node it is that of the home in the worst trouble.
        """
        at = now()
        homes = [self.feed.home(node)] if node else list(self.feed.homes.values())
        home = min(homes or [Home("")], key=lambda one: _rank(words.states(one, at)))
        broker = words.Part("broker", "ok", "The broker is at work.", 0, None)
        if not self.feed.connected:
            away = f"The broker has been away for {words.duration(at - self.feed.away_since)}."
            broker = words.Part("broker", "alarm", away, 0, self.feed.away_since)
        stick, reader, *stores = words.chain(home, at)
        letters = self.history.letters(Choice(since=at - LETTERS_OF))
        counted = Counter((one.reason, one.service) for one in islice(letters, LETTERS_MAX))
        return {
            "node": home.node or None,
            "parts": [
                part._asdict() | {"since": part.since and text_of(part.since)}
                for part in (stick, reader, broker, *stores)
            ],
            "dead_letters": [
                {"reason": reason, "service": service, "count": number}
                for (reason, service), number in counted.most_common()
            ],
        }

    def span(self, node: str, meter: str, start: str, end: str) -> Span:
        """Return the span that a request names: days of the home's zone, or instants."""
        times = self._time("from", start), self._time("to", end)
        if times[0] >= times[1]:
            raise RequestError(
                "from is not before to: allowed is a span that begins before it ends"
            )
        return Span(node, meter, *times)

    def rows(self, what: str, span: Span, step: Step | None) -> Iterator[str]:
        """Yield the lines of a CSV file; times are local, with their offset from UTC."""
        if what not in ("demand", "energy"):
            raise RequestError(f"what: {what!r} cannot be used: allowed is demand or energy")
        found = self.demand(span, step) if what == "demand" else self.energy(span, step)
        names = [name for name in found if name.endswith(("_kw", "_kwh"))]
        yield _line(["start", *names])
        for index, start in enumerate(found["start"]):
            local = datetime.fromtimestamp(start, self.zone).isoformat()
            yield _line([local, *(found[name][index] for name in names)])

    def _by_step(self, step: Step, parts: Any) -> Answer:
        return {
            "step": step.value,
            "zone": self.zone.key,
            "start": [int(part.start.timestamp()) for part in parts],
        }

    def _lines(self, lines: dict[str, Answer]) -> Iterator[Answer]:
        for node, line in lines.items():
            home = self.feed.home(node)
            heard = max(line["last"] or "", text_of(home.heard) if home.heard else "")
            yield {
                "node": node,
                "now_kw": live_of(home.last(DEMAND))["kw"],
                "today_kwh": line["today_kwh"],
                "last": heard or None,
                "complete_percent": _complete(home),
                "states": self.states(home),
            }

    def _energy_of(self, span: Span) -> Answer:
        return _energy(self._meter(span).total(span.start, span.end).energy)

    def _meter(self, span: Span) -> MeterHistory:
        return MeterHistory(self.history, span.node, span.meter, self.zone)

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), self.zone)

    def _time(self, name: str, text: str) -> datetime:
        try:
            if len(text) == len("2026-03-29"):
                found = self._midnight(date.fromisoformat(text))
            else:
                found = datetime.fromisoformat(text)
                found = found if found.tzinfo else found.replace(tzinfo=self.zone)
            return found.astimezone(UTC)
        except (ValueError, OverflowError):
            raise RequestError(
                f"{name}: {text[:40]!r} cannot be used: allowed is a day as 2026-03-29 "
                "or a time as 2026-03-29T12:00:00Z"
            ) from None


def live_of(reading: Reading | None) -> Answer:
    """Return the power that a reading says, and its direction."""
    notification = reading and reading.notification
    if not reading or not isinstance(notification, InstantaneousDemand):
        return {"time": None, "kw": None, "direction": None}
    kw = notification.demand_kw
    direction = None if kw is None else _direction(Decimal(kw))
    time = notification.time or reading.envelope.received
    return {"time": text_of(time), "kw": kw, "direction": direction}


def event_of(reading: Reading) -> Answer:
    """Return what a page that is open is told of a reading."""
    return {
        "node": reading.node,
        "meter": reading.notification.meter or "",
        "kind": kind_of(reading.notification),
        **live_of(reading),
    }


def text_of(time: datetime) -> str:
    """Return a time in UTC, RFC 3339 with Z."""
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _direction(kw: Decimal) -> str:
    if abs(kw) < IDLE_KW:
        return "idle"
    return "importing" if kw > 0 else "exporting"


def _checked(span: Span, step: Step | None) -> Step:
    """Return the step, or one that fits; raise RequestError if it makes too many points."""
    step = step or step_for(span.start, span.end)
    points = (span.end - span.start).total_seconds() / _SECONDS[step]
    limit = POINTS_MAX * (5 if step is Step.RAW else 1)
    if points > limit:
        days = limit * _SECONDS[step] / 86400
        raise RequestError(
            f"from and to are too far apart for steps of {step.value}: allowed is {days:.1f} days"
        )
    return step


def _energy(found: Energy | None) -> Answer:
    return {
        "delivered_kwh": _number(found and found.delivered_kwh),
        "received_kwh": _number(found and found.received_kwh),
    }


def _price(reading: Reading | None) -> Answer | None:
    notification = reading and reading.notification
    if not isinstance(notification, PriceCluster) or notification.price_per_kwh is None:
        return None
    return {"value": notification.price_per_kwh, "currency": notification.currency}


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
    if not home.stores or not home.last_seq:
        return None
    waiting = max(home.behind(store) for store in home.stores)
    return round(100 * (1 - waiting / home.last_seq), 2)


def _trouble(line: Answer) -> tuple[int, str]:
    return _rank([words.State(**one) for one in line["states"]]), line["node"]


def _rank(states: list[words.State]) -> int:
    return min((words.RANK[one.level] for one in states), default=words.RANK["ok"])


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _line(values: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()
