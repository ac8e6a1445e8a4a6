"""How both halves wait before they try again: for ever, longer each time, with jitter."""

from __future__ import annotations

from threading import Event

from tenacity import (
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)
from tenacity.wait import wait_base

from ravenbus.errors import RetryableError

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
