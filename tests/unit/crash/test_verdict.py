"""Each way in which a store can be wrong is seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raven_harness.crash.report import wrong
from raven_harness.crash.verdict import Copy, Sent, judge, outages

N = 5
Stores = dict[str, list[Copy]]


def sent(stated: int, at: float = 0.0, **flags: bool) -> Sent:
    return Sent(at, stated, **{"heard": True, "whole": True, "cached": False} | flags)


def copies() -> list[Copy]:
    return [Copy(seq, 1000 + seq, seq) for seq in range(1, N + 1)]


STREAM = [sent(stated) for stated in range(1, N + 1)]
LETTER = ("a", "reader", "bad-value")


def verdict(stores: Stores, stream: list[Sent] = STREAM, letters=None, away=()):
    return judge(N, stores, stream, letters or {}, away)


def test_what_agrees_is_good():
    """Three stores that have everything once, as it was sent."""
    found = verdict({"a": copies(), "b": copies(), "c": copies()[::-1]})
    assert not wrong(found)
    assert [one.stored for one in found.stores.values()] == [N, N, N]


WRONGS: dict[str, tuple[Callable[[list[Copy]], list[Copy]], str, list[int]]] = {
    "lost": (lambda those: those[:2] + those[3:], "lost", [3]),
    "lost at the end": (lambda those: those[:-1], "lost", [N]),
    "stored twice": (lambda those: [*those, those[1]], "duplicated", [2]),
    "stored under a number too many": (
        lambda those: [*those, Copy(N + 1, 1001, 1)],
        "altered",
        [N + 1],
    ),
    "another field": (lambda those: [*those[:-1], Copy(N, 7, N)], "altered", [N]),
    "another value": (lambda those: [*those[:-1], Copy(N, 7, 99)], "altered", [N]),
}


@pytest.mark.parametrize("name", WRONGS)
def test_one_store_that_is_wrong_is_named_and_the_others_are_not(name: str):
    """The store at fault is told by the stick's ledger and by the two others."""
    spoil, what, seqs = WRONGS[name]
    found = verdict({"a": copies(), "b": spoil(copies()), "c": copies()})
    assert wrong(found)
    assert getattr(found.stores["b"], what) == seqs
    for other in ("a", "c"):
        one = found.stores[other]
        assert [one.lost, one.duplicated, one.altered] == [[], [], []]


def test_what_all_stores_have_alike_but_the_stick_never_sent_is_altered():
    """The truth is not the system's own: the reader could have read wrong."""
    made_up = [*copies()[:-1], Copy(N, 7, 99)]
    found = verdict({"a": made_up, "b": made_up})
    assert wrong(found)
    assert found.stores["a"].altered == found.stores["b"].altered == [N]


def test_readings_in_another_order_than_sent_are_altered():
    """Two values that changed places are both real and both wrong."""
    swapped = copies()
    swapped[1], swapped[3] = Copy(2, 1002, 4), Copy(4, 1004, 2)
    assert wrong(verdict({"a": swapped, "b": swapped}))


def test_a_report_that_was_damaged_must_not_become_a_reading():
    """Only what arrived whole counts as sent."""
    stream = [*STREAM[:-1], sent(N, whole=False)]
    assert verdict({"a": copies()}, stream).stores["a"].altered == [N]


def test_a_report_that_a_reader_should_have_heard_is_missed():
    """A whole report without a reading is excused only by an outage of the reader."""
    stream = [*STREAM, sent(6, at=50.0), sent(5, cached=True)]
    assert verdict({"a": copies()}, stream).missed == 1
    excused = verdict({"a": copies()}, stream, away=[(40.0, 60.0)])
    assert (excused.missed, excused.away, wrong(excused)) == (0, 1, [])


def test_an_outage_begins_with_what_the_reader_had_in_its_hands():
    """A reader that was paused, or had no disk, when it was killed has lost what came since."""
    ((since, until),) = outages([(100.0, 110.0)], [(60.0, 101.0), (200.0, 210.0)])
    assert since < 60.0
    assert 110.0 < until < 130.0
    ((since, _),) = outages([(100.0, 110.0)], [])
    assert since > 90.0


def test_dead_letters_of_poison_and_damage_are_right():
    """One of each, in both stores."""
    stream = [*STREAM, sent(9, poison=True), sent(8, whole=False)]
    letters = [LETTER, ("b", "reader", "demand-too-large")]
    both = {"a": letters, "b": letters}
    assert not wrong(verdict({"a": copies(), "b": copies()}, stream, both))


@pytest.mark.parametrize(
    "letters",
    [
        {"a": [LETTER], "b": []},
        {"a": [LETTER, LETTER], "b": [LETTER]},
        {"a": [LETTER, ("c", "sql-writer", "not-contract")], "b": [LETTER]},
        {"a": [LETTER, ("c", "reader", "bad-value")], "b": [LETTER, ("c", "reader", "bad-value")]},
        {"a": [("p", "reader", "demand-too-large")], "b": [("p", "reader", "demand-too-large")]},
    ],
    ids=["one store lacks it", "twice", "a store's own", "more than damaged", "no such poison"],
)
def test_dead_letters_that_should_not_be_so_are_seen(letters: dict[str, list]):
    """A dead letter needs a cause, and is in each store once."""
    stream = [*STREAM, sent(8, whole=False)]
    assert wrong(verdict({"a": copies(), "b": copies()}, stream, letters))


def test_poison_that_was_not_buried_is_seen():
    """The reader heard it, so somebody has to have it."""
    stream = [*STREAM, sent(9, poison=True)]
    assert wrong(verdict({"a": copies()}, stream, {"a": []}))
    assert not wrong(verdict({"a": copies()}, stream, {"a": []}, away=[(-1.0, 1.0)]))


def test_a_run_that_accepted_nothing_is_not_good():
    """Nothing lost of nothing proves nothing."""
    assert wrong(judge(0, {"a": []}, [], {}, ()))
