"""Which servers are refused, by what they say of themselves; no server."""

from __future__ import annotations

import pytest

from ravensql.server import too_old, unfit


@pytest.mark.parametrize(
    ("version", "comment", "refused"),
    [
        ("8.4.0", "MySQL Community Server - GPL", False),
        ("8.4.6-6", "Percona Server (GPL), Release 6", False),
        ("9.7.4", "(Debian)", False),
        ("8.0.43-0ubuntu0.24.04.1", "(Ubuntu)", True),
        ("5.7.44-log", "MySQL Community Server (GPL)", True),
        ("5.7.mysql_aurora.2.11.5", "Source distribution", True),
        ("10.11.19-MariaDB-0+deb12u1", "Debian 12", False),
        ("5.5.5-10.11.6-MariaDB-log", "Debian 12", False),
        ("11.8.3-MariaDB-1", "Debian", False),
        ("12.0.2", "mariadb.org binary distribution", False),
        ("10.6.22-MariaDB-0ubuntu0.22.04.1", "Ubuntu 22.04", True),
        ("5.5.5-10.3.39-MariaDB", "Debian 10", True),
        ("5.5.68-MariaDB", "MariaDB Server", True),
        ("unknown", "", False),
    ],
)
def test_an_older_server_is_refused_by_name(version, comment, refused):
    """MySQL before 8.4 and MariaDB before 10.11 are named, with what is needed instead."""
    problem = too_old(version, comment)
    assert bool(problem) == refused
    if problem:
        assert version in problem
        assert "8.4 or newer" in problem or "10.11 or newer" in problem


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"sql_require_primary_key": "ON"}, "SET GLOBAL sql_require_primary_key = OFF"),
        ({"innodb_force_primary_key": "ON"}, "SET GLOBAL innodb_force_primary_key = OFF"),
        ({"log_bin": "ON", "binlog_format": "STATEMENT"}, "SET GLOBAL binlog_format = ROW"),
        ({"log_bin": "OFF", "binlog_format": "STATEMENT"}, None),
        ({"log_bin": "ON", "binlog_format": "MIXED", "sql_require_primary_key": "OFF"}, None),
        ({"log_bin": "ON"}, None),
        ({}, None),
    ],
)
def test_a_setting_that_keeps_tables_out_says_what_to_do(variables, says):
    """What the server is set to is named with the statement that mends it."""
    problem = unfit(variables)
    assert (says in problem) if says else problem is None
