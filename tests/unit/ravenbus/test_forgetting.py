"""Dead letters are kept for a time alone, where somebody asked for that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ravenbus.errors import PoisonError, RetryableError
from ravenbus.forgetting import EVERY_S, Forgetting
from ravenbus.messages import dead_letter
from ravenbus.readback import Choice
from tests.memory import Memory

from .fakes import Clock

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEEP = timedelta(days=30)


class Failing(Memory):
    away = False

    def forget_letters(self, before):
        if self.away:
            raise RetryableError("away")
        return super().forget_letters(before)


@pytest.fixture
def sink():
    return Failing()


def letter(days):
    at = NOW - timedelta(days=days)
    return dead_letter("sql-writer", f"t/{days}", b"", at, PoisonError("not-json", "no"))


def left(sink):
    return [one.topic for one in sink.letters(Choice())]


def test_old_dead_letters_are_removed_once_an_hour(sink, caplog):
    """What is younger stays."""
    caplog.set_level("INFO")
    clock = Clock()
    forgetting = Forgetting(sink, KEEP, clock, lambda: NOW)
    sink.store([letter(days) for days in (29, 31, 400)])
    assert forgetting.store([letter(1)]) == (1, 0)
    assert left(sink) == ["t/29", "t/1"]
    assert "old dead letters removed" in caplog.text
    forgetting.store([letter(31)])
    assert left(sink) == ["t/31", "t/29", "t/1"]
    clock.now += EVERY_S
    forgetting.store([])
    assert left(sink) == ["t/29", "t/1"]


def test_what_cannot_be_removed_now_costs_nothing_that_is_stored(sink):
    """It is tried again an hour later."""
    clock = Clock()
    forgetting = Forgetting(sink, KEEP, clock, lambda: NOW)
    sink.away = True
    assert forgetting.store([letter(31)]) == (1, 0)
    sink.away = False
    clock.now += EVERY_S
    forgetting.store([])
    assert left(sink) == []
