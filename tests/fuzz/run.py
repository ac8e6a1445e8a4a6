"""Fuzzes every target: ``python -m tests.fuzz.run SECONDS``, which the targets share.

What a run learns stays in ``.fuzz`` for the next one; ``--keep`` takes the smallest inputs that
reach all of it into ``corpus``, which `make test` gives to the targets.  A finding is kept in
``.fuzz/findings``, and the status is 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.fuzz import targets

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
CORPUS: Final = HERE / "corpus"
WORK: Final = ROOT / ".fuzz"
FINDINGS: Final = WORK / "findings"
LOCK: Final = HERE / "requirements.txt"
PROGRESS: Final = re.compile(r"#\d+\s+(NEW|REDUCE|RELOAD|pulse)|INFO|WARNING|MERGE|.* # Uses|#{6}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=int)
    parser.add_argument("--keep", action="store_true", help="rewrite the corpus")
    arguments = parser.parse_args()
    if platform.machine() != "x86_64":
        print("nothing is fuzzed: atheris has wheels for x86-64 only; `make test` has the corpus")
        return 0
    _install()
    FINDINGS.mkdir(exist_ok=True)
    return max([_fuzz(name, arguments) for name in targets.TARGETS])


def _install() -> None:
    """Put atheris beside the project's own packages, unless it is the one of the lock."""
    packages, stamp = WORK / "packages", WORK / "lock"
    if stamp.exists() and stamp.read_bytes() == LOCK.read_bytes():
        return
    shutil.rmtree(packages, ignore_errors=True)
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--only-binary"]
    uv += [":all:", "--python", sys.executable, "--target", str(packages), "--require-hashes"]
    subprocess.run([*uv, "-r", str(LOCK)], check=True)
    stamp.write_bytes(LOCK.read_bytes())


def _fuzz(name: str, arguments: argparse.Namespace) -> int:
    known, kept, seeds = WORK / name, CORPUS / name, WORK / f"{name}-seeds"
    for folder in (known, seeds):
        folder.mkdir(exist_ok=True)
    for number, seed in enumerate(targets.seeds(name)):
        (seeds / str(number)).write_bytes(seed)
    words = WORK / f"{name}.dict"
    escaped = ("".join(f"\\x{b:02x}" for b in one.encode()) for one in targets.words(name))
    words.write_text("".join(f'"{one}"\n' for one in sorted(escaped)))

    seconds = arguments.seconds // len(targets.TARGETS)
    options = [f"-max_total_time={seconds}", f"-dict={words}", "-print_final_stats=1"]
    options += [f"-artifact_prefix={FINDINGS}/{name}-"]
    print(f"{name}: {seconds} s", flush=True)
    before = set(FINDINGS.iterdir())
    status = _libfuzzer(name, *options, known, kept, seeds)
    for found in sorted(set(FINDINGS.iterdir()) - before):
        print(f"{name}: found {found}; it fails again with")
        print(f"  .venv/bin/python -m tests.fuzz.targets {name} {found}")
    if not status and arguments.keep:
        smallest = WORK / f"{name}-smallest"
        shutil.rmtree(smallest, ignore_errors=True)
        smallest.mkdir()
        status = _libfuzzer(name, "-set_cover_merge=1", smallest, kept, seeds, known)
        shutil.rmtree(kept)
        shutil.copytree(smallest, kept)
    return 1 if status else 0


def _libfuzzer(name: str, *arguments: str | Path) -> int:
    """Run libFuzzer, print what it says but its progress, and return its status."""
    env = os.environ | {"PYTHONPATH": f"{WORK / 'packages'}:{ROOT}", "FUZZ_TARGET": name}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    command = [str(HERE / "harness.py"), *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            if not PROGRESS.match(line):
                print(f"  {line}", end="", flush=True)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
