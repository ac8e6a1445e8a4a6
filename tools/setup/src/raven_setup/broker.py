"""Mosquitto's accounts and settings on this machine (pure)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Final

from raven_setup.accounts import commanding, password_line

RIVALS: Final = (
    "password_file",
    "acl_file",
    "plugin",
    "auth_plugin",
    "allow_anonymous",
    "per_listener_settings",
)
"""Settings of Mosquitto that say who is let in."""


def passwords(text: str, accounts: Mapping[str, str]) -> str:
    """Return a password file with these accounts; others stay, and so does a line that is right."""
    lines = {line.partition(":")[0]: line for line in text.splitlines()}
    for account, password in accounts.items():
        if not _is_right(lines.get(account, ""), account, password):
            lines[account] = password_line(account, password)
    return "".join(f"{line}\n" for line in lines.values())


def access_list(text: str, node: str) -> str:
    """Return the access list, by which Home Assistant may command this home."""
    return text + commanding([node])


def rivals(texts: Mapping[str, str]) -> Iterator[str]:
    """Yield each setting of the broker's other files that says who is let in, with its file."""
    for file, text in texts.items():
        for line in text.splitlines():
            if line.split() and line.split()[0] in RIVALS:
                yield f"{line.split()[0]} in {file}"


def _is_right(line: str, account: str, password: str) -> bool:
    try:
        salt = base64.b64decode(line.split("$")[3])
    except (IndexError, binascii.Error):
        return False
    return line == password_line(account, password, salt)
