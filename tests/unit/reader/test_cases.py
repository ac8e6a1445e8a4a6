"""What meters and sticks were reported to say, and what is right to make of it.

The files are not part of the repository; RAVEN_CASES names the folder they are in.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raven_reader.acceptance import Limits
from raven_reader.intake import Accepted, Intake

BESIDE = Path(__file__).parents[4] / "shared" / "cases"
HOST = datetime(2026, 6, 1, tzinfo=UTC)


def read(name, *, live=False):
    """Return the notifications of a case, from a file or as if they came now."""
    path = Path(os.environ.get("RAVEN_CASES", BESIDE)) / name / "input.xml"
    if not path.exists():
        pytest.skip(f"no {name} here: RAVEN_CASES names the folder with the cases")
    intake = Intake(Limits())
    outcomes = []
    for number, piece in enumerate(path.read_bytes().split(b"\n\n")):
        received = HOST + timedelta(seconds=number) if live else None
        outcomes += intake.feed(piece, received)
    outcomes += intake.finish()
    return [one.report.notification for one in outcomes if isinstance(one, Accepted)]


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("01-clock-since-power-up", "demand_kw", [0.491] * 3),
        ("02-clock-months-behind", "demand_kw", [0.491] * 3),
        (
            "03-first-register-all-ones",
            "delivered_kwh",
            [None, 17077.963, 17077.964, 17077.965, 17077.966],
        ),
        ("04-zero-for-five-minutes", "delivered_kwh", [601.0, 601.001, 601.002, 601.003, 601.004]),
        ("05-negative-price", "price_per_kwh", [-0.01]),
        ("06-utf8-text", "text", ["Économisez 5 € ce soir"]),
        ("07-wide-display-hints", "demand_kw", [0.491] * 2),
        ("08-damaged-meter-id", "demand_kw", [0.491, 0.493]),
    ],
)
def test_a_case_is_read_right(name, field, values, live):
    """The right values come out, from a file and live, and nothing else does."""
    assert [getattr(found, field) for found in read(name, live=live)] == values


def test_a_clock_that_is_off_is_marked():
    """A reading whose time cannot be true has none; what the device said is beside it."""
    for name in ("01-clock-since-power-up", "02-clock-months-behind"):
        for found in read(name, live=True):
            assert found.time is None
            assert found.claimed_time is not None
