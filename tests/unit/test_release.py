"""What `make release` refuses, and what of it can be built without an engine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from raven_harness import release
from raven_harness.stack import ROOT

VERSION = release.version(ROOT)
AUTHOR = ("-c", "user.name=me", "-c", "user.email=me@example.org")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a work tree of git with the files that say the version, ready to be released."""
    for name in [*release.versions(ROOT), "libs/ravenbus/src/ravenbus/__init__.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(f"# Changes\n\n## {VERSION}, 2026-12-01\n\n- All.\n")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    assert release.refusals(tmp_path) == []
    return tmp_path


def git(tree: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", tree, *AUTHOR, *arguments], check=True)


def commit(tree: Path) -> None:
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "All")


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_all_files_say_one_version():
    """Packages, and the images that Compose and Swarm name."""
    said = release.versions(ROOT)
    assert {"docker-compose.yml", "deploy/stack.yml", "harness/pyproject.toml"} <= said.keys()
    assert {name for name, found in said.items() if found != {VERSION}} == set()


@pytest.mark.parametrize("said", ["0.9.0, 2026-12-01", f"{VERSION}, not released yet", VERSION])
def test_a_version_that_the_changelog_does_not_name_with_its_day_is_refused(tree: Path, said: str):
    """What users read has to say what they get, and since when."""
    change(tree / "CHANGELOG.md", f"{VERSION}, 2026-12-01", said)
    commit(tree)
    assert release.refusals(tree) == [f"CHANGELOG.md has no `## {VERSION}, YYYY-MM-DD`"]


def test_changes_that_are_not_committed_are_refused(tree: Path):
    """Also files that git does not know; what it ignores may be there."""
    (tree / ".gitignore").write_text("dist/\n")
    commit(tree)
    (tree / "dist").mkdir()
    (tree / "dist" / "old.whl").touch()
    assert release.refusals(tree) == []
    (tree / "new").touch()
    assert release.refusals(tree) == ["there are changes that are not committed: `git status`"]


@pytest.mark.parametrize("kind", [(), ("--annotate", "--message", "Released")])
def test_a_tag_with_other_contents_is_refused(tree: Path, kind: tuple[str, ...]):
    """What was released stays what it was; the same contents may be built again."""
    git(tree, "tag", *kind, f"v{VERSION}")
    assert release.refusals(tree) == []
    (tree / "new").touch()
    commit(tree)
    refused = f"the tag v{VERSION} has other contents: take the next version"
    assert release.refusals(tree) == [refused]


@pytest.mark.parametrize("name", ["libs/ravensql/pyproject.toml", "docker-compose.yml"])
def test_files_that_say_different_versions_are_refused(tree: Path, name: str):
    """One image's tag, or one package, is enough."""
    text = (tree / name).read_text()
    (tree / name).write_text(text.replace(VERSION, "0.9.0", 1))
    commit(tree)
    (refused,) = release.refusals(tree)
    assert refused.startswith(f"{name} says 0.9.0")
    assert refused.endswith(f"and ravenbus {VERSION}")


def test_what_has_packages_of_others_gets_a_bill_of_materials():
    """By the lock that it is built from, whatever registry its name points to."""
    targets = [
        release.Target(tags=["localhost/raven-credentials:1.1.0"], args={"PYTHON": "python"}),
        release.Target(tags=["a.example:5000/o/raven-reader:1.1.0"], args={"SERVICE": "reader"}),
    ]
    assert release.contents(targets) == {
        "python-raven": "dist/constraints.txt",
        "raven-reader": "requirements/reader.txt",
    }


def test_checksums_are_such_as_sha256sum_checks(tmp_path: Path):
    """It takes them, and finds a file that was changed."""
    for name in ("a.whl", "b.oci.tar"):
        (tmp_path / name).write_text(name)
    release.checksums(tmp_path)
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "a.whl").write_text("other")
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 1


def test_images_are_pulled_from_nobody_who_was_not_named():
    """Every image of ours has a name on this machine, unless RAVEN_IMAGES says whose it is."""
    compose = (ROOT / "docker-compose.yml").read_text()
    ours = [
        line.split()[1] for line in compose.splitlines() if "/raven-" in line and "image:" in line
    ]
    assert len(ours) == compose.count("build: {") > 0
    assert {image.partition("/")[0] for image in ours} == {"${RAVEN_IMAGES:-localhost}"}
