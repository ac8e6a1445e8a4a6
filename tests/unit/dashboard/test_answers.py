"""What is answered, without a store."""

from __future__ import annotations

import csv
from decimal import Decimal

import pytest

from raven_dashboard.answers import Answers, _used
from ravenbus.cost import Cost
from ravenbus.energy import Energy


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "night, with a comma"])
def test_a_rate_in_a_file_is_no_formula(monkeypatch: pytest.MonkeyPatch, name: str):
    """A meter may say what it likes; a spreadsheet shows it as text."""
    by = {
        "key": [name],
        **{column: [1.5] for column in ("delivered_kwh", "received_kwh", "mean_kw", "cost")},
        "currency": "EUR",
    }
    monkeypatch.setattr(Answers, "by", lambda *_: by)
    _, (said, *others) = csv.reader(
        Answers.sums(object.__new__(Answers), None, "price").splitlines()
    )
    assert said == (name if name[0].isalpha() else f"'{name}")
    assert others == ["1.5"] * 4 + ["EUR"]


@pytest.mark.parametrize(
    ("unpriced", "shown"), [("0", 8.0), ("39", 8.0), ("41", None), ("791", None)]
)
def test_a_cost_is_of_nearly_all_that_was_used(unpriced: str, shown: float | None):
    """What was used while no price was known would look as if it were free."""
    charged = Cost(Decimal(8), Decimal(0), Decimal(0), Decimal(unpriced))
    assert _used(Energy(delivered_kwh=Decimal(800)), charged)["cost"] == shown


def test_fixed_charges_are_due_where_nothing_was_used():
    """A day without a kWh has its share of them."""
    charged = Cost(Decimal(0), Decimal(0), Decimal("0.5"), Decimal(0))
    assert _used(Energy(delivered_kwh=Decimal(0)), charged)["cost"] == 0.5
