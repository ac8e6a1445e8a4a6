"""The errors, sorted by how they are to be handled."""

from __future__ import annotations


class RavenError(Exception):
    """Root of every error that python-raven raises on purpose."""


class SettingsError(RavenError):
    """The settings cannot be used; ``problems`` holds one sentence for each of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PoisonError(RavenError):
    """This message can never be stored, however often it is tried: a dead letter.

    ``reason`` is a short code for counting, ``detail`` a sentence for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ContractError(PoisonError):
    """A payload that is not what the contract says."""


class RetryableError(RavenError):
    """The other side is away or busy; the same call may work later."""


class BrokerAwayError(RetryableError):
    """No connection to the broker, or none that it accepts."""


class FatalError(RavenError):
    """Going on would do harm: the process has to end."""


class SlotLostError(RavenError):
    """The slot belongs to somebody else now: leave its session alone and take a slot anew."""
