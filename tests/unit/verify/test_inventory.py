"""What stores hold against what was accepted; no database."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from raven_verify import words
from raven_verify.inventory import Accepted, identity, report
from raven_verify.look import Report
from ravenbus.ranges import Range, merged, shown
from ravenbus.readback import AT_ONCE, Holding, Known, chunks
from ravenmongo.readback import _Numbers

HASH = "11111111-2222-4333-8444-555555555555"
KNOWN = Known("winter", "home")


def numbers(ranges: list[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def ranges(found: set[int]) -> list[Range]:
    return merged((number, number) for number in found)


SOME = st.sets(st.integers(1, 40))


@given(SOME, SOME, SOME, SOME, st.integers(0, 45))
def test_each_number_is_there_dead_under_way_or_lacking(held, archived, dead, waiting, accepted):
    """Exactly one of the four, up to the highest that the reader or a store knows."""
    holding = Holding(ranges(held), ranges(archived), [])
    spool = Accepted("winter", accepted, ranges(waiting))
    run = report(HASH, KNOWN, spool, {"MySQL": holding}, {"MySQL": ranges(dead)})
    store = run.stores["MySQL"]
    assert run.accepted == max({accepted, *held, *archived})
    every = set(range(1, run.accepted + 1))
    there = held | archived
    assert store.count == len(there)
    assert store.archived == len(archived - held)
    assert numbers(store.dead) == (every - there) & dead
    assert numbers(store.under_way) == (every - there - dead) & waiting
    assert numbers(store.lacking) == every - there - dead - waiting
    assert store.is_wrong == bool(store.lacking)
    assert store.complete == (not store.lacking and not store.under_way)


def test_what_is_there_twice_is_not_complete():
    """Nor is a run of which two stores say different things, whatever its numbers are."""
    holding = Holding([(1, 3)], [], [(2, 2)])
    run = report(HASH, KNOWN, None, {"MySQL": holding}, {})
    assert (run.accepted, run.by_spool, run.complete) == (3, False, False)
    assert "duplicate 1: 2" in words.of_report(Report([run], {"MySQL": {}}))


@given(st.sets(st.integers(1, 3000)))
def test_ranges_are_found_in_the_order_of_text(found):
    """MongoDB's index has 1, 10, 100, 2: no more is kept than a range for each length."""
    parts = _Numbers()
    for text in sorted(map(str, found)):
        parts.add(text)
    assert parts.ranges() == ranges(found)
    assert parts.doubled == []


def test_a_number_in_two_collections_is_doubled():
    """The merged collections bring it twice in a row."""
    parts = _Numbers()
    for text in ("1", "10", "10", "11", "2"):
        parts.add(text)
    assert (parts.ranges(), parts.doubled) == ([(1, 2), (10, 11)], [(10, 10)])


def test_numbers_are_asked_for_in_bounded_chunks():
    """All of them, in order, over the ends of ranges."""
    wanted = [(1, 3), (10, 10 + AT_ONCE)]
    found = list(chunks(wanted))
    assert [len(chunk) for chunk in found] == [AT_ONCE, 4]
    assert sorted(numbers(wanted)) == [seq for chunk in found for seq in chunk]


def test_whose_reading_a_dead_letter_was_is_read_where_that_is_possible():
    """Also of another version of the contract; never of what is no JSON or no reading."""
    assert identity(b'{"v": 2, "hash": "%s", "seq": 7, "new": {}}' % HASH.encode()) == (HASH, 7)
    for payload in (b"", b"\xff", b"<x/>", b"[1]", b'{"seq": 7}', b'{"hash": "h", "seq": 7}'):
        assert identity(payload) is None


def test_people_read_ranges_and_scripts_all_of_them():
    """Of very many ranges the first are shown; --json has each."""
    every_other = [(seq, seq) for seq in range(1, 60, 2)]
    assert shown([(1, 3), (7, 7)]) == "1-3, 7"
    assert shown(every_other).endswith("and 18 more ranges")
    holding = Holding(every_other, [], [])
    run = report(HASH, KNOWN, None, {"MySQL": holding, "MongoDB": Holding([(1, 59)], [], [])}, {})
    found = Report([run], {"MySQL": {}, "MongoDB": {"not-json": 2}})
    text = words.of_report(found)
    assert "missing 29: 2, 4" in text
    assert "--repair" in text
    assert "2 not-json" in text
    said = json.loads(words.as_json(found))
    assert said["runs"][0]["stores"]["MySQL"]["lacking"] == [[s, s] for s in range(2, 60, 2)]
    assert said["complete"] is False


def test_nothing_to_send_again_is_not_offered():
    """What no other store has --repair cannot bring back."""
    both = {"MySQL": Holding([(2, 3)], [], []), "MongoDB": Holding([(2, 3)], [], [])}
    text = words.of_report(Report([report(HASH, KNOWN, None, both, {})], {"MySQL": {}}))
    assert "missing 1: 1" in text
    assert "--repair" not in text


def test_what_is_under_way_makes_no_run_complete():
    """Nor wrong: people are told to wait, scripts that it is not complete."""
    spool = Accepted("winter", 3, [(3, 3)])
    run = report(HASH, KNOWN, spool, {"MySQL": Holding([(1, 2)], [], [])}, {})
    whole = report(HASH, KNOWN, spool, {"MySQL": Holding([(1, 3)], [], [])}, {})
    assert (run.complete, run.is_wrong, whole.complete) == (False, False, True)
    text = words.of_report(Report([run], {"MySQL": {}}))
    assert "complete\n" not in text
    assert text.endswith("The run is not complete yet: readings are under way.")
    text = words.of_report(Report([run, whole], {"MySQL": {}}))
    assert text.endswith("1 of 2 runs is not complete yet: readings are under way.")
    assert json.loads(words.as_json(Report([run, whole], {"MySQL": {}})))["complete"] is False
    assert words.of_report(Report([whole], {"MySQL": {}})).endswith("complete in MySQL.")


def test_without_a_spool_no_more_is_claimed_than_stores_know():
    """What a reader still has, no store can know of."""
    run = report(HASH, KNOWN, None, {"MySQL": Holding([(1, 3)], [], [])}, {})
    assert "complete in MySQL, as far as stores know" in words.of_report(
        Report([run], {"MySQL": {}})
    )


def test_a_terminal_is_told_nothing_by_a_payload():
    """Escape sequences of whoever published are shown, not obeyed."""
    assert words.safe("a\x1b[31m\x07ü\n") == "a\\x1b[31m\\x07ü\n"
