"""The one distribution, as it follows from the folders; nothing is built."""

from __future__ import annotations

import importlib.util
import tomllib
from typing import Any

import pytest

from raven_harness.stack import ROOT
from ravenbus import __version__, installed

SPEC = importlib.util.spec_from_file_location(
    "hooks", ROOT / "deploy" / "distribution" / "hooks.py"
)


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    assert SPEC
    assert SPEC.loader
    hooks = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(hooks)
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return hooks.metadata(ROOT, root["tool"]["hatch"]["metadata"]["hooks"]["custom"]["extras"])


def test_the_distribution_has_every_command_of_every_package(metadata):
    """Each starts at the launcher and is found by its name; the version is ours."""
    said = [
        tomllib.loads(path.read_text())["project"].get("scripts", {})
        for folder in ("libs", "services", "tools")
        for path in ROOT.glob(f"{folder}/*/pyproject.toml")
    ]
    commands = {name: function for one in said for name, function in one.items()}
    assert metadata["entry-points"][installed.GROUP] == commands
    assert metadata["scripts"] == dict.fromkeys(commands, "ravenbus.installed:main")
    assert metadata["version"] == __version__


def test_the_reader_needs_no_extra(metadata):
    """Drivers of databases and what serves pages come with their extras, all of them with `all`."""
    base, extras = metadata["dependencies"], metadata["optional-dependencies"]
    for folder in ("libs/ravenbus", "services/reader"):
        its = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        assert {*its["dependencies"]} - {"ravenbus"} <= {*base}
    for extra, project in (
        ("mysql", "pymysql>=1.2"),
        ("mongo", "pymongo"),
        ("dashboard", "uvicorn"),
    ):
        assert project in extras[extra]
        assert project in extras["all"]
        assert project not in base
    ours = {path.parent.name for path in ROOT.glob("*/*/pyproject.toml")}
    assert not ours & {*base, *extras["all"]}


@pytest.mark.parametrize(
    ("module", "extra"),
    [("pymysql", "mysql"), ("bson", "mongo"), ("uvicorn", "dashboard"), ("ravenbus", None)],
)
def test_a_missing_module_is_said_with_the_extra_that_brings_it(metadata, module, extra):
    """By the name of the smallest extra; a module that no extra brings is a fault of ours."""
    requirements = [
        f"{project}; extra == '{name}'"
        for name, projects in metadata["optional-dependencies"].items()
        for project in projects
    ]
    assert installed.extra_of(module, requirements) == extra
