"""What is impossible at a meter, and how a baseline that was wrong gives way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven_reader.acceptance import SETTLES_AFTER, Acceptance, Limits
from ravenbus import notifications as n
from ravenbus.errors import PoisonError

from .strategies import steady

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STICK, OTHER = "d8d5b90000001234", "d8d5b90000005678"
HOUSE, GARAGE = "0013500100abcdef", "0013500200fedcba"


def demand(kw, *, device=STICK, meter=HOUSE, time=NOON):
    return n.InstantaneousDemand(
        device=device,
        meter=meter,
        time=time,
        multiplier=1,
        divisor=1000,
        demand=round(kw * 1000),
        demand_kw=kw,
    )


def summation(delivered, received=0.0, *, meter=HOUSE, time=NOON):
    return n.CurrentSummationDelivered(
        device=STICK,
        meter=meter,
        time=time,
        multiplier=1,
        divisor=1000,
        summation_delivered=round(delivered * 1000),
        summation_received=round(received * 1000),
        delivered_kwh=delivered,
        received_kwh=received,
    )


class Judge:
    """An acceptance whose verdicts are texts: the reason, or nothing."""

    def __init__(self, **limits):
        self.acceptance = Acceptance(Limits(**limits))

    def __call__(self, notification, received=NOON):
        try:
            self.acceptance.judge(notification, received)
        except PoisonError as error:
            return error.reason
        return ""

    def several(self, *notifications):
        return [self(notification) for notification in notifications]


@pytest.mark.parametrize(
    ("kw", "reason"),
    [(100.0, ""), (-100.0, ""), (100.001, "demand-too-large"), (-100.001, "demand-too-large")],
)
def test_a_demand_has_a_limit_either_way(kw, reason):
    """A demand beyond the limit is rejected, imported or exported; 0 turns the limit off."""
    assert Judge(max_demand_kw=100.0)(demand(kw)) == reason
    assert Judge(max_demand_kw=0.0)(demand(kw)) == ""


def test_a_reading_without_a_value_is_possible():
    """What is null is not compared with any limit."""
    judge = Judge()
    empty = {"multiplier": None, "divisor": None, "device": None, "meter": None, "time": None}
    assert judge(n.InstantaneousDemand(**empty, demand=None, demand_kw=None)) == ""
    nothing = dict.fromkeys(
        ("summation_delivered", "summation_received", "delivered_kwh", "received_kwh")
    )
    assert judge(n.CurrentSummationDelivered(**empty, **nothing)) == ""


@pytest.mark.parametrize("ahead_s", [-86401, -86400, 0, 86400, 86401])
def test_a_fresh_report_shows_the_devices_clock(ahead_s):
    """A demand whose time is further from the host's than the limit is rejected, either way."""
    reading = demand(1.0, time=NOON + timedelta(seconds=ahead_s))
    expected = "clock-far-off" if abs(ahead_s) > 86400 else ""
    assert Judge()(reading) == expected
    assert Judge(max_clock_skew_s=0)(reading) == ""
    assert Judge()(reading, None) == ""


def test_a_price_may_be_old_and_not_from_the_future():
    """What was set long ago may be reported now; what is set in days is a wrong digit."""
    price = n.PriceCluster(
        device=STICK,
        meter=HOUSE,
        time=NOON - timedelta(days=400),
        price=1,
        trailing_digits=2,
        price_per_kwh=0.01,
    )
    assert Judge()(price) == ""
    assert Judge()(price, NOON - timedelta(days=402)) == ""
    assert Judge()(price, datetime(2026, 1, 2, tzinfo=UTC)) == ""
    late = NOON + timedelta(days=2)
    future = n.MessageCluster(device=STICK, meter=HOUSE, time=late, text="x")
    assert Judge()(future) == "clock-far-off"


def test_a_host_without_a_clock_judges_nobody():
    """A host that starts in the past, as one without a battery does, loses no reading by it."""
    assert Judge()(demand(1.0), datetime(1970, 1, 1, tzinfo=UTC)) == ""
    assert Judge()(demand(1.0), datetime(2025, 12, 31, tzinfo=UTC)) == ""


def test_another_device_is_rejected_until_it_insists():
    """One wrong id is damage; the same new id several times in a row is another stick."""
    judge = Judge()
    own, other = demand(1.0), demand(1.0, device=OTHER)
    assert judge.several(own, other, own, other, other) == [
        "",
        "other-device",
        "",
        "other-device",
        "other-device",
    ]
    assert judge(other) == ""
    assert judge(own) == "other-device"


