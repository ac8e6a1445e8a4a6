"""Retries of publisher and consumer: for ever, with a longer pause each time, with jitter."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)
from tenacity.wait import wait_base

from ravenbus.errors import RetryableError
from ravenbus.health import Health

T = TypeVar("T")

DEFAULT_WAIT = wait_random_exponential(multiplier=0.5, max=30)
"""Up to 0.5 s before the second try, doubling to 30 s; random, so that a fleet spreads out."""


def retrying(stop: Event, wait: wait_base = DEFAULT_WAIT) -> Retrying:
    """Return a controller that retries RetryableError until it works or ``stop`` is set.

    When ``stop`` is set, the last error is raised.
    """
    return Retrying(
        retry=retry_if_exception_type(RetryableError),
        wait=wait,
        sleep=sleep_using_event(stop),
        stop=stop_when_event_set(stop),
        reraise=True,
    )


@dataclass(frozen=True)
class Retry:
    """Makes calls again until they work; the health says what stands in the way."""

    health: Health
    stop: Event
    wait: wait_base = DEFAULT_WAIT

    def __call__(self, check: str, call: Callable[[], T]) -> T:
        """Return what a call returns once it works; raise RetryableError after a stop."""

        def attempt() -> T:
            self.health.beat()
            try:
                result = call()
            except RetryableError as error:
                self.health.failing(check, str(error))
                raise
            self.health.ok(check)
            return result

        return retrying(self.stop, self.wait)(attempt)


SHORT_LIVED_S = 10.0
SHORTEST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class Reconnecting:
    """The pause after a lost connection, and a hint at the suspected cause.

    A connection that is lost again soon after it was made doubles the pause.  Brokers before
    Mosquitto 2.1 take a session over without a word, so two clients with one client id look just
    like this; they must not throw each other out without end.
    """

    def __init__(self) -> None:
        self._short_lived = 0

    def pause_s(self, lived_s: float) -> float:
        """Return the seconds to wait after a connection that lasted ``lived_s``."""
        self._short_lived = self._short_lived + 1 if lived_s < SHORT_LIVED_S else 0
        longest = min(SHORTEST_PAUSE_S * 2**self._short_lived, LONGEST_PAUSE_S)
        return random.uniform(longest / 2, longest)  # noqa: S311 - jitter is no secret

    @property
    def suspicion(self) -> str:
        """A hint for the log once it happens again and again, else nothing."""
        if self._short_lived < 3:  # noqa: PLR2004 - a restart of the broker may cause two
            return ""
        return (
            ", again and again: is the broker ill, or does another client use the same client id?"
        )
