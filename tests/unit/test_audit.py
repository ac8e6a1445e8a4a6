"""What `make check` makes of the answers about known vulnerabilities."""

from __future__ import annotations

import json

from raven_harness import audit


def answer(*packages: dict) -> list[audit.Package]:
    """Return the packages as pip-audit would print them."""
    return audit.read(json.dumps({"dependencies": packages, "fixes": []}).encode())


UNKNOWN = {"name": "anyio", "skip_reason": "Dependency not found"}
CLEAN = {"name": "h11", "version": "0.16.0", "vulns": []}


def vulnerable(*fixed_in: str) -> dict:
    """Return a package of which something is known."""
    vulns = [{"id": "PYSEC-1", "fix_versions": fixed_in, "aliases": ["CVE-1"], "description": "…"}]
    return {"name": "click", "version": "8.5.1", "vulns": vulns}


def test_a_registry_without_answers_fails_nothing():
    """One line says that nothing was looked up, whether it knew no package or was not reached."""
    for packages in (answer(UNKNOWN, UNKNOWN), audit.read(b"")):
        status, (line,) = audit.verdict(packages)
        assert status == 0
        assert "passed over" in line


def test_packages_of_which_nothing_is_known_are_counted():
    """Clean is said of those alone that were looked up."""
    status, (line,) = audit.verdict(answer(CLEAN, UNKNOWN))
    assert status == 0
    assert "nothing of 1 of 2" in line


def test_a_vulnerability_fails_and_says_what_to_do():
    """By a version that mends it, where there is one."""
    status, (line,) = audit.verdict(answer(UNKNOWN, vulnerable("8.5.2", "9.0.0")))
    assert status == 1
    assert line == "audit: click 8.5.1 has PYSEC-1: `make lock` takes 8.5.2 or 9.0.0"
    status, (line,) = audit.verdict(answer(vulnerable()))
    assert status == 1
    assert "no version mends it" in line


def test_what_is_accepted_with_a_reason_does_not_fail(monkeypatch):
    """All that was looked up being clean otherwise, nothing is said."""
    monkeypatch.setattr(audit, "ACCEPTED", {"PYSEC-1": "we do not parse command lines of others"})
    assert audit.verdict(answer(CLEAN, vulnerable())) == (0, [])
