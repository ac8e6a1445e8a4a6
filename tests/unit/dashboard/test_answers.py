"""What is answered, without a store."""

from __future__ import annotations

import csv

import pytest

from raven_dashboard.answers import Answers


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
