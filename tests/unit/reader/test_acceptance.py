"""What is impossible at a meter, and how a baseline that was wrong gives way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven_reader.acceptance import WAITS_AT_MOST, Acceptance, Limits
from raven_reader.registers import REGISTER_SETTLES_AFTER, baselines
from raven_reader.verdicts import WAITING_MAX, Impossible, Report
from ravenbus import notifications as n

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
    """An acceptance whose verdicts are texts: the reason, `waits`, or nothing."""

    def __init__(self, **limits):
        self.acceptance = Acceptance(Limits(**limits))
        self.reports = []
        self.verdicts = {}

    def __call__(self, notification, received=NOON):
        """Judge a report, and return the verdict on it so far."""
        self.reports.append(Report(notification, b"", received))
        self.verdicts[self.reports[-1]] = "waits"
        self._note(self.acceptance.judge(self.reports[-1]))
        return self.verdicts[self.reports[-1]]

    def _note(self, decisions):
        for decision in decisions:
            assert self.verdicts[decision.report] == "waits", "decided twice"
            impossible = isinstance(decision, Impossible)
            self.verdicts[decision.report] = decision.error.reason if impossible else ""

    def several(self, *notifications, every_s=0):
        """Judge reports one after another; return what was decided on each in the end."""
        for number, notification in enumerate(notifications):
            self(notification, NOON + timedelta(seconds=number * every_s))
        return list(self.verdicts.values())

    def finish(self):
        self._note(self.acceptance.finish())
        return list(self.verdicts.values())


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


@pytest.mark.parametrize(("per_kwh", "reason"), [(-100.0, ""), (100.1, "price-too-large")])
def test_a_price_has_a_limit_either_way(per_kwh, reason):
    """A price beyond the limit is rejected, also that of a block; 0 turns the limit off."""
    prices = {"price": 1, "price_per_kwh": per_kwh}
    ids = {"device": STICK, "meter": HOUSE, "time": NOON, "trailing_digits": 3}
    price = n.PriceCluster(**ids, **prices)
    blocks = n.BlockPriceDetail(**ids, multiplier=1, divisor=1, blocks=[n.PriceBlock(**prices)])
    assert Judge().several(price, blocks) == [reason] * 2
    assert Judge(max_price_per_kwh=0.0).several(price, blocks) == [""] * 2


def test_another_device_is_rejected_until_it_insists():
    """One wrong id is damage; the same new id three times in a row is another stick, from the first."""
    judge = Judge()
    own, other = demand(1.0), demand(1.0, device=OTHER)
    assert judge.several(own, other, own, other, other) == [
        "",
        "other-device",
        "",
        "waits",
        "waits",
    ]
    assert judge.several(other) == ["", "other-device", "", "", "", ""]
    assert judge(own) == "waits"
    assert judge.finish()[-1] == "other-device"


def test_different_wrong_ids_never_settle():
    """Ids that are damaged each in its own way do not agree, and change nothing."""
    judge = Judge()
    wrong = [demand(1.0, device=f"d8d5b9000000{number:04x}") for number in range(10)]
    assert judge.several(demand(1.0), *wrong, demand(1.0)) == ["", *["other-device"] * 10, ""]


@pytest.mark.parametrize("first", [STICK, OTHER])
def test_another_port_may_be_another_stick(first):
    """After the port was opened again the first id counts, and decides on what waited."""
    judge = Judge()
    judge.several(demand(1.0), demand(1.0, device=OTHER))
    judge.acceptance.another_port()
    assert judge(demand(1.0, device=first)) == ""
    assert list(judge.verdicts.values())[1] == ("" if first == OTHER else "other-device")


def test_a_damaged_meter_id_makes_no_meter():
    """A meter that came once is no reading's, and the true one goes on being read."""
    judge = Judge()
    reports = [demand(1.0), demand(1.0, meter=GARAGE), demand(1.0), summation(1.0, meter=GARAGE)]
    assert judge.several(*reports) == ["", "waits", "", "waits"]
    assert judge.finish() == ["", "unknown-meter", "", "unknown-meter"]


def test_several_meters_and_a_new_one_are_read_from_their_first_report():
    """A meter that came three times is real: what waited until then is taken in, none is lost."""
    judge = Judge()
    pairs = [demand(1.0), demand(2.0, meter=GARAGE)] * 4
    assert judge.several(*pairs) == [""] * 8
    assert judge(demand(1.0, meter=None)) == ""


