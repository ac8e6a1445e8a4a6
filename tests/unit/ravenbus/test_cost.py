"""What energy costs, by examples that a person can work out; no database."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravenbus.cost import Cost, by_rate, cost, costs
from ravenbus.energy import Energy
from ravenbus.history import Part, Step
from ravenbus.messages import Envelope, Reading
from ravenbus.notifications import PriceCluster
from ravenbus.tariff import DevicePrices, Prices, TariffError, TariffFile, TariffPrices
from tests.kinds import new_hash

BERLIN = ZoneInfo("Europe/Berlin")
DOCS = Path(__file__).parents[3] / "docs" / "tariff.md"
NONE = timedelta()


class Meter:
    """A home that takes ``kw`` at every time and gives ``given_kw``, but for a time without readings."""

    zone = BERLIN

    def __init__(self, kw: str = "1", given_kw: str = "0", gap: Any = None) -> None:
        self._kw = Decimal(kw), Decimal(given_kw)
        self._gap = gap or (at(2030, 1, 1), at(2030, 1, 1))

    def energy_between(self, times: Sequence[datetime]) -> list[Part[Energy]]:
        return [Part(start, end, self._energy(start, end)) for start, end in pairwise(times)]

    def _energy(self, start: datetime, end: datetime) -> Energy | None:
        lacking = max(min(end, self._gap[1]) - max(start, self._gap[0]), NONE)
        hours = Decimal((end - start - lacking) / timedelta(seconds=1)) / 3600
        if not hours:
            return None
        return Energy(delivered_kwh=self._kw[0] * hours, received_kwh=self._kw[1] * hours)


def at(*time: int) -> datetime:
    return datetime(*time, tzinfo=BERLIN)  # type: ignore[misc, arg-type]


@pytest.fixture
def tariff(tmp_path: Path) -> Callable[[str], TariffPrices]:
    def read(text: str) -> TariffPrices:
        path = tmp_path / "tariff.toml"
        path.write_text(text)
        return TariffPrices(TariffFile.read(path), BERLIN)

    return read


def file(rates: str, keys: str = "") -> str:
    return f'currency = "EUR"\n[[tariff]]\nvalid_from = 2026-01-01\n{keys}\n{rates}'


def rate(name: str, rest: str) -> str:
    return f'[[tariff.rate]]\nname = "{name}"\n{rest}\n'


ALL_DAY = rate("all", "price = 0.30")
NIGHT = rate("night", 'from = "22:00"\nto = "06:00"\nprice = 0.20') + rate("day", "price = 0.30")
TIERS = rate(
    "tiers",
    "tiers = [{price = 0.10, up_to_kwh = 10}, {price = 0.20, up_to_kwh = 34}, {price = 0.40}]",
)
WEEKEND = rate("weekend", 'weekdays = ["sat", "sun"]\nprice = 0.20') + rate("work", "price = 0.30")
FRIDAY_NIGHT = rate("f", 'weekdays = ["fri"]\nfrom = "20:00"\nto = "04:00"\nprice = 0.10') + ALL_DAY
CHANGED = file(ALL_DAY) + "[[tariff]]\nvalid_from = 2026-02-01\n" + rate("new", "price = 0.50")

EXAMPLES = [
    # 24 h at 1 kW are 24 kWh at 0.30.
    (file(ALL_DAY), Meter(), at(2026, 1, 15), at(2026, 1, 16), "7.2", "0", "0", 0),
    # 0 to 6 and 22 to 24 o'clock are 8 kWh at 0.20, and 16 kWh at 0.30 remain.
    (file(NIGHT), Meter(), at(2026, 1, 15), at(2026, 1, 16), "6.4", "0", "0", 0),
    # Half past 5 to half past 6: 0.5 kWh of each.
    (file(NIGHT), Meter(), at(2026, 1, 15, 5, 30), at(2026, 1, 15, 6, 30), "0.25", "0", "0", 0),
    # Clocks go forward at 2: the night has 7 h, the day 16.
    (file(NIGHT), Meter(), at(2026, 3, 29), at(2026, 3, 30), "6.2", "0", "0", 0),
    # Clocks go back at 3: the night has 9 h.
    (file(NIGHT), Meter(), at(2026, 10, 25), at(2026, 10, 26), "6.6", "0", "0", 0),
    # Friday 16, and Saturday 17 January: 24 kWh of each.
    (file(WEEKEND), Meter(), at(2026, 1, 16), at(2026, 1, 18), "12", "0", "0", 0),
    # Friday from 20 to Saturday 4: 8 kWh at 0.10, and 2 h before and after at 0.30.
    (file(FRIDAY_NIGHT), Meter(), at(2026, 1, 16, 18), at(2026, 1, 17, 6), "2", "0", "0", 0),
    # Saturday night is none: 8 kWh at 0.30.
    (file(FRIDAY_NIGHT), Meter(), at(2026, 1, 17, 20), at(2026, 1, 18, 4), "2.4", "0", "0", 0),
    # The month's first two days: 10 at 0.10, 24 at 0.20, and of 48 kWh 14 remain at 0.40.
    (file(TIERS), Meter(), at(2026, 1, 1), at(2026, 1, 3), "11.4", "0", "0", 0),
    # The second day alone: 10 kWh at 0.20 of the second tier, 14 at 0.40.
    (file(TIERS), Meter(), at(2026, 1, 2), at(2026, 1, 3), "7.6", "0", "0", 0),
    # 31 January is far in the last tier; 1 February begins anew: 10 at 0.10, 14 at 0.20.
    (file(TIERS), Meter(), at(2026, 1, 31), at(2026, 2, 2), "13.4", "0", "0", 0),
    # 24 kWh are given away at 0.08, none are taken.
    (file(ALL_DAY, "feed_in = 0.08"), Meter("0", "1"), at(2026, 1, 15), at(2026, 1, 16), "0", "1.92", "0", 0),
    # 31 days of 0.35, and the month's 9.30.
    (
        file(ALL_DAY, "fixed_per_day = 0.35\nfixed_per_month = 9.30"),
        *(Meter("0"), at(2026, 1, 1), at(2026, 2, 1), "0", "0", "20.15", 0),
    ),
    # From noon no day begins.
    (file(ALL_DAY, "fixed_per_day = 1"), Meter("0"), at(2026, 1, 1, 12), at(2026, 1, 2), "0", "0", "0", 0),
    # The last of January at 0.30, the first of February at 0.50.
    (CHANGED, Meter(), at(2026, 1, 31), at(2026, 2, 2), "19.2", "0", "0", 0),
    # Before the first tariff there is no price: of 48 h, 24.
    (file(ALL_DAY), Meter(), at(2025, 12, 31), at(2026, 1, 2), "7.2", "0", "0", 24),
    # From 6 to 22 nothing was read: 8 kWh of the night remain.
    (
        file(NIGHT),
        Meter(gap=(at(2026, 1, 15, 6), at(2026, 1, 15, 22))),
        *(at(2026, 1, 15), at(2026, 1, 16), "1.6", "0", "0", 0),
    ),
    # Tiers that begin on 2 February: of the month's first day 24 kWh at 0.30 are used up to there,
    # so the first tier has ended and the second has 10 left, then 14 at 0.40.
    (
        file(ALL_DAY) + "[[tariff]]\nvalid_from = 2026-02-02\n" + TIERS,
        *(Meter(), at(2026, 2, 1), at(2026, 2, 3), "14.8", "0", "0", 0),
    ),
    # Nothing at all was read.
    (
        file(ALL_DAY),
        Meter(gap=(at(2026, 1, 15), at(2026, 1, 16))),
        *(at(2026, 1, 15), at(2026, 1, 16), None, None, "0", 0),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "meter", "start", "end", "delivered", "received", "fixed", "unpriced"), EXAMPLES
)
def test_a_span_costs_what_the_tariff_says(
    tariff, text: str, meter: Any, start, end, delivered, received, fixed, unpriced
):
    """Each of these can be worked out by hand; the parts of a span are together the span."""
    wanted = [None if one is None else Decimal(one) for one in (delivered, received, fixed)]
    prices = tariff(text)
    assert cost(meter, prices, start, end) == Cost(*wanted, Decimal(unpriced))
    hours = [one.cost for one in costs(meter, prices, start, end, Step.HOUR)]
    if start.minute == 0:
        assert sum(one.delivered or 0 for one in hours) == (wanted[0] or 0)
        assert sum(one.received or 0 for one in hours) == (wanted[1] or 0)
        assert sum(one.fixed for one in hours) == wanted[2]
        assert sum(one.unpriced_kwh for one in hours) == unpriced


def test_energy_is_told_by_rate(tariff):
    """Where an hour went, and what it cost there."""
    found = by_rate(
        Meter("2", "1"), tariff(file(NIGHT, "feed_in = 0.1")), at(2026, 1, 15), at(2026, 1, 16)
    )
    assert {name: [str(one.normalize()) for one in use] for name, use in found.items()} == {
        "night": ["16", "8", "3.2", "0.8"],
        "day": ["32", "16", "9.6", "1.6"],
    }


FILES = [file(NIGHT), file(TIERS), CHANGED, file(FRIDAY_NIGHT), file(ALL_DAY)]
FILES.append(file(ALL_DAY) + "[[tariff]]\nvalid_from = 2026-02-10\n" + TIERS)
spans = st.lists(st.integers(0, 60 * 24 * 60), min_size=2, max_size=6, unique=True).map(sorted)


@given(minutes=spans, text=st.sampled_from(FILES))
def test_parts_cost_together_what_the_whole_costs(minutes: list[int], text: str, tmp_path_factory):
    """However a span is cut, over months, tariffs, tiers and changes of the clock."""
    path = tmp_path_factory.mktemp("tariff") / "tariff.toml"
    path.write_text(text)
    prices = TariffPrices(TariffFile.read(path), BERLIN)
    meter: Any = Meter("1.23", "0.4", gap=(at(2026, 2, 3), at(2026, 2, 4)))
    begin = at(2026, 1, 20).astimezone(UTC)
    times = [begin + timedelta(minutes=one) for one in minutes]
    parts = [cost(meter, prices, *span) for span in pairwise(times)]
    whole = cost(meter, prices, times[0], times[-1])
    assert sum(one.delivered or 0 for one in parts) == (whole.delivered or 0)
    assert sum(one.fixed for one in parts) == whole.fixed
    assert sum(one.unpriced_kwh for one in parts) == whole.unpriced_kwh


class Told:
    """A store that holds prices."""

    def __init__(self, *prices: tuple[datetime, Any]) -> None:
        self._readings = [
            Reading(
                Envelope(node="a", run="r", hash=new_hash(), seq=1, received=time),
                PriceCluster(
                    device=None, meter=None, time=time, price=1, trailing_digits=2, **said
                ),
            )
            for time, said in prices
        ]

    def between(self, kind: str, _meter: Any, start: datetime, end: datetime) -> list[Reading]:
        assert kind == "price_cluster"
        return [one for one in self._readings if start <= one.envelope.received < end]


def told(price: float | None, **more: Any) -> dict[str, Any]:
    return {"price_per_kwh": price, "currency": 840, "tier": 1, **more}


@pytest.mark.parametrize(
    ("prices", "delivered", "unpriced"),
    [
        # 12 h at 0.10 and 12 h at 0.30.
        ([(at(2026, 1, 15), told(0.1)), (at(2026, 1, 15, 12), told(0.3))], "4.8", 0),
        # The price before the span holds into it; one without a value says nothing.
        ([(at(2026, 1, 14, 12), told(0.1)), (at(2026, 1, 14, 13), told(None))], "1.2", 12),
        # 60 minutes and no more.
        ([(at(2026, 1, 15), told(0.5, duration=60))], "0.5", 23),
        # A negative price is paid to the home.
        ([(at(2026, 1, 15), told(-0.1)), (at(2026, 1, 15, 1), told(0.1))], "2.2", 0),
        # Said an hour before it begins, while another holds: 12 h at 0.10, 12 h at 0.30.
        (
            [
                (at(2026, 1, 15), told(0.1)),
                (at(2026, 1, 15, 11), told(0.3, start_time=at(2026, 1, 15, 12))),
                (at(2026, 1, 15, 11, 30), told(0.1)),
            ],
            *("4.8", 0),
        ),
        # It began before it was said, and lasts for two hours from then.
        ([(at(2026, 1, 15, 1), told(0.5, start_time=at(2026, 1, 15), duration=120))], "0.5", 23),
        # Said again and again it is one price, for a day from the last time.
        ([(at(2026, 1, 15, hour), told(0.1)) for hour in range(24)], "2.4", 0),
        # What was in another currency cannot be added.
        ([(at(2026, 1, 15), told(0.1, currency=978)), (at(2026, 1, 15, 12), told(0.3))], "3.6", 12),
        ([], None, 24),
    ],
)
def test_a_device_says_what_it_costs(prices: Any, delivered: str | None, unpriced: int):
    """A price holds until the next, or as long as was said, a day at most."""
    span = at(2026, 1, 15), at(2026, 1, 16)
    found: Prices = DevicePrices.of(Told(*prices), "a", "", *span)  # type: ignore[arg-type]
    meter: Any = Meter()
    told_cost = cost(meter, found, *span)
    assert told_cost.delivered == (None if delivered is None else Decimal(delivered))
    assert told_cost.unpriced_kwh == unpriced
    assert found.currency == ("840" if prices else None)


def test_the_page_explains_a_file_that_can_be_used(tariff):
    """The example of docs/tariff.md, and each key in its table."""
    page = DOCS.read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    prices = tariff(text)
    # Wednesday 7 January 2026: 24 kWh at 0.3180, a 31st of 9.90.
    found = cost(Meter(), prices, at(2026, 1, 7), at(2026, 1, 8))  # type: ignore[arg-type]
    assert found.total == Decimal("7.632") + Decimal("0.319354839")
    # Saturday 4 April: 8 h of the night, 16 h of the weekend.
    found = cost(Meter(), prices, at(2026, 4, 4), at(2026, 4, 5))  # type: ignore[arg-type]
    assert found.total == 8 * Decimal("0.2450") + 16 * Decimal("0.2700") + Decimal("0.35")
    keys = set(re.findall(r"^(\w+) = ", text, re.MULTILINE))
    assert keys <= set(re.findall(r"`(\w+)`", page))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("currency = 1", "Expected `str`, got `int` - at `$.currency`"),
        ('currency = "euro"\ntariff = []', "matching regex"),
        ('currency = "EUR"\ntariff = []', "there is no [[tariff]]"),
        ("currency", "cannot be read"),
        (file(ALL_DAY, "valid_until = 2"), "unknown field `valid_until`"),
        (file(rate("a", "price = 1\nweekdays = ['Mon']")), "Invalid enum value 'Mon'"),
        (file(rate("a", "price = 1\nfrom = '25:00'")), "matching regex"),
        (file(rate("a", "")), "rate 'a': price and tiers: allowed is one of them"),
        (file(rate("a", "price = 1\nfrom = '06:00'")), "the last rate is for what no other is for"),
        (file(rate("a", "price = 1\nfrom = '06:00'\nto = '06:00'") + ALL_DAY), "are the same"),
        (file(rate("a", "tiers = [{price = 1}, {price = 2}]")), "needs up_to_kwh"),
        (file(rate("a", "tiers = [{price = 1, up_to_kwh = 5}]")), "the last must not have it"),
        (
            file(rate("a", "tiers = [{price=1, up_to_kwh=5}, {price=2, up_to_kwh=5}, {price=3}]")),
            "has to grow from tier to tier",
        ),
        (
            file(ALL_DAY) + "[[tariff]]\nvalid_from = 2025-01-01\n" + ALL_DAY,
            "valid_from has to grow",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tariff, text: str, said: str):
    """With the file's name, and what is allowed."""
    with pytest.raises(TariffError, match=re.escape(said)) as error:
        tariff(text)
    assert "tariff.toml" in str(error.value)
