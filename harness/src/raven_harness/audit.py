"""Asks the package registry which known vulnerabilities the locked packages have.

A registry that does not answer is no reason to fail; a vulnerability is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from raven_harness.stack import ROOT

FEW: Final = ("requirements/build.txt",)
"""Asked first: a mirror without such answers takes its time to say so of each package."""

ALL: Final = (
    "requirements/dev.txt",  # which has the versions of the images too
    "requirements/release.txt",
    "bench/peers.txt",
    "tests/fuzz/requirements.txt",
)

ACCEPTED: Final[dict[str, str]] = {}
"""Vulnerabilities that do not touch us, by id, with the reason."""


class Vulnerability(msgspec.Struct, frozen=True):
    """One that is known of a version."""

    id: str
    fix_versions: list[str] = []


class Package(msgspec.Struct, frozen=True):
    """What was answered of a package; one of which nothing is known has no version."""

    name: str
    version: str | None = None
    vulns: list[Vulnerability] = []


class Answer(msgspec.Struct, frozen=True):
    """What pip-audit prints."""

    dependencies: list[Package]


def main() -> int:
    """Look up a few packages, then all where that was answered; return the exit status."""
    packages = _ask(FEW)
    if any(package.version for package in packages):
        packages = _ask(ALL)
    status, lines = verdict(packages)
    for line in lines:
        print(line, file=sys.stderr)
    return status


def read(said: bytes) -> list[Package]:
    """Return the packages in pip-audit's output; where it got no answer it prints none."""
    try:
        return msgspec.json.decode(said, type=Answer).dependencies
    except msgspec.DecodeError:
        return []


def verdict(packages: list[Package]) -> tuple[int, list[str]]:
    """Return the exit status and what there is to say; where all is well, nothing."""
    known = [package for package in packages if package.version is not None]
    found = [
        f"audit: {package.name} {package.version} has {one.id}: {_what_to_do(one)}"
        for package in known
        for one in package.vulns
        if one.id not in ACCEPTED
    ]
    if found:
        return 1, found
    if not known:
        return 0, ["audit: passed over, the package registry does not say what is vulnerable"]
    if len(known) < len(packages):
        unknown = len(packages) - len(known)
        return 0, [f"audit: the package registry knows nothing of {unknown} of {len(packages)}"]
    return 0, []


def _what_to_do(one: Vulnerability) -> str:
    if one.fix_versions:
        return f"`make lock` takes {' or '.join(one.fix_versions)}"
    return "no version mends it; do without, or say in ACCEPTED why it does not touch us"


def _ask(locks: tuple[str, ...]) -> list[Package]:
    files = [word for lock in locks for word in ("--requirement", lock)]
    options = ["--disable-pip", "--require-hashes", "--format=json", "--progress-spinner=off"]
    program = str(Path(sys.executable).with_name("pip-audit"))
    done = subprocess.run([program, *options, *files], cwd=ROOT, capture_output=True, check=False)
    return read(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
