"""Lines on standard input that steer the simulator while it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from raven_simulator import orders

FORMS: Final = (
    "unplug",
    "replug [LINK]",
    "reset",
    "stall",
    "silence on|off",
    "clock SECONDS",
    "send RAWTEXT",
    "fault KIND:P",
    "stop",
)
"""The lines that are understood; @N before one means device N only."""

_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
_ESCAPES: Final = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Order:
    """A control line: what to do, with what, and to which device (None: all)."""

    verb: str
    argument: str | float | bytes | bool | orders.Chance | None = None
    device: int | None = None


def parse(line: str) -> Order:
    """Read a control line; raises ValueError that names what was wrong and what is allowed."""
    device, line = _addressed(line.strip("\r\n"))
    verb, _, rest = line.strip(" ").partition(" ")
    if verb in ("unplug", "reset", "stall", "stop") and not rest:
        return Order(verb, None, device)
    if verb == "replug":
        return Order(verb, rest or None, device)
    if verb == "silence" and rest in ("on", "off"):
        return Order(verb, rest == "on", device)
    if verb == "clock":
        try:
            return Order(verb, float(rest), device)
        except ValueError:
            raise ValueError(f"clock needs a number of seconds, not {rest!r}") from None
    if verb == "send" and rest:
        return Order(verb, unescape(rest), device)
    if verb == "fault":
        chance = orders.parse(rest)
        if not isinstance(chance, orders.Chance):
            raise ValueError(f"fault {rest!r} cannot be ordered at run time")
        return Order(verb, chance, device)
    raise ValueError(f"cannot do {line!r}; allowed: {', '.join(FORMS)}")


def unescape(text: str) -> bytes:
    r"""Bytes of a text in which \r, \n, \t, \0, \\ and \xNN stand for one byte each; raises ValueError."""

    def byte(found: re.Match[str]) -> str:
        name = found[1]
        if len(name) > 1:
            return chr(int(name[1:], 16))
        if name not in _ESCAPES:
            raise ValueError(f"unknown escape \\{name}; allowed: \\r \\n \\t \\0 \\\\ \\xNN")
        return _ESCAPES[name]

    return _ESCAPE.sub(byte, text).encode("latin-1", "replace")


def _addressed(line: str) -> tuple[int | None, str]:
    if not line.startswith("@"):
        return None, line
    number, _, rest = line[1:].partition(" ")
    if not number.isdecimal():
        raise ValueError(f"@{number} is not @ and a device's number")
    return int(number), rest
