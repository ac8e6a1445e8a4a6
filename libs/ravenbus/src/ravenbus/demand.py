"""Demand of a period: how many readings, their sum, the lowest and the highest: pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from ravenbus.messages import Reading
from ravenbus.notifications import DERIVED_DIGITS, EXACT, InstantaneousDemand, derived
from ravenbus.periods import PERIODS_S, Period, start_of


class Sample(NamedTuple):
    """A reading's contribution to its periods."""

    node: str
    meter: str
    time: datetime
    kw: Decimal


class Demand(NamedTuple):
    """What the demands of a period come to."""

    readings: int
    sum_kw: Decimal
    min_kw: Decimal
    max_kw: Decimal

    @property
    def mean_kw(self) -> Decimal:
        """The mean of the readings, to the digits that a store keeps."""
        mean = EXACT.divide(self.sum_kw, self.readings)
        return mean.quantize(DERIVED_DIGITS, ROUND_HALF_UP, EXACT)


def samples(readings: Iterable[Reading]) -> list[Sample]:
    """Return the demands among the readings that have a value."""
    found = []
    for reading in readings:
        said, envelope = reading.notification, reading.envelope
        if isinstance(said, InstantaneousDemand):
            kw = derived(said.demand, said.multiplier, said.divisor)
            if kw is not None:
                time = said.time or envelope.received
                found.append(Sample(envelope.node, said.meter or "", time, kw))
    return found


def of(kw: Iterable[Decimal]) -> Demand:
    """Return what demands come to, of which there is one at least."""
    return combined([Demand(1, one, one, one) for one in kw])


def combined(parts: Iterable[Demand]) -> Demand:
    """Return what a period comes to that has these parts."""
    readings, sums, lowest, highest = zip(*parts, strict=True)
    return Demand(sum(readings), sum(sums), min(lowest), max(highest))


def by_period(found: Iterable[Sample], period_s: int = PERIODS_S[0]) -> list[tuple[Period, Demand]]:
    """Return what the periods of the samples come to."""
    groups: dict[Period, list[Decimal]] = defaultdict(list)
    for node, meter, time, kw in found:
        groups[Period(period_s, node, meter, start_of(time, period_s))].append(kw)
    return [(period, of(kw)) for period, kw in groups.items()]
