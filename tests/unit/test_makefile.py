"""What the Makefile does with a machine that lacks something; nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_make_ends_where_debian_does_not_give_what_is_needed(tmp_path: Path):
    """Its answer is the last thing that is said, and not what comes of the lack."""
    make = shutil.which("make")
    assert make
    (tmp_path / "id").symlink_to("/usr/bin/id")
    for name in ("apt-get", "sudo"):
        (tmp_path / name).write_text("#!/bin/sh\necho no network >&2\nexit 100\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [make, "--no-print-directory", "-f", ROOT / "Makefile", "system-browser"],
        env={**os.environ, "PATH": str(tmp_path), "MAKEFLAGS": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "installing from Debian: chromium" in done.stdout
    assert "no network" in done.stderr
    assert done.returncode == 2
