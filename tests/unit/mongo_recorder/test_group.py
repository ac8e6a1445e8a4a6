"""The rules by which slots change hands."""

from __future__ import annotations

import pytest

from raven_mongo_recorder import group as rules
from raven_mongo_recorder.group import Group, Slot, State, Watch

LEASE_S = 10.0
MEMBER, JOINING, LEAVING, CLOSED = State.MEMBER, State.JOINING, State.LEAVING, State.CLOSED


def watching(*looks: tuple[float, Group]) -> Watch:
    """Return a watch that has looked at the group at these times."""
    watch = Watch(LEASE_S)
    for at, group in looks:
        watch.look(group, at)
    return watch


def alive(group: Group) -> Watch:
    """Return a watch that has seen every holder's beat move."""
    before = {n: slot._replace(beat=slot.beat - 1) for n, slot in group.items()}
    return watching((0, before), (1, group))


def still(group: Group, seconds: int) -> Watch:
    """Return a watch that has seen no beat for so long."""
    return watching(*((at, group) for at in range(seconds + 1)))


def test_the_first_takes_slot_1():
    """Where nobody is, nobody has to be waited for."""
    assert rules.taken({}, "a", watching((0, {}))) == {1: Slot(JOINING, "a", 1)}


def test_a_living_holder_keeps_its_slot():
    """A newcomer takes the next one as soon as it has seen the others' beats move."""
    group = {1: Slot(MEMBER, "a", 7), 2: Slot(MEMBER, "b", 3)}
    assert rules.held(rules.taken(group, "c", alive(group)), "c") == {3}


def test_a_slot_is_taken_over_only_after_a_lease_of_silence():
    """Until then it is not clear who is alive, and a newcomer waits."""
    group = {1: Slot(MEMBER, "a", 7)}
    assert rules.taken(group, "b", still(group, 9)) == group
    assert rules.taken(group, "b", still(group, 10))[1] == Slot(JOINING, "b", 8)


def test_a_slot_that_was_given_back_is_taken_at_once():
    """A lone recorder that was stopped goes on with its session without waiting."""
    group = {1: Slot(MEMBER, None, 7)}
    assert rules.held(rules.taken(group, "b", still(group, 0)), "b") == {1}


def test_who_could_not_look_has_seen_nothing():
    """A database that was away for an hour makes nobody dead."""
    group = {1: Slot(MEMBER, "a", 7)}
    watch = watching((0, group), (1, group), (3600, group))
    assert not watch.dead(1)
    assert not watch.alive(1)
    assert rules.taken(group, "b", watch) == group


@pytest.mark.parametrize("theirs", [-1e9, 0.0, 1e9])
def test_a_wrong_clock_steals_nothing(theirs: float):
    """Only differences of one's own clock count, whatever it shows."""
    group = {1: Slot(MEMBER, "a", 7)}
    later = {1: Slot(MEMBER, "a", 8)}
    watch = watching((theirs, group), (theirs + 4, group), (theirs + 8, later))
    assert watch.alive(1)
    assert rules.held(rules.taken(later, "b", watch), "b") == {2}


def test_of_two_that_stop_at_once_one_stays():
    """Each may rely on the other, but not both."""
    group = {1: Slot(MEMBER, "a", 1), 2: Slot(MEMBER, "b", 1)}
    watch = alive(group)
    first = rules.left(group, 1, "a", watch)
    assert first[1].state is LEAVING
    assert rules.left(first, 2, "b", watch) == first


@pytest.mark.parametrize("state", [JOINING, LEAVING, CLOSED])
def test_only_a_subscribed_session_lets_another_go(state: State):
    """One that may not be subscribed yet, or no longer, covers nothing."""
    group = {1: Slot(MEMBER, "a", 1), 2: Slot(state, "b", 1)}
    assert rules.left(group, 1, "a", alive(group)) == group


def test_nobody_relies_on_the_dead():
    """A session that nobody serves stays, and so does the one that wanted to go."""
    group = {1: Slot(MEMBER, "a", 1), 2: Slot(MEMBER, "b", 1), 3: Slot(MEMBER, None, 1)}
    assert rules.left(group, 1, "a", still(group, 10)) == group


@pytest.mark.parametrize("rule", [rules.joined, rules.closed, rules.released])
def test_who_lost_a_slot_changes_nothing_of_it(rule):
    """A holder that hung finds that its slot is somebody else's."""
    group = {1: Slot(MEMBER, "b", 5)}
    assert rule(group, 1, "a") == group
    assert rules.renewed(group, [1], "a") == group
    assert rules.left(group | {2: Slot(MEMBER, "c", 1)}, 1, "a", alive(group))[1] == group[1]


def test_the_dead_are_left_time_to_come_back():
    """A session is adopted after four leases, by a member, and then by one only."""
    group = {1: Slot(MEMBER, "a", 1), 2: Slot(MEMBER, "b", 1), 3: Slot(MEMBER, None, 1)}
    assert rules.abandoned(group, still(group, 39), LEASE_S) == []
    watch = still(group, 40)
    assert rules.abandoned(group, watch, LEASE_S) == [1, 2, 3]
    adopted = rules.adopted(group, 2, "a", watch)
    assert adopted[2] == Slot(LEAVING, "a", 2)
    watch.look(adopted, 41)
    assert rules.adopted(adopted, 2, "c", watch) == adopted, "who adopted it is alive"
    assert rules.adopted(group, 3, "z", watch) == group, "who is no member adopts nothing"


def test_a_group_that_shrank_comes_back_to_the_slots_from_1_up():
    """The highest moves when a lower slot has been free for long."""
    group = {1: Slot(CLOSED, None, 9), 2: Slot(MEMBER, "b", 1), 3: Slot(MEMBER, "c", 1)}
    assert not rules.too_high(group, 3, still(group, 39), LEASE_S)
    watch = still(group, 40)
    assert rules.too_high(group, 3, watch, LEASE_S)
    assert not rules.too_high(group, 2, watch, LEASE_S)
