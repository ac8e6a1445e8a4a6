"""Puts the one distribution together from what the folders' own pyproject.toml say.

hatchling calls both hooks while it builds the root of the repository, or a sdist of it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

FOLDERS: Final = ("libs", "services", "tools")
LAUNCHER: Final = "ravenbus.installed:main"
COMMANDS: Final = "python_raven"
"""The group of entry points that says which function a command is."""


def projects(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each package's folder and what it says of itself as a project."""
    for folder in FOLDERS:
        for file in sorted(root.glob(f"{folder}/*/pyproject.toml")):
            yield file.parent, tomllib.loads(file.read_text("utf-8"))["project"]


def metadata(root: Path, packages_of_extras: Mapping[str, str]) -> dict[str, Any]:
    """Return what follows from the packages for the distribution."""
    found = {project["name"]: project for _, project in projects(root)}
    extras = {
        extra: found[package]["dependencies"] for extra, package in packages_of_extras.items()
    }
    always = found.keys() | {*found["ravenbus"]["dependencies"]}
    extras = {extra: sorted({*needed} - always) for extra, needed in extras.items()}
    extras["all"] = sorted({one for needed in extras.values() for one in needed})
    base = {one for project in found.values() for one in project["dependencies"]}
    commands = {
        name: function
        for project in found.values()
        for name, function in project.get("scripts", {}).items()
    }
    for project in found.values():
        extras |= project.get("optional-dependencies", {})
    return {
        "version": found["ravenbus"]["version"],
        "dependencies": sorted(base - found.keys() - {*extras["all"]}),
        "optional-dependencies": extras,
        "scripts": dict.fromkeys(commands, LAUNCHER),
        "entry-points": {COMMANDS: commands},
    }


class Metadata(MetadataHookInterface):
    """Says version, dependencies and commands."""

    def update(self, metadata_: dict[str, Any]) -> None:
        """Complete the table ``project``."""
        metadata_.update(metadata(Path(self.root), self.config["extras"]))


class Wheel(BuildHookInterface[Any]):
    """Says which folders are in the wheel."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Put each package at the top of the wheel."""
        for folder, _ in projects(Path(self.root)):
            for package in (folder / "src").iterdir():
                if package.suffix != ".egg-info":
                    build_data["force_include"][str(package)] = package.name
