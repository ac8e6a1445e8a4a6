"""What is dear to ask is asked once for many."""

from __future__ import annotations

import pytest

from raven_dashboard.memory import Remembered


def test_an_answer_is_asked_for_anew_after_its_time():
    """And not before."""
    times = iter([0.0, 9.0, 10.0, 10.0])
    remembered: Remembered[int] = Remembered(10.0, lambda: next(times))
    answers = iter([1, 2])
    assert [remembered(lambda: next(answers)) for _ in range(3)] == [1, 1, 2]


def test_who_comes_while_it_is_asked_gets_the_old_one():
    """He does not wait."""
    now = [0.0]
    remembered: Remembered[int] = Remembered(10.0, lambda: now[0])
    assert remembered(lambda: 1) == 1
    now[0] = 20.0
    meanwhile: list[int] = []

    def ask() -> int:
        meanwhile.append(remembered(lambda: 3))
        return 2

    assert remembered(ask) == 2
    assert meanwhile == [1]


def test_a_failure_is_not_remembered():
    """The next asks again."""
    remembered: Remembered[int] = Remembered(10.0, lambda: 0.0)
    with pytest.raises(ZeroDivisionError):
        remembered(lambda: 1 // 0)
    assert remembered(lambda: 1) == 1
