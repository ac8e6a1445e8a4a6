"""The folder of credentials and settings: its files as they are, and back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from ravenbus import copies


def obstacles(saved: Path, folder: Path) -> list[str]:
    """Return the files that a copy back would replace by others."""
    return [
        str(name)
        for name in _names(saved)
        if (there := folder / name).exists() and there.read_bytes() != (saved / name).read_bytes()
    ]


def copy(source: Path, target: Path) -> int:
    """Copy the files of a folder into another, there or back; return how many there are.

    Each belongs then to whom its folder belongs, and others may do with it what they might.
    So it is with a folder that is made.
    """
    count = 0
    for name in _names(source):
        file = target / name
        if not file.parent.is_dir():
            file.parent.mkdir(parents=True)
            shutil.copymode((source / name).parent, file.parent)
        new = file.with_name(f".{file.name}.new")
        copies.copy(source / name, new)
        shutil.copymode(source / name, new)
        copies.give_as(file.parent, new)
        new.replace(file)
        count += 1
    copies.sync_names(target)
    return count


def _names(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder by their paths there; a link is no file of its own."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.is_symlink():
            yield file.relative_to(folder)
