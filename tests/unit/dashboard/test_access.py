"""Who is let in: the right password, a session that has not ended, the token."""

from __future__ import annotations

import pytest

from raven_dashboard.access import GUESSES, GUESSES_OF_ALL, SESSION_S, Access

PASSWORD, TOKEN = "correct horse", "0123456789abcdef"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> Access:
    return Access(PASSWORD, TOKEN, clock)


def test_a_session_lasts_until_its_end_and_over_a_restart(access: Access, clock: Clock):
    """Another process with the same password knows it; one with another does not."""
    session = access.log_in("here", PASSWORD)
    assert access.is_session(session)
    assert Access(PASSWORD, None, clock).is_session(session)
    assert not Access(f"{PASSWORD}!", None, clock).is_session(session)
    clock.now += SESSION_S + 1
    assert not access.is_session(session)


@pytest.mark.parametrize(
    "cookie", [None, "", "..", "9999999999.x.y", "٣٣٣٣.x.y", "-1.x.y", "9" * 99]
)
def test_what_was_not_signed_is_no_session(access: Access, cookie: str | None):
    """Whatever it looks like."""
    assert not access.is_session(cookie)


def test_a_session_that_was_changed_is_none(access: Access):
    """In its end or in its nonce."""
    until, nonce, signature = str(access.log_in("here", PASSWORD)).split(".")
    assert not access.is_session(f"{int(until) + 1}.{nonce}.{signature}")
    assert not access.is_session(f"{until}.{nonce}x.{signature}")


def test_the_token_is_the_one_that_is_set(access: Access):
    """None is not the empty one."""
    assert access.may({}, f"Bearer {TOKEN}")
    assert access.may({}, f"bearer {TOKEN}")
    for said in (None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x"):
        assert not access.may({}, said)
        assert not Access(PASSWORD).may({}, said)


def test_who_guesses_waits_longer_each_time_and_others_do_not(access: Access, clock: Clock):
    """The right password in the pause is not looked at; after it, all is forgotten."""
    free, longest_s = GUESSES
    for _ in range(free):
        assert access.log_in("there", "guess") is None
    assert access.log_in("there", PASSWORD) is None
    assert access.log_in("here", PASSWORD)
    waited = []
    for _ in range(20):
        waited.append(access.wait_s("there"))
        clock.now += waited[-1]
        assert access.log_in("there", "guess") is None
    assert waited == sorted(waited)
    assert waited[-1] == longest_s
    clock.now += longest_s
    assert access.log_in("there", PASSWORD)
    assert access.wait_s("there") == 0


def test_guesses_from_everywhere_are_slow_and_lock_nobody_out(access: Access, clock: Clock):
    """From a new address each: one in a few seconds is looked at, whoever it is from."""
    free, longest_s = GUESSES_OF_ALL
    for number in range(free + 5):
        access.log_in(f"address {number}", "guess")
    assert 0 < access.wait_s("another") <= longest_s
    clock.now += longest_s
    assert access.log_in("another", PASSWORD)
