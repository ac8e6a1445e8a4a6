"""What a soak takes for growth."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest

from raven_harness import stack
from raven_harness.soak.__main__ import GLIBC_TUNABLES, dates
from raven_harness.soak.growth import SAMPLES_MAX, slope

HOUR = [60.0 * minute for minute in range(60)]


def test_a_leak_is_found_in_noise():
    """A leak of 1 MB an hour under noise of the same size has its slope, and is certain."""
    chance = Random(1)
    found = slope([(at, 40_000 + 1024 * at / 3600 + chance.gauss(0, 500)) for at in HOUR])
    assert found.an_hour == pytest.approx(1024, rel=0.5)
    assert found.least > 0


def test_noise_is_no_growth():
    """Noise alone, by many seeds, is certain growth in few of them."""
    wrong = 0
    for seed in range(100):
        chance = Random(seed)
        wrong += slope([(at, chance.gauss(0, 500)) for at in HOUR]).least > 0
    assert wrong <= 5


def test_a_step_is_no_growth():
    """What rises once and stays has no slope, and a spike has none."""
    assert slope([(at, 5.0 if at < 600 else 6.0) for at in HOUR]).least == 0
    assert slope([(at, 99.0 if at == 600 else 5.0) for at in HOUR]) == (0, 0, 0)


def test_a_week_of_samples_is_thinned():
    """Of a week, the same slope comes from every so many samples."""
    week = [(60.0 * minute, 2.0 * minute / 60) for minute in range(7 * 24 * 60)]
    assert len(week) > SAMPLES_MAX
    assert slope(week).an_hour == pytest.approx(2)


def test_too_few_samples_say_nothing():
    """Less than ten are refused."""
    with pytest.raises(ValueError, match="9 samples; 10 are needed"):
        slope([(at, 1.0) for at in HOUR[:9]])


@pytest.mark.parametrize(
    "file",
    [
        "Dockerfile",
        "deploy/container/Dockerfile",
        "tools/setup/src/raven_setup/files/service.unit",
    ],
)
def test_memory_is_kept_as_where_people_run_it(file: str):
    """What a soak measures is what containers, the add-on and systemd's units have."""
    assert f"GLIBC_TUNABLES={GLIBC_TUNABLES}\n" in (stack.ROOT / file).read_text()


def test_a_year_has_its_dates():
    """Each month's beginning, both switches of the clock, a certificate's end and a leap day, in order."""
    until = datetime(2027, 6, 17, 15, tzinfo=UTC)
    found = list(dates(datetime(2026, 11, 29, 15, tzinfo=UTC), until))
    assert found == sorted(found)
    moments = [moment for moment, _ in found]
    assert moments[:2] == [datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)]
    assert datetime(2027, 3, 28, 1, tzinfo=UTC) in moments
    assert datetime(2027, 10, 31, 1, tzinfo=UTC) in moments
    assert moments[-2:] == [datetime(2028, 2, 29, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)]
    assert until in moments
    assert len(found) == 17
