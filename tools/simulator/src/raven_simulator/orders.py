"""Faults as they are ordered on the command line: KIND[:PARAMETERS]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from raven_simulator.faults import CHANCES
from raven_simulator.timeline import ClockJump, Reset, Silence, Stall, Timed, Unplug, UnsetClock

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMS: Final[Mapping[str, str]] = {
    **{kind: f"{kind}[:PROBABILITY]" for kind in CHANCES},
    "silence": "silence:AT,SECONDS[,EVERY]",
    "unplug": "unplug:AT,SECONDS[,NEWLINK]",
    "reset": "reset:AT",
    "stall": "stall:AT",
    "clock": "clock:AT,SECONDS",
    "unset-clock": "unset-clock[:UNTIL]",
}
"""Syntax of each kind of fault."""
_PARAMETERS: Final[Mapping[str, tuple[int, int]]] = {
    "silence": (2, 3),
    "unplug": (2, 3),
    "reset": (1, 1),
    "stall": (1, 1),
    "clock": (2, 2),
}
"""The fewest and the most of each timed fault."""


@dataclass(frozen=True, slots=True)
class Chance:
    """A fault that is rolled for."""

    kind: str
    probability: float


def parse(text: str) -> Chance | Timed:
    """Read one fault; raises ValueError that names what was wrong and what is allowed."""
    kind, _, rest = text.partition(":")
    if kind not in FORMS:
        raise ValueError(f"unknown fault {kind!r}; known: {', '.join(FORMS)}")
    try:
        return _chance(kind, rest) if kind in CHANCES else _timed(kind, rest)
    except ValueError as error:
        raise ValueError(f"fault {text!r}: {error}; allowed: {FORMS[kind]}") from None


def _chance(kind: str, rest: str) -> Chance:
    if not rest:
        return Chance(kind, CHANCES[kind])
    probability = _number(rest)
    if not 0 <= probability <= 1:
        raise ValueError(f"probability {rest} is not between 0 and 1")
    return Chance(kind, probability)


def _timed(kind: str, rest: str) -> Timed:
    parts = rest.split(",", 2) if rest else []
    fewest, most = _PARAMETERS.get(kind, (0, 1))
    if not fewest <= len(parts) <= most:
        raise ValueError(f"{len(parts)} parameters")
    if kind == "unplug":
        return Unplug(_not_negative(parts[0]), _not_negative(parts[1]), *parts[2:])
    if kind in ("reset", "stall"):
        return (Reset if kind == "reset" else Stall)(_not_negative(parts[0]))
    if kind == "clock":
        return ClockJump(_not_negative(parts[0]), _number(parts[1]))
    if kind == "silence":
        silence = Silence(*map(_not_negative, parts))
        if silence.every_s is not None and silence.every_s <= silence.for_s:
            raise ValueError("EVERY is not longer than SECONDS")
        return silence
    return UnsetClock(*map(_not_negative, parts))


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not abs(number) < float("inf"):
        raise ValueError(f"{text!r} is not finite")
    return number


def _not_negative(text: str) -> float:
    number = _number(text)
    if number < 0:
        raise ValueError(f"{text} is negative")
    return number
