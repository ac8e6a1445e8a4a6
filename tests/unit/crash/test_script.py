"""The script of faults follows from its seed alone and leaves nothing out."""

from __future__ import annotations

from collections import Counter

from raven_harness.crash.script import KINDS, PARTS, ROUND_S, plan


def test_a_seed_gives_the_same_script_and_another_seed_another():
    """Kinds, order, targets and times are the same each time."""
    assert plan(7, 60) == plan(7, 60)
    assert plan(7, 60) != plan(8, 60)


def test_five_minutes_hold_every_kind_and_an_hour_at_least_three_hundred_faults():
    """What .ci/run does breaks in every way there is, whatever the seed."""
    for seed in range(50):
        kinds = Counter(fault.kind for one in plan(seed, 5) for fault in one)
        assert kinds.keys() == KINDS.keys()
        assert len(kinds) >= 10
        assert sum(map(len, plan(seed, 60))) >= 500


def test_every_process_is_killed_before_one_is_killed_twice():
    """Targets are dealt evenly."""
    kills = [f.target for one in plan(3, 60) for f in one if f.kind == "kill"]
    assert set(kills[: len(PARTS)]) == set(PARTS)


def test_faults_begin_within_their_round_in_order():
    """The times can be played as they stand."""
    for one in plan(5, 12):
        times = [fault.at_s for fault in one]
        assert times == sorted(times)
        assert all(0 < at < ROUND_S for at in times)
