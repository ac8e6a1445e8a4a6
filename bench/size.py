"""What a demand takes in each store."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import Final

import bson

import stream
import system
from growth import connected, server
from ravenbus.messages import Reading
from ravenbus.notifications import InstantaneousDemand
from ravenmongo import documents
from ravensql import schema
from ravensql.settings import MysqlUrl
from ravensql.sink import MysqlSink
from results import Row, at_most

READINGS: Final = 200_000
BATCH: Final = 500
MYSQL_AIM: Final = 150
MONGO_AIM: Final = 250

TEXT: Final = f"""\
## Size: bytes of a demand

The demands among {READINGS:,} readings, stored by the writer's sink in MariaDB, {BATCH} at a time;
in *relayed* each is then marked as taken, as a relay does, which moves its entry in an index.
Counted is what the files of the table take of the disk once the server has ended, with all indexes
and with what they have in reserve; *in the file* is their length, of which pages that were
compressed give the rest back to the disk.

In MongoDB it is the length of the BSON of the same readings' documents; MongoDB compresses on its
disk, which its stand-in does not show.  More than half of a document is names and the texts that
say which reading it is, twice of them the run's, because `_id` is how one that comes again is known.
"""


def run() -> list[Row]:
    """Measure and return the rows."""
    demands = [one for one in stream.readings(system.NODE, READINGS) if _is_demand(one)]
    return [
        *_mysql("stored", demands, is_relayed=False),
        *_mysql("relayed", demands, is_relayed=True)[:1],
        at_most(
            "size: a demand in MongoDB, BSON",
            [mean(len(bson.encode(documents.of_reading(one))) for one in demands)],
            MONGO_AIM,
            "bytes",
        ),
    ]


def _is_demand(reading: Reading) -> bool:
    return isinstance(reading.notification, InstantaneousDemand)


def _mysql(what: str, demands: list[Reading], *, is_relayed: bool) -> list[Row]:
    with system.folder() as folder:
        mariadb = server(folder)
        with system.started(mariadb):
            url = mariadb.database()
            schema.migrate(MysqlUrl(url))
            with closing(MysqlSink(MysqlUrl(url))) as sink:
                sink.prepare()
                for at in range(0, len(demands), BATCH):
                    sink.store(demands[at : at + BATCH])
            with connected(mariadb, url) as cursor:
                if is_relayed:
                    for at in range(0, len(demands), BATCH):
                        cursor.execute(
                            "UPDATE instantaneous_demand SET relayed = 1 WHERE id > %s AND id <= %s",
                            (at, at + BATCH),
                        )
                cursor.execute("SELECT COUNT(*), COUNT(relayed) FROM instantaneous_demand")
                found = cursor.fetchall()[0]
        if found != (len(demands), len(demands) if is_relayed else 0):
            raise RuntimeError(f"{found} of {len(demands)} demands are stored and marked")
        return _rows(what, folder, len(demands))


def _rows(what: str, folder: Path, count: int) -> list[Row]:
    files = [file.stat() for file in folder.rglob("instantaneous_demand*.ibd")]
    on_disk = sum(512 * file.st_blocks for file in files) / count
    long = sum(file.st_size for file in files) / count
    name = f"size: a demand in MySQL, {what}"
    return [
        at_most(name, [on_disk], MYSQL_AIM, "bytes"),
        Row(f"{name}, in the file", f"{long:.0f} bytes", ""),
    ]
