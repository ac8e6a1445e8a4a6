"""Projects and sticks that are taken away after the test, whatever became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compose.project import Project, Stick


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Make projects."""
    made: list[Project] = []

    def make(**env: str) -> Project:
        made.append(Project(tmp_path / f"home{len(made)}", **env))
        return made[-1]

    yield make
    for one in made:
        one.down()


@pytest.fixture
def stick() -> Iterator[Callable[..., Stick]]:
    """Make simulated sticks."""
    made: list[Stick] = []

    def make(rate: float = 10, path: str = "") -> Stick:
        made.append(Stick(rate, path))
        return made[-1]

    yield make
    for one in made:
        one.end()