def test_a_meter_is_known_after_a_restart():
    """What was accepted before names the meters that are real."""
    judge = Judge()
    judge.acceptance.resume(demand(1.0))
    judge.acceptance.resume(demand(1.0, meter=GARAGE))
    assert judge.several(demand(1.0, meter=GARAGE), demand(1.0)) == ["", ""]


def test_a_meter_that_does_not_come_again_waits_for_an_hour():
    """What waits longer than any meter is silent, or is one too many, is rejected."""
    judge = Judge()
    judge(demand(1.0))
    judge(demand(1.0, meter=GARAGE))
    late = NOON + WAITS_AT_MOST
    assert judge(demand(1.0, time=late), late) == ""
    assert list(judge.verdicts.values())[1] == "waits"
    late += timedelta(seconds=1)
    judge(demand(1.0, time=late), late)
    assert list(judge.verdicts.values())[1] == "unknown-meter"
    judge.several(*(demand(1.0, meter=f"{number:016x}") for number in range(WAITING_MAX + 5)))
    assert list(judge.verdicts.values()).count("waits") == WAITING_MAX


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
    judge(summation(delivered, received))
    assert judge.finish() == ["", reason]


def test_a_register_may_grow_while_nobody_listens():
    """After a week without a reading a week's energy is possible, and not more."""
    judge = Judge(max_demand_kw=10.0)
    judge(summation(1000.0))
    later = NOON + timedelta(days=7)
    assert judge(summation(1000.0 + 7 * 24 * 10 + 11, time=later), later) == "waits"
    assert judge(summation(1000.0 + 7 * 24 * 10, time=later), later) == ""


def registers(*kwh, every_s=240):
    """Return reports of a register, as far apart as a device sends them."""
    times = (NOON + timedelta(seconds=number * every_s) for number in range(len(kwh)))
    return [summation(value, time=time) for value, time in zip(kwh, times, strict=True)]


DOWN, JUMP = "summation-down", "summation-jump"


@pytest.mark.parametrize(
    ("kwh", "verdicts"),
    [
        # A digit was damaged.
        ((1000.0, 5000.0, 1000.1, 1000.2), ("", JUMP, "", "")),
        ((1000.0, 5000.0, 9000.0, 1000.1, 1000.2), ("", JUMP, JUMP, "", "")),
        # A meter was replaced, or reset: it is read from its first report.
        ((90000.0, 1.0, 1.1, 1.2, 1.3, 1.4), ("", "", "", "", "", "")),
        # It is replaced by one that is not used for a while.
        ((90000.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.2), ("", "", "", "", "", "", "")),
        # It is too early to say.
        ((90000.0, 1.0, 1.1, 1.2), ("", "waits", "waits", "waits")),
        # A constant is no register, however long it lasts.
        ((601.0, *[0.0] * 500, 601.1), ("", *[DOWN] * 500, "")),
        ((601.0, *[0.0] * 20), ("", *["waits"] * 20)),
        # A house where nothing is used: damage that happens to grow is damage still.
        (
            (601.0, 601.0, 601.0, 3.0, 601.0, 3.1, 601.0, 3.2, 601.0, 3.3, 601.0),
            ("", "", "", DOWN, "", DOWN, "", DOWN, "", DOWN, ""),
        ),
        # The first was wrong: the true ones win, whichever way it was.
        ((9999.0, 601.0, 601.1, 601.2, 601.3, 601.4), ("", "", "", "", "", "")),
        ((1.0, 601.0, 601.1, 601.2, 601.3, 601.4), ("", "", "", "", "", "")),
        # Damage among them does not help, and does not win.
        (
            (9999.0, 601.0, 9998.0, 601.1, 601.2, 5.0, 601.3, 601.4),
            ("", "", DOWN, "", "", DOWN, "", ""),
        ),
    ],
)
def test_only_what_behaves_like_a_register_replaces_one(kwh, verdicts):
    """Registers that contradict the known ones win by going on, for a while, and growing."""
    judge = Judge()
    for report in registers(*kwh):
        judge(report, report.time)
    assert tuple(judge.verdicts.values()) == verdicts


