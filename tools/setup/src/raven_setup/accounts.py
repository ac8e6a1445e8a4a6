"""Accounts of the broker and of MySQL: what they are called, what they may, how they are made.

The container that makes credentials has a copy, beside the standard library alone.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Final

BROKER_ACCOUNTS: Final = (
    "mongo-recorder",
    "sql-writer",
    "dashboard",
    "verify",
    "watcher",
    "home-assistant",
    "health",
)
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

WRITER_RIGHTS: Final = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, CREATE VIEW, SHOW VIEW, LOCK TABLES"
RELAY_RIGHTS: Final = {
    **dict.fromkeys(
        (
            "instantaneous_demand",
            "current_summation_delivered",
            "price_cluster",
            "notification",
        ),
        "CREATE, UPDATE",
    ),
    **dict.fromkeys(("relay", "relay_run", "relay_store", "dead_letter"), "CREATE, INSERT, UPDATE"),
    "relay_waiting": "CREATE, INSERT, UPDATE, DELETE",
}
"""The marks of readings that are sent, and its own tables.

Without CREATE MySQL refuses rights on a table that is to come.
"""
MYSQL_RIGHTS: Final = {
    "sql-writer": {"*": WRITER_RIGHTS},
    "sql-relay": {"*": "SELECT", **RELAY_RIGHTS},
    "dashboard": {"*": "SELECT"},
    "verify": {"*": "SELECT", "dead_letter": "CREATE, DELETE"},
    "analyst": {"*": "SELECT"},
}
"""What each account of MySQL may, by table of the database ``raven``."""


def made_password() -> str:
    """Return a new password."""
    return secrets.token_urlsafe(24)


def made_node() -> str:
    """Return a new name of a home."""
    return f"home-{secrets.token_hex(3)}"


def checked(name: str) -> str:
    """Return the name of a home or of an account; raise ValueError if it cannot be one."""
    if not NAME.fullmatch(name) or name in ("dead", "gone"):
        raise ValueError(
            f"{name!r}: allowed is 1 to 64 letters, digits, _ or -, but not dead or gone"
        )
    return name


def password_line(account: str, password: str, salt: bytes = b"") -> str:
    """Return a line of Mosquitto's password file, with a new salt if none is given."""
    rounds, salt = 1000, salt or secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"{account}:$7${rounds}${_base64(salt)}${_base64(digest)}"


def commanding(nodes: Iterable[str]) -> str:
    """Return the lines of the access list by which home-assistant may command homes."""
    return "".join(f"topic write raven/v1/{checked(node)}/command\n" for node in nodes)


def mysql_account(account: str, host: str, password: str) -> Iterator[str]:
    """Yield the statements after which MySQL has an account with this password."""
    user, text = f"'{account}'@'{host}'", _sql(password)
    yield f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY {text};"
    yield f"ALTER USER {user} IDENTIFIED BY {text};"


def mysql_grants(account: str, host: str) -> Iterator[str]:
    """Yield the statements that give one of our accounts of MySQL what it may."""
    for table, rights in MYSQL_RIGHTS[account].items():
        yield f"GRANT {rights} ON raven.{table} TO '{account}'@'{host}';"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _sql(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
