"""What a reading costs the disk."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import system
from raven_harness import cuts, home, stack
from raven_harness.crash.system import new_broker
from ravensql.settings import MysqlUrl
from ravensql.sink import MysqlSink
from results import Row

READINGS: Final = 45
SPARING_S: Final = 30
"""The most that ``RAVEN_WRITE_EVERY_S`` may be."""
FIRST: Final = 5
"""Readings that come while parts are starting, and are not counted."""
PER_DAY: Final = 86_400 // 8
LAYERS: Final = {"state-bench": "reader", "broker": "broker", "mariadb": "MariaDB"}

TEXT: Final = f"""\
## Disk: what a reading costs it

A home at its real pace, {READINGS - FIRST} readings one by one, under strace: the reader's spool,
Mosquitto 2.1 with its SQLite persistence, and MariaDB with the writer before it.  A *sync* has the
disk keep what was written before anything goes on; *written* is what the programs write, of which a
file system makes more.  A day's are those of {PER_DAY:,} readings, one in 8 s.  Then the same with
`RAVEN_WRITE_EVERY_S={SPARING_S}`: the readings of half a minute are written together.
"""


def run() -> list[Row]:
    """Measure and return the rows."""
    return [*_rows(""), *_rows(f", every {SPARING_S} s", RAVEN_WRITE_EVERY_S=str(SPARING_S))]


def _rows(how: str, **settings: str) -> list[Row]:
    # MariaDB maps its journal into memory where its folder is on no disk.
    with TemporaryDirectory(prefix="raven-bench-", dir="/var/tmp") as made:
        recording = _recorded(Path(made), **settings)
    said = [
        number
        for number, one in enumerate(recording.operations)
        if isinstance(one, cuts.Said) and one.line.startswith("accepted")
    ]
    syncs, written = Counter[str](), Counter[str]()
    for one in recording.operations[said[FIRST] : said[-1]]:
        if isinstance(one, cuts.Synced | cuts.Written):
            layer = LAYERS.get(recording.paths.get(one.file, "").partition("/")[0], "")
            syncs[layer] += isinstance(one, cuts.Synced)
            written[layer] += len(one.data) if isinstance(one, cuts.Written) else 0
    count = len(said) - 1 - FIRST
    return [
        Row(
            f"disk: a reading, {layer}{how}",
            f"{syncs[layer] / count:.1f} syncs, {written[layer] / count / 1024:.1f} KiB written",
            f"a day: {syncs[layer] / count * PER_DAY:,.0f}, "
            f"{written[layer] / count * PER_DAY / 2**20:,.0f} MiB",
        )
        for layer in LAYERS.values()
    ]


def _recorded(folder: Path, **settings: str) -> cuts.Recording:
    disk = folder / "disk"
    disk.mkdir()
    # strace says of the kernel's own asynchronous writes only that they are.
    mariadb = stack.MariaDb(disk, "--innodb-use-native-aio=0")
    with system.started(mariadb):
        url = mariadb.database()
        with closing(MysqlSink(MysqlUrl(url))) as sink:
            sink.prepare()
    broker = new_broker(disk, system.ACCOUNTS)
    device = str(folder / "ttyRAVEN")
    writer = stack.sql_writer(folder, broker.url("sql-writer"), url)
    stick = stack.simulator(folder, "--pty", device, "--wait")
    reader = stack.reader(disk, device, broker.url(system.NODE), system.NODE, **settings)
    reader.log = folder / "reader.log"
    parts = [mariadb, broker, writer, stick, reader]
    command = home.command(folder, parts, broker.url("watcher"), READINGS)
    return cuts.record(command, disk, folder / "strace")