@pytest.mark.parametrize("every_s", [1, 30, 299])
def test_a_register_settles_by_time_and_not_by_reports(every_s):
    """However often a device reports, a register has to go on for ten minutes."""
    judge = Judge()
    kwh = (90000.0, *(1 + number / 1000 for number in range(900 // every_s)))
    for report in registers(*kwh, every_s=every_s):
        verdict = judge(report, report.time)
        lasted = report.time - NOON - timedelta(seconds=every_s)
        if lasted >= timedelta():
            assert verdict == ("" if lasted >= REGISTER_SETTLES_AFTER else "waits")


@pytest.mark.parametrize("between", [(None, 0.0), (1000.1, None), (None, None)])
def test_a_register_without_a_value_hides_no_other(between):
    """What has no value is not compared; the other register is, and the last value is kept."""
    judge = Judge()
    verdicts = judge.several(
        summation(1000.0, 0.0),
        blank(*between),
        blank(0.0, None),
        blank(None, 4294967.0),
        summation(1000.2, 0.0),
        summation(1000.3, 0.0),
    )
    assert verdicts == ["", "", DOWN, JUMP, "", ""]


def blank(delivered, received):
    """Return a report of registers in which what is None has no value."""
    return msgspec.structs.replace(summation(0.0), delivered_kwh=delivered, received_kwh=received)


def test_a_host_whose_clock_jumps_settles_no_register():
    """The device's own time tells how long a register went on, where it tells any."""
    judge = Judge()
    reports = registers(90000.0, 1.0, 1.1, 1.2, every_s=10)
    for number, report in enumerate(reports):
        judge(report, NOON + timedelta(days=number))
    assert list(judge.verdicts.values())[1:] == ["waits"] * 3


def test_too_many_that_wait_are_given_up():
    """What contradicts the register without end takes bounded memory, and is rejected then."""
    judge = Judge()
    for report in registers(601.0, *[0.0] * (WAITING_MAX + 2)):
        judge(report, report.time)
    found = list(judge.verdicts.values())
    assert (found.count("waits"), found.count(DOWN)) == (1, WAITING_MAX + 1)


def test_each_meter_has_its_own_registers():
    """Two meters that one stick hears are not compared with each other."""
    judge = Judge()
    reports = [summation(9000.0), summation(10.0, meter=GARAGE)] * 3
    assert judge.several(*reports) == [""] * 6


def test_a_baseline_outlasts_a_restart():
    """What was accepted before a restart is the last reading and the baseline after it."""
    judge = Judge()
    before = summation(1000.0)
    judge.acceptance.resume(before)
    for baseline in baselines(before, NOON):
        judge.acceptance.resume_register(baseline)
    assert judge.acceptance.is_repeat(before)
    assert judge(summation(999.0)) == "waits"
    assert judge.finish() == [DOWN]


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
    acceptance.remember(msgspec.structs.replace(demand(1.0, time=None), claimed_time=NOON))
    assert acceptance.is_repeat(demand(1.0))


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


def judged(reports):
    """Judge reports as they come; return those that were accepted in the end."""
    judge = Judge()
    for report in reports:
        judge(report, report.time)
    judge.finish()
    assert len(judge.verdicts) == len(reports)
    assert set(judge.verdicts.values()) <= {"", DOWN, JUMP}
    return [report.notification for report, verdict in judge.verdicts.items() if not verdict]


@steady
@given(
    st.integers(10**6, 10**9),
    st.lists(
        st.tuples(st.integers(0, 60), st.lists(st.integers(0, 2**48), max_size=3)),
        min_size=2,
        max_size=60,
    ),
)
def test_whatever_is_said_between_them_the_true_registers_are_accepted_and_nothing_else(
    start_wh, history
):
    """A register that goes on is read whole; no damage, however wild or often, is."""
    true, said, wh = [], [], start_wh
    for grown, damage in history:
        wh += grown
        true.append(wh)
        # What fell, or jumped by more than can be used in an hour.
        said += [wh, *(value for value in damage if not 0 <= value - wh <= 200_000)]
    reports = registers(*(value / 1000 for value in said), every_s=45)
    assert [round(found.delivered_kwh * 1000) for found in judged(reports)] == true


@steady
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**4)), min_size=1, max_size=60),
    st.sampled_from([15, 240]),
)
def test_any_history_of_registers_is_decided_once(history, every_s):
    """Whatever a meter says, nothing is lost without a reason, and the first report is read."""
    kwh = [start + grown / 1000 for start, grown in history for _ in range(3)]
    reports = registers(*kwh, every_s=every_s)
    assert reports[0] in judged(reports)
