"""Builds what a release consists of into dist/: wheel, sdist, images, SBOMs and checksums.

It refuses what the changelog does not name with its day, a tree that has uncommitted changes, a
tag that has other contents, and files that say different versions.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from raven_harness.stack import ROOT

PLATFORMS: Final = "linux/amd64,linux/arm64"


class Target(msgspec.Struct, frozen=True):
    """An image, as `docker buildx bake --print` says how it is built."""

    tags: list[str]
    args: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Return it without registry and version, `raven-reader`."""
        return self.tags[0].rpartition("/")[2].partition(":")[0]


class Plan(msgspec.Struct, frozen=True):
    """All images, by the names of their services."""

    target: dict[str, Target]


class Built(msgspec.Struct, frozen=True):
    """What buildx says of an image that it built for all platforms."""

    digest: str = msgspec.field(name="containerimage.digest")


def main() -> int:
    """Build a release, or say why not; return the exit status."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("--push", metavar="REGISTRY/OWNER", help="send the images there instead")
    registry = parser.parse_args().push
    problems = refusals(ROOT)
    for problem in problems:
        print(f"release: {problem}", file=sys.stderr)
    if problems:
        return 1
    try:
        build(ROOT, version(ROOT), registry)
    except subprocess.CalledProcessError as error:
        print(f"release: stopped by {' '.join(error.cmd[:3])}", file=sys.stderr)
        return 1
    return 0


def version(root: Path) -> str:
    """Return the version of a tree, which every command of ours says."""
    return _found(root / "libs/ravenbus/src/ravenbus/__init__.py", r'__version__ = "(.+)"')[0]


def versions(root: Path) -> dict[str, set[str]]:
    """Return the versions that each file of a tree says, by its path."""
    said: dict[str, set[str]] = {}
    for path in sorted([*root.glob("*/*/pyproject.toml"), *root.glob("*/pyproject.toml")]):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        said[str(path.relative_to(root))] = {project["version"]}
    for name in ("docker-compose.yml", "deploy/stack.yml"):
        said[name] = set(_found(root / name, r"image: \S+/raven-[\w-]+:(\S+)"))
    return said


def refusals(root: Path) -> list[str]:
    """Return why what is in a work tree of git must not be released."""
    wanted = version(root)
    problems = [
        f"{name} says {' and '.join(sorted(said))}, and ravenbus {wanted}"
        for name, said in versions(root).items()
        if said != {wanted}
    ]
    heading = rf"^## {re.escape(wanted)}, \d{{4}}-\d\d-\d\d$"
    if not _found(root / "CHANGELOG.md", heading):
        problems.append(f"CHANGELOG.md has no `## {wanted}, YYYY-MM-DD`")
    if _git(root, "status", "--porcelain"):
        problems.append("there are changes that are not committed: `git status`")
    tagged = _git(root, "tag", "--list", f"v{wanted}", "--format=%(tree)%(*tree)")
    if tagged and tagged != _git(root, "rev-parse", "HEAD^{tree}"):
        problems.append(f"the tag v{wanted} has other contents: take the next version")
    return problems


def build(root: Path, version: str, registry: str | None) -> None:
    """Make everything anew in dist/; raise CalledProcessError where a program fails."""
    environ = {
        **os.environ,
        "SOURCE_DATE_EPOCH": _git(root, "log", "-1", "--format=%ct"),
        "RAVEN_IMAGES": registry or "localhost",
    }
    run = partial(subprocess.run, cwd=root, env=environ, check=True)
    run(["make", "--no-print-directory", "dist"])
    dist = root / "dist"
    bake = ["docker", "buildx", "bake"]
    plan = run([*bake, "--print"], stdout=subprocess.PIPE).stdout
    targets = msgspec.json.decode(plan, type=Plan).target
    for name, lock in contents(targets.values()).items():
        with tempfile.NamedTemporaryFile("w") as project:
            print(f"[project]\nname='{name}'\nversion='{version}'", file=project, flush=True)
            write = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements"]
            bill = f"dist/{name}-{version}.cdx.json"
            run([*write, "--output-reproducible", "--pyproject", project.name, "-o", bill, lock])
    lines = []
    # One after the other: a small machine that packs all at once is given up by BuildKit.
    for service, target in targets.items():
        archive = f"dist/{target.name}-{version}.oci.tar"
        output = "--push" if registry else f"--set=*.output=type=oci,dest={archive}"
        with tempfile.NamedTemporaryFile() as said:
            options = [f"--metadata-file={said.name}", f"--set=*.platform={PLATFORMS}", output]
            run([*bake, *options, service])
            built = msgspec.json.decode(Path(said.name).read_bytes(), type=dict[str, Built])
        lines.append(f"{target.tags[0]}@{built[service].digest}\n")
    (dist / "images.txt").write_text("".join(sorted(lines)), encoding="ascii")
    checksums(dist)
    print(f"release: {version} is in dist/", file=sys.stderr)


def contents(targets: Iterable[Target]) -> dict[str, str]:
    """Return the lock of each thing that has packages of others, by its name.

    The image of the credentials has none; its program needs Python alone.
    """
    services = {target.name: target.args.get("SERVICE") for target in targets}
    return {"python-raven": "dist/constraints.txt"} | {
        name: f"requirements/{service}.txt" for name, service in services.items() if service
    }


def checksums(folder: Path) -> None:
    """Write the SHA-256 of each file there into SHA256SUMS, as `sha256sum -c` reads it."""
    lines = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="ascii")


def _found(path: Path, pattern: str) -> list[str]:
    return re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
