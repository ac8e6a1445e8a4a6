"""What the stores of the tests hold: a home with a past, a thousand more, and odd names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from ravenbus.messages import Envelope, Item, Reading, Run
from ravenbus.notifications import (
    CurrentSummationDelivered,
    InstantaneousDemand,
    PriceCluster,
    ProfileData,
    scaled,
)
from tests.kinds import METER, new_hash

ZONE: Final = ZoneInfo("Europe/Berlin")
NODE: Final = "house"
ODD: Final = ("<img src=x onerror=alert(1)>", "\"'><script>alert(2)</script>")
"""Names that no reader has, but rows of another program may."""
MANY: Final = 1000
LONG_DAY: Final = datetime(2026, 10, 25, tzinfo=ZONE)
"""On which clocks went back: it had 25 hours."""
GAP: Final = (LONG_DAY.replace(hour=12), LONG_DAY.replace(hour=14))
EVERY: Final = timedelta(minutes=5)


SCALE: Final = {"multiplier": 1, "divisor": 1000}


class Home:
    """Numbers the readings of a node."""

    def __init__(self, node: str, run: str = "r") -> None:
        self.node = node
        self.run = run
        self._hash = new_hash()
        self._seq = 0

    def demand(self, at: datetime, watts: int) -> Reading:
        kw = scaled(watts, 1, 1000)
        return self._reading(at, InstantaneousDemand, **SCALE, demand=watts, demand_kw=kw)

    def registers(self, at: datetime, delivered: int, received: int) -> Reading:
        """Return what the meter has counted, in Wh."""
        return self._reading(
            at,
            CurrentSummationDelivered,
            **SCALE,
            summation_delivered=delivered,
            summation_received=received,
            delivered_kwh=scaled(delivered, 1, 1000),
            received_kwh=scaled(received, 1, 1000),
        )

    def price(self, at: datetime, cents: int, rate: str) -> Reading:
        """Return what the meter says of a kWh, in euros."""
        said = {"price": cents, "trailing_digits": 2, "price_per_kwh": cents / 100}
        return self._reading(at, PriceCluster, **said, currency=978, rate_label=rate)

    def intervals(self, end: datetime, counts: list[int]) -> Reading:
        """Return what the meter took in each quarter of an hour, in Wh."""
        end = end.astimezone(UTC)
        return self._reading(
            end,
            ProfileData,
            end_time=end,
            status=0,
            interval_s=900,
            intervals=counts,
            interval_channel="delivered",
        )

    def _reading(self, at: datetime, kind: type, **said: Any) -> Reading:
        self._seq += 1
        at = at.astimezone(UTC)
        of = {"node": self.node, "run": self.run, "hash": self._hash}
        envelope = Envelope(**of, seq=self._seq, received=at)
        common = {"device": None, "meter": METER, "time": at.replace(microsecond=0)}
        return Reading(envelope, kind(**common, **said))


house: Final = Home(NODE, "winter")


def items() -> list[Item]:
    """Return the readings of all homes up to now."""
    now = datetime.now(UTC)
    names = (*ODD, *(f"home-{number:04}" for number in range(MANY)))
    return [later_run(), *past(), *recent(now), *(Home(node).demand(now, 500) for node in names)]


def later_run() -> Run:
    """Return a run of an odd name that the house began the day after the long one."""
    start = (LONG_DAY + timedelta(days=1)).astimezone(UTC)
    return Run(node=NODE, run=ODD[0], hash=new_hash(), started=start, meter=None)


def past() -> Iterator[Item]:
    """Yield the day before the long one and that: 1 kWh an hour taken, by day 500 Wh given."""
    ends = (LONG_DAY - timedelta(days=1), LONG_DAY + timedelta(days=1))
    at, end = (one.astimezone(UTC) for one in ends)
    delivered = received = 0
    while at <= end:
        local = at.astimezone(ZONE)
        if not GAP[0] < local < GAP[1]:
            yield house.demand(at, 1000 + 10 * local.hour)
        if not local.minute:
            yield house.price(at, 25, "day" if 6 <= local.hour < 22 else ODD[0])
        if not local.minute and not GAP[0] < local < GAP[1]:
            yield house.registers(at, 10_000_000 + delivered, 2_000_000 + received)
        if not local.minute:
            delivered += 1000
            received += 500 if 9 <= local.hour < 15 else 0
        at += EVERY
    # Between readings an hour apart 1 kWh was taken in each hour; the meter knows of the gap's.
    yield house.intervals(GAP[1], [250] * 8)


def recent(now: datetime) -> Iterator[Item]:
    """Yield the last ten minutes, in which power goes up to 1.5 kW."""
    for number in range(60):
        yield house.demand(now - timedelta(seconds=600 - 10 * number), 900 + 10 * number)
    yield house.registers(now - timedelta(minutes=9), 10_200_000, 2_100_000)
    yield house.registers(now - timedelta(minutes=1), 10_200_250, 2_100_000)
