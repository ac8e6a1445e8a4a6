"""The commands of the distribution python-raven, each of which says which extra it lacks.

In the distribution every command starts here; which function it is stands in the entry points
of the group ``python_raven``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Final, cast

from ravenbus.service import EXIT_SETTINGS

DISTRIBUTION: Final = "python-raven"
GROUP: Final = "python_raven"


def main() -> int:
    """Run the command that this process is called; return its exit status."""
    name = Path(sys.argv[0]).name
    installed = distribution(DISTRIBUTION)
    (command,) = installed.entry_points.select(group=GROUP, name=name)
    try:
        return cast("Callable[[], int]", command.load())()
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = extra_of(module, installed.requires or [])
        if extra is None:
            raise
        print(  # noqa: T201
            f"{name}: {module} is not installed, which comes with the extra {extra}: "
            f"pipx install --force 'python_raven-{installed.version}-py3-none-any.whl[{extra}]'",
            file=sys.stderr,
        )
        return EXIT_SETTINGS


def extra_of(module: str, requirements: Iterable[str]) -> str | None:
    """Return the extra that brings a module, or None if no extra does."""
    # Of what extras bring, only this module has another name than its distribution.
    project = "pymongo" if module == "bson" else module
    for requirement in requirements:
        found = re.fullmatch(r"([\w.-]+).*; extra == ['\"]([\w-]+)['\"]", requirement)
        if found and found[1] == project and found[2] != "all":
            return found[2]
    return None
