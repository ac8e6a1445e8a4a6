"""What the energy of a meter costs, by steps and by rate, whichever store has its history.

Costs are exact until they are shown: those of the parts of a span are those of the span.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

from ravenbus.energy import Energy
from ravenbus.history import MeterHistory, Step, edges
from ravenbus.tariff import Charge, Prices


class Cost(NamedTuple):
    """What a span costs: ``delivered`` and ``fixed`` are paid, ``received`` is paid to the home.

    The first two are None where no energy was read that has a price; ``unpriced_kwh`` is what was
    taken while no price was known.
    """

    delivered: Decimal | None
    received: Decimal | None
    fixed: Decimal
    unpriced_kwh: Decimal

    @property
    def total(self) -> Decimal | None:
        """What is to be paid, None if that is not known."""
        if self.delivered is None or self.received is None:
            return None
        return self.delivered - self.received + self.fixed


class CostOf(NamedTuple):
    """A part of a span, and its cost."""

    start: datetime
    end: datetime
    cost: Cost


class Use(NamedTuple):
    """Energy under one rate, and its cost."""

    delivered_kwh: Decimal
    received_kwh: Decimal
    delivered: Decimal
    received: Decimal


class _Piece(NamedTuple):
    """Energy between two times, of one price; ``charge`` is None if one of both is not known."""

    start: datetime
    end: datetime
    delivered_kwh: Decimal
    received_kwh: Decimal
    charge: Charge | None


def costs(
    history: MeterHistory, prices: Prices, start: datetime, end: datetime, step: Step
) -> list[CostOf]:
    """Return the cost by steps, of which the first and the last are whole."""
    found = [one.replace(tzinfo=UTC) for one in edges(start, end, step, history.zone)]
    return _by_edges(history, prices, found)


def cost(history: MeterHistory, prices: Prices, start: datetime, end: datetime) -> Cost:
    """Return what exactly the span costs."""
    (part,) = _by_edges(history, prices, [_second(start), _second(end)])
    return part.cost


def by_rate(
    history: MeterHistory, prices: Prices, start: datetime, end: datetime
) -> dict[str, Use]:
    """Return the energy of exactly the span and its cost, by the names of the rates."""
    found: dict[str, list[Use]] = defaultdict(list)
    for piece in _pieces(history, prices, [_second(start), _second(end)]):
        if piece.charge:
            name, *paid = piece.charge
            found[name].append(Use(piece.delivered_kwh, piece.received_kwh, *paid))
    return {
        name: Use(*(sum(column, Decimal(0)) for column in zip(*uses, strict=True)))
        for name, uses in found.items()
    }


def _by_edges(history: MeterHistory, prices: Prices, found: Sequence[datetime]) -> list[CostOf]:
    pieces: list[list[_Piece]] = [[] for _ in found[1:]]
    for piece in _pieces(history, prices, found):
        pieces[bisect_right(found, piece.start) - 1].append(piece)
    return [
        CostOf(start, end, _sum(of, prices.fixed(start, end)))
        for (start, end), of in zip(pairwise(found), pieces, strict=True)
    ]


def _sum(pieces: Sequence[_Piece], fixed: Decimal) -> Cost:
    charges = [piece.charge for piece in pieces if piece.charge]
    unpriced = sum((piece.delivered_kwh for piece in pieces if not piece.charge), Decimal(0))
    if not charges:
        return Cost(None, None, fixed, unpriced)
    _, delivered, received = zip(*charges, strict=True)
    return Cost(sum(delivered), sum(received), fixed, unpriced)


def _pieces(history: MeterHistory, prices: Prices, found: Sequence[datetime]) -> list[_Piece]:
    """Return the pieces between edges, cut where the price may change."""
    first, last = _second(prices.since(found[0], found[-1])), found[-1]
    cuts = (_second(one) for one in prices.changes(first, last))
    times = sorted({first, *found, *(one for one in cuts if first < one < last)})
    made, month, used = [], None, Decimal(0)
    for part in history.energy_between(times):
        energy = part.value or Energy()
        known = energy.delivered_kwh is not None or energy.received_kwh is not None
        delivered, received = energy.delivered_kwh or Decimal(0), energy.received_kwh or Decimal(0)
        local = part.start.astimezone(history.zone)
        if month != (local.year, local.month):
            month, used = (local.year, local.month), Decimal(0)
        charge = prices.charge(part.start, used, delivered, received) if known else None
        used += delivered
        made.append(_Piece(part.start, part.end, delivered, received, charge))
    return [piece for piece in made if piece.start >= found[0]]


def _second(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(microsecond=0)
