"""How dead letters are shown."""

from __future__ import annotations

from datetime import UTC, datetime

from raven_verify.words import letter_line, of_letter
from ravenbus.messages import DeadLetter


def test_what_a_letter_quotes_forges_no_line():
    """A line's end, or what a terminal obeys, in a detail or topic is shown and not done."""
    letter = DeadLetter(
        id="0" * 32,
        service="sql-writer",
        at=datetime(2026, 3, 1, tzinfo=UTC),
        reason="not-json",
        detail="x\nreason     fine\x1b[2J",
        topic="a\nnode       home",
        payload=b"1\n2",
        size=3,
    )
    shown = of_letter("MySQL", letter)
    assert r"x\nreason     fine\x1b[2J" in shown
    assert r"a\nnode       home" in shown
    names = [line.split()[0] for line in shown.splitlines()]
    assert names.count("reason") == names.count("node") == 1
    assert len(letter_line("MySQL", letter).splitlines()) == 1
