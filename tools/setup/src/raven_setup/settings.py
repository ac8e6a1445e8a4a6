"""Files of settings, as systemd and a shell read them: what is there and is not ours stays (pure)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping


def parse(text: str) -> dict[str, str]:
    """Return the variables that a file sets."""
    found = {}
    for line in text.splitlines():
        name, is_set, value = line.partition("=")
        if is_set and not line.lstrip().startswith(("#", ";")):
            try:
                found[name.strip()] = _unquoted(value.strip())
            except ValueError:
                found[name.strip()] = value.strip()
    return found


def merged(text: str, wanted: Mapping[str, str | None]) -> str:
    """Return a file's text with these values; None takes a variable out.

    A line that says the same already, and every other line, stays as it is.
    """
    found = parse(text)
    lines = []
    for line in text.splitlines():
        name = line.partition("=")[0].strip()
        if name not in wanted or wanted[name] == found.get(name):
            lines.append(line)
        elif (value := wanted[name]) is not None:
            lines.append(f"{name}={shlex.quote(value)}")
    lines += [
        f"{name}={shlex.quote(value)}"
        for name, value in wanted.items()
        if value is not None and name not in found
    ]
    return "\n".join(lines) + "\n"


def _unquoted(value: str) -> str:
    """Return a value without its quotes; blanks stand for themselves, as systemd has it."""
    lexer = shlex.shlex(value, posix=True)
    lexer.commenters = lexer.whitespace = ""
    lexer.whitespace_split = True
    return "".join(lexer)
