"""The page of what others made that is in the images, and under which licences."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageMetadata, metadata
from pathlib import Path


def rows(root: Path) -> Iterable[tuple[str, str, str, str]]:
    """Return name, version, licence and images of each package that an image's lock names.

    The licence is what the package that is installed here says of itself.
    """
    images: dict[tuple[str, str], list[str]] = {}
    compose = (root / "docker-compose.yml").read_text(encoding="utf-8")
    for image in re.findall(r"SERVICE: ([\w-]+)", compose):
        lock = root / "requirements" / f"{image}.txt"
        for one in locked(lock.read_text(encoding="utf-8")):
            images.setdefault(one, []).append(image)
    for (name, version), found in sorted(images.items()):
        yield name, version, licence(metadata(name)), ", ".join(found)


def locked(text: str) -> list[tuple[str, str]]:
    """Return name and version of each package that a lock names."""
    return re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)


def licence(said: PackageMetadata) -> str:
    """Return a package's licence: the expression, or where it has none the older fields."""
    classifiers = [one.rpartition(" :: ") for one in said.get_all("Classifier", [])]
    found = [
        *said.get_all("License-Expression", []),
        *(one for one in said.get_all("License", []) if "\n" not in one),
        *(name for kind, _, name in classifiers if kind.startswith("License")),
    ]
    return str(found[0])
