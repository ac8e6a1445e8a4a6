"""Checks that a server can hold the tables."""

from __future__ import annotations

import re
from typing import Final

from ravenbus.errors import FatalError
from ravensql.database import Cursor

OLDEST: Final = {"MariaDB": (10, 11), "MySQL": (8, 4)}
"""The oldest versions that the tests run on, or that are kept by their makers."""
_NUMBER: Final = re.compile(r"(\d+)\.(\d+)")
_REFUSED: Final = {
    "sql_require_primary_key": "the tables of python-raven are made before they get their keys",
    "innodb_force_primary_key": "the tables of python-raven are made before they get their keys",
}


def require_supported(cursor: Cursor) -> None:
    """Raise FatalError for a server that is too old, or set up so that it cannot hold our tables."""
    cursor.execute("SELECT VERSION(), @@version_comment")
    ((version, comment),) = cursor.fetchall()
    if problem := too_old(version, comment):
        raise FatalError(problem)
    cursor.execute(
        "SHOW VARIABLES WHERE variable_name IN "
        "('sql_require_primary_key', 'innodb_force_primary_key', 'log_bin', 'binlog_format')"
    )
    if problem := unfit({name.lower(): value for name, value in cursor.fetchall()}):
        raise FatalError(problem)


def is_galera(cursor: Cursor) -> bool:
    """Return whether the server is a node of a Galera cluster, whose named locks are its own."""
    cursor.execute("SHOW VARIABLES LIKE 'wsrep_on'")
    return any(value.upper() in ("ON", "1") for _, value in cursor.fetchall())


def too_old(version: str, comment: str) -> str | None:
    """Return what is wrong with a server's version, as ``VERSION()`` prints it; None if nothing.

    MariaDB tells old clients that it is 5.5.5; its own version follows.
    """
    name = "MariaDB" if "mariadb" in f"{version} {comment}".lower() else "MySQL"
    number = _NUMBER.match(version.removeprefix("5.5.5-"))
    if number and (int(number[1]), int(number[2])) < OLDEST[name]:
        oldest = ".".join(map(str, OLDEST[name]))
        return f"the server is {name} {version}: needed is {name} {oldest} or newer"
    return None


def unfit(variables: dict[str, str]) -> str | None:
    """Return which of a server's variables keeps our tables out, and what to do; None if none."""
    for name, why in _REFUSED.items():
        if variables.get(name, "OFF").upper() in ("ON", "1"):
            return (
                f"the server has {name} = ON, and {why}: SET GLOBAL {name} = OFF, then start again"
            )
    logged = variables.get("log_bin", "OFF").upper() in ("ON", "1")
    if logged and variables.get("binlog_format", "").upper() == "STATEMENT":
        return (
            "the server has binlog_format = STATEMENT, which cannot log what is written under "
            "READ COMMITTED: SET GLOBAL binlog_format = ROW (or MIXED), then start again"
        )
    return None
