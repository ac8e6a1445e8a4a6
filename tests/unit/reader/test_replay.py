"""Dead letters of the serial line, judged again."""

from __future__ import annotations

from datetime import timedelta

from raven_reader.acceptance import Limits
from raven_reader.replay import judged
from ravenbus.messages import DeadLetter, encode

from .examples import EPOCH, METER, NOON, OTHER_METER, demand, stamped


def letters_of(*fragments):
    """Return letters as `raven-dead-letters list --json` prints them."""
    return [
        encode(
            DeadLetter(
                id=f"{number:032x}",
                service="reader",
                node="home",
                at=NOON,
                reason="clock-far-off",
                detail="d",
                payload=xml,
                size=len(xml),
            )
        )
        for number, xml in enumerate(fragments)
    ]


def test_dead_letters_of_an_older_reader_are_taken_in():
    """A demand that 1.0 buried for its clock is a reading, once, with what the clock claimed."""
    long_ago = NOON - timedelta(days=60)
    lines = letters_of(stamped(long_ago), demand(TimeStamp="0x00000e10"))
    found = list(judged(lines, "home", [], Limits()))
    assert [one.why for one in found] == ["", ""]
    claimed = [one.notification.claimed_time for one in found]
    assert claimed == [long_ago, EPOCH + timedelta(hours=1)]


def test_letters_of_a_new_meter_are_taken_in_once_they_show_it():
    """Three letters show a meter as three reports do; fewer stay where they are."""
    xml = [demand(f"0x00000{number}", MeterMacId=OTHER_METER) for number in (2, 3, 4)]
    found = list(judged(letters_of(*xml[:2]), "home", [METER], Limits()))
    assert [one.why.partition(":")[0] for one in found] == ["unknown-meter"] * 2
    found = list(judged(letters_of(*xml), "home", [METER], Limits()))
    assert [one.letter.id[-1] for one in found] == ["0", "1", "2"]
    assert [one.notification.demand for one in found] == [2, 3, 4]
