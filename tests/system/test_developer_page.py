"""The lines of docs/developer.md, typed into one terminal."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

from raven_harness.stack import BIN, wait_until
from tests.pages import typed

SAID = {
    "From bytes to readings": r'"demand_kw":\d(?s:.)*\nread \d+ bytes: \d+ whole fragments(?s:.)*rejected 0',
    "The topics": r'(raven/v1/house/latest/\w+ \{.*\n){3}(?s:.)*"sent":true',
    "The API": r'data: \{.*"kw":\d',
    "A file for pandas": r"readings of \d runs from MongoDB\ntime_utc,",
    "Is anything missing?": r"accepted +\d+  by the reader's spool",
}
"""What its reader sees under each heading."""
CALM_S = 3.0


def calm(folder: Path) -> bool:
    """Say whether the page's services are connected and say no more: at first the reader reconnects."""
    (log,) = folder.glob("*/log")
    connected = re.findall(r"raven-(\S+): connected to the broker", log.read_text())
    silent_s = time.time() - log.stat().st_mtime
    return {"reader", "mongo-recorder"} <= set(connected) and silent_s > CALM_S


def test_every_line_works_as_typed(tmp_path: Path):
    """Each block in its order; the usual ports are free in a network of the terminal's own."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(BIN)
    log = tmp_path / "log"
    # What a terminal leaves running ends with it.
    apart = ["unshare", "--net", "--pid", "--kill-child"]
    apart += [] if os.geteuid() == 0 else ["--map-root-user"]
    with log.open("wb") as out:
        terminal = subprocess.Popen(
            [*apart, "bash", "-e"],
            cwd=tmp_path,
            env={"PATH": f"{os.environ['PATH']}:/usr/sbin", "TMPDIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
    keys = terminal.stdin
    assert keys

    def type_(line: str, ends: str) -> str:
        """Type a line, and return what is said until that which ends it."""
        began = len(log.read_text())
        keys.write(line + "\n")
        keys.flush()
        wait_until(
            lambda: ends in log.read_text()[began:] or terminal.poll() is not None,
            f"{ends}: {line}",
        )
        assert terminal.poll() is None, log.read_text()[-4000:]
        return log.read_text()[began:]

    try:
        type_("ip link set lo up && echo there", "there")
        said: dict[str, str] = {}
        for number, block in enumerate(typed("developer.md")):
            (tmp_path / f"{number}.sh").write_text(block.text)
            ends = "ready " if "raven-simulator" in block.text else f"end of {number}"
            line = f". {tmp_path}/{number}.sh </dev/null; echo end of {number}"
            said[block.heading] = said.get(block.heading, "") + type_(line, ends)
            if "raven-reader run" in block.text:
                # A person reads on before the next line.
                wait_until(lambda: calm(tmp_path), "all run")
    finally:
        terminal.kill()
        terminal.communicate()
    for heading, words in SAID.items():
        assert re.search(words, said[heading]), (heading, said[heading][-4000:])
