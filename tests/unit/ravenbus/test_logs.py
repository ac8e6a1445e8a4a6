"""Log lines: one for each event, whatever it is about."""

from __future__ import annotations

import json
import logging

import pytest

from ravenbus import logs

ODD = [
    "a\nb",
    "a\r\n2026-01-01T00:00:00.000Z info    reader: forged",
    "\x1b[2Jgone",
    "\x9b31m",  # the same to a terminal of 8 bits
    "\u202eesrever",
    "a\u2028b",
    "a\x85b",
    'a" b=c',
    "",
    "\udcff",  # a byte of a path that is not UTF-8
    "\U0001f50c Zähler",
]


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("text", ODD)
def test_a_value_stays_in_its_place(text: str, style: str, capsys: pytest.CaptureFixture[str]):
    """One printable line, from which the value can be read back, cannot be ended by it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure("reader", "info", style)
        logging.getLogger("x").warning("event", extra={"reason": text, "then": 1})
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    (line,) = capsys.readouterr().err.split("\n")[:-1]
    assert line.isprintable()
    if style == "json":
        assert json.loads(line)["reason"] == text
        return
    head, said = line.split(" reason=", 1)
    assert head.endswith(" warning reader: event")
    value, end = json.JSONDecoder().raw_decode(said)
    assert (value, said[end:]) == (text, " then=1")