def test_different_wrong_ids_never_settle():
    """Ids that are damaged each in its own way do not agree, and change nothing."""
    judge = Judge()
    judge(demand(1.0))
    wrong = [demand(1.0, device=f"d8d5b9000000{number:04x}") for number in range(10)]
    assert set(judge.several(*wrong)) == {"other-device"}
    assert judge(demand(1.0)) == ""


def test_another_port_may_be_another_stick():
    """After the port was opened again, the first id counts."""
    judge = Judge()
    judge(demand(1.0))
    judge.acceptance.another_port()
    assert judge.several(demand(1.0, device=OTHER), demand(1.0)) == ["", "other-device"]


@pytest.mark.parametrize(
    ("delivered", "received", "reason"),
    [
        (1000.0, 500.0, ""),
        (1100.0, 500.0, ""),
        (1000.0, 600.0, ""),
        (999.999, 500.0, "summation-down"),
        (1000.0, 499.999, "summation-down"),
        (1100.5, 500.0, "summation-jump"),
        (1000.0, 600.5, "summation-jump"),
    ],
)
def test_a_register_grows_by_what_is_possible(delivered, received, reason):
    """Neither register goes down, nor grows faster than the largest demand, with an hour's slack."""
    judge = Judge(max_demand_kw=100.0)
    judge(summation(1000.0, 500.0))
    assert judge(summation(delivered, received)) == reason


def test_a_register_may_grow_while_nobody_listens():
    """After a week without a reading a week's energy is possible, and not more."""
    judge = Judge(max_demand_kw=10.0)
    judge(summation(1000.0))
    later = NOON + timedelta(days=7)
    assert judge(summation(1000.0 + 7 * 24 * 10 + 11, time=later), later) == "summation-jump"
    assert judge(summation(1000.0 + 7 * 24 * 10, time=later), later) == ""


def test_a_damaged_digit_does_not_become_the_baseline():
    """A register that jumped once is rejected, and the true ones go on being accepted."""
    judge = Judge()
    verdicts = judge.several(
        summation(1000.0), summation(5000.0), summation(1000.1), summation(1000.2)
    )
    assert verdicts == ["", "summation-jump", "", ""]


def test_a_new_meter_settles():
    """Registers that went down and agree with each other are a new meter's after three."""
    judge = Judge()
    swapped = [summation(1.0 + number / 10) for number in range(SETTLES_AFTER + 1)]
    verdicts = judge.several(summation(90000.0), *swapped)
    assert verdicts == ["", "summation-down", "summation-down", "", ""]


def test_each_meter_has_its_own_registers():
    """Two meters that one stick hears are not compared with each other."""
    judge = Judge()
    reports = [summation(9000.0), summation(10.0, meter=GARAGE)] * 2
    assert judge.several(*reports) == [""] * 4


def test_a_baseline_outlasts_a_restart():
    """What was accepted before a restart is the last reading and the baseline after it."""
    judge = Judge()
    before = summation(1000.0)
    judge.acceptance.resume(before, NOON)
    assert judge.acceptance.is_repeat(before)
    assert judge(summation(999.0)) == "summation-down"


def test_a_repetition_is_the_same_in_everything():
    """Only the last report of a kind and meter with the same time and values is a repetition."""
    acceptance = Acceptance(Limits())
    acceptance.remember(demand(1.0))
    assert acceptance.is_repeat(demand(1.0))
    assert not acceptance.is_repeat(demand(1.001))
    assert not acceptance.is_repeat(demand(1.0, time=NOON + timedelta(seconds=15)))
    assert not acceptance.is_repeat(demand(1.0, meter=GARAGE))
    acceptance.remember(demand(1.0, meter=GARAGE))
    assert acceptance.is_repeat(demand(1.0))
    acceptance.remember(demand(1.0, time=None))
    assert not acceptance.is_repeat(demand(1.0, time=None))


@steady
@given(
    st.lists(st.floats(0, 90, allow_nan=False), min_size=5, max_size=40),
    st.integers(0, 10**9),
    st.sampled_from([15, 240, 86400]),
)
def test_honest_meters_are_never_rejected(loads_kw, start_wh, every_s):
    """Registers that add up loads below the limit are accepted, from any start, at any pace."""
    judge = Judge(max_demand_kw=100.0)
    energy_wh, time = float(start_wh), NOON
    for load_kw in loads_kw:
        energy_wh += load_kw * 1000 * every_s / 3600
        time += timedelta(seconds=every_s)
        assert judge(summation(int(energy_wh) / 1000, time=time), time) == ""
        assert judge(demand(load_kw, time=time), time) == ""
