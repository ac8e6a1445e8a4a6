"""Readings out of the stores and in again, whichever store it is and wherever its months are."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from pyarrow import parquet

from raven_harness import stack
from ravenbus.messages import Reading, Run
from ravenbus.service import EXIT_UNAVAILABLE
from ravenmongo.archiving import MongoArchive
from ravenmongo.settings import MongoUrl
from ravenmongo.sink import MongoSink
from ravensql import schema
from ravensql.archiving import Archive
from ravensql.housekeeping import look_after
from ravensql.partitions import Month
from ravensql.retention import Retention
from ravensql.settings import MysqlUrl
from tests.kinds import METER, T0, every_kind, new_hash, reading

from .sql import DATA, Db, run
from .system import wait_until
from .test_verify import VerifySystem

FORMATS = ("csv", "jsonl", "parquet")
SPAN = ("--from", "2026-03", "--to", "2026-05-31")


@pytest.fixture
def system(tmp_path: Path, mongo: stack.Mongo | None, db: Db) -> Iterator[VerifySystem]:
    built = VerifySystem(tmp_path, mongo, db)
    yield built
    built.close()


def three_months(node: str) -> list[Run | Reading]:
    """Return a run of a node over three months, with readings of each kind."""
    hash_ = new_hash()
    started = T0.replace(microsecond=0)
    announced = Run(node=node, run='ü, "r"', hash=hash_, started=started, meter=METER)
    written: list[Reading] = []
    for seq, notification in enumerate(every_kind() * 2, 1):
        at = T0 + timedelta(days=seq * 7 % 80, milliseconds=seq)
        said = msgspec.structs.replace(notification, time=notification.time and at)
        envelope = reading(hash_, seq, received=at).envelope
        envelope = msgspec.structs.replace(envelope, node=node, run=announced.run)
        written.append(Reading(envelope, said))
    return [announced, *written]


def fill(db: Db, archive: Path, nodes: tuple[str, ...] = FORMATS) -> None:
    """Have a database hold a run of each node over three months, of which one is archived."""
    url = MysqlUrl(db.url)
    schema.migrate(url)
    look_after(url, utc=lambda: T0)
    with closing(db.sink()) as sink:
        for node in nodes:
            sink.store(three_months(node))
    Retention(Archive(url, archive, threading.Event()), None).archive(Month.parse("2026-03"))


def out(system: VerifySystem, folder: Path, name: str, *options: str, **settings: str) -> Path:
    """Return what is exported to a file of a folder of its own."""
    folder.mkdir(exist_ok=True)
    done = system.command("raven-export", *SPAN, *options, str(folder / name), **settings)
    assert done.status == 0, done.err
    return folder / name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def demands_by_day(system: VerifySystem, store: str) -> int:
    """Return how many demands of a node an export by days counts."""
    done = system.command(
        "raven-export", *SPAN, "--step", "day", "--node", "csv", "--store", store, "-"
    )
    assert done.status == 0, done.err
    assert done.out.startswith("time_utc,end_utc,node,meter,demand_readings,demand_mean_kw")
    return sum(int(line.split(",")[4]) for line in done.out.splitlines()[1:])


def test_what_went_out_and_in_goes_out_the_same(system: VerifySystem, new_db):
    """Every kind in each format, from archived months too; again changes nothing; byte for byte."""
    source, archive = new_db(), system.folder / "archive"
    fill(source, archive)
    of_source = {"MYSQL_URL": source.url, "MONGO_URL": "", "RAVEN_SQL_ARCHIVE": str(archive)}
    system.start_stores()
    for name in ("all.csv", "all.parquet"):
        out(system, system.folder / "source", name, **of_source)
    for node in FORMATS:
        out(system, system.folder / "parts", f"part.{node}", "--node", node, **of_source)
    for node in FORMATS:
        done = system.command("raven-import", str(system.folder / "parts" / f"part.{node}"))
        assert done.status == 0, done.err
        assert "MySQL: 72 stored, 0 were there already, 0 buried" in done.out
        assert "MongoDB: 72 stored, 0 were there already, 0 buried" in done.out
    before = system.everything()
    for store in ("MySQL", "mongodb"):
        out(system, system.folder / store, "all.parquet", "--store", store)
    done = system.command("raven-import", str(system.folder / "source" / "all.csv"))
    assert done.status == 0
    assert "MySQL: 0 stored, 216 were there already, 0 buried" in done.out
    assert system.everything() == before
    source_files = contents(system.folder / "source")
    assert set(source_files) == {"all.csv", "all.csv.json", "all.parquet"}
    for store in ("MySQL", "mongodb"):
        assert contents(system.folder / store) == {"all.parquet": source_files["all.parquet"]}
    done = system.command("raven-export", *SPAN, "--all", "--store", "mongodb", "-")
    assert done.out == source_files["all.csv"].decode()
    assert done.err == "216 readings of 3 runs from MongoDB\n"
    demands = source_files["all.csv"].count(b'"instantaneous_demand","csv"')
    for store in ("MySQL", "MongoDB"):
        # MongoDB's roll-ups come some time after the readings.
        wait_until(lambda at=store: demands_by_day(system, at) == demands, f"{store} has counted")
    done = system.command("raven-export", *SPAN, "--node", "cvs", "--store", "MySQL", "-")
    assert done.status == 2
    assert "MySQL has no node cvs: it has csv, jsonl, parquet" in done.err
    notes = json.loads(source_files["all.csv.json"])
    assert (notes["rows"], notes["complete"], len(notes["runs"])) == (216, True, 3)


def test_a_month_that_left_mongodb_is_exported_as_before(system: VerifySystem):
    """Byte for byte, also with what came late; a file that is damaged or gone leaves no file."""
    archive, march = system.folder / "archive", Month.parse("2026-03")
    settings = {"MYSQL_URL": "", "RAVEN_MONGO_ARCHIVE": str(archive)}
    with closing(MongoSink(system.mongo_url)) as sink:
        sink.prepare()
        announced, *readings = three_months("home")
        sink.store([announced, *readings])
        for name in ("all.csv", "all.parquet"):
            out(system, system.folder / "before", name, **settings)
        late = [one for one in readings[::9] if isinstance(one, Reading)]
        for one in late:
            system.db[one.kind].delete_one({"seq": one.envelope.seq})
        url = MongoUrl(system.mongo_url)
        with closing(MongoArchive(url, archive, None, threading.Event())) as retention:
            assert retention.archive(march) > 20
        assert sink.store(late) == (len(late), 0)
    for name in ("all.csv", "all.parquet"):
        out(system, system.folder / "after", name, **settings)
    assert contents(system.folder / "after") == contents(system.folder / "before")

    damaged = min(archive.glob("*.gz"))
    whole = damaged.read_bytes()
    for content, said in (
        (whole[:-9] + b"x" + whole[-8:], "its checksum is not the one that was recorded"),
        (whole[:99], "its checksum is not the one that was recorded"),
        (None, "it cannot be read: there is no such file"),
    ):
        damaged.unlink()
        if content is not None:
            damaged.write_bytes(content)
        file = str(system.folder / "after" / "all.parquet")
        done = system.command("raven-export", *SPAN, file, **settings)
        assert done == (EXIT_UNAVAILABLE, "", f"raven-export: {damaged}: {said}\n")
    assert contents(system.folder / "after") == contents(system.folder / "before")
    done = system.command("raven-export", *SPAN, "-", MYSQL_URL="")
    assert done.status == EXIT_UNAVAILABLE
    assert "2026-03 is archived: RAVEN_MONGO_ARCHIVE has to name" in done.err


def test_python_ravens_own_csv_comes_in_as_runs_of_its_own(system: VerifySystem):
    """Every row but those that a script made up, once, however often; in both stores the same."""
    file = DATA / "legacy-instantaneous_demand.csv"
    if not file.exists():
        pytest.skip("the old table is not here: RAVEN_DATA names its folder")
    lines = file.read_text().splitlines(keepends=True)
    some = system.folder / "old.csv"
    some.write_text("".join([*lines[:300], *lines[-300:]]))
    made_up = some.read_text().count('"-1","-1","-1"')
    left = 600 - made_up
    assert 0 < made_up < 600
    system.start_stores()
    done = system.command("raven-import", str(some))
    assert done.status == 2
    assert "say its --node" in done.err
    options = ("--node", "old", "--meter", METER, "--time-zone", "America/Los_Angeles", str(some))
    for new in (left, 0):
        done = system.command("raven-import", *options)
        assert done.status == 0, done.err
        assert f"MySQL: {new} stored, {left - new} were there already, 0 buried" in done.out
        assert f"MongoDB: {new} stored, {left - new} were there already, 0 buried" in done.out
        assert f"{made_up} rows left out" in done.out
    assert system.verify().status == 0
    query = "SELECT SUM(demand), MIN(time), MIN(meter), COUNT(*) FROM instantaneous_demand"
    real = [line.replace('"', "").split(",") for line in some.read_text().splitlines()]
    real = [fields for fields in real if fields[1:4] != ["-1", "-1", "-1"]]
    first = datetime.fromisoformat(min(fields[0] for fields in real)) + timedelta(hours=7)
    demand = sum(int(fields[1]) for fields in real)
    assert system.sql(query) == ((demand, first, METER, left),)
    assert system.sql("SELECT COUNT(*) FROM run_info WHERE node = 'old'") == (
        (len({fields[4] for fields in real}),),
    )


def test_a_simulated_past_comes_in_over_the_bus(system: VerifySystem):
    """Of two homes, whole in both stores, and history as the meters counted."""
    system.start_stores()
    file = system.folder / "past.jsonl"
    options = ["--days", "2", "--homes", "2", "--end", "2026-07-01T00:00:00Z"]
    made = subprocess.run(
        [stack.BIN / "raven-simulator", "history", *options], capture_output=True, check=True
    )
    file.write_bytes(made.stdout)
    done = system.command("raven-import", str(file))
    assert done.status == 0, done.err
    assert done.out.startswith("772 readings in the file\n")
    for store in ("MySQL", "MongoDB"):
        assert f"{store}: 772 stored, 0 were there already, 0 buried" in done.out
    steps = system.command(
        *("raven-export", "--from", "2026-06-29", "--to", "2026-06-30", "--node", "past"),
        *("--step", "day", "--store", "MySQL", "--format", "jsonl", "-"),
    )
    assert steps.status == 0, steps.err
    kwh = [json.loads(line)["delivered_kwh"] for line in steps.out.splitlines()]
    lines = [json.loads(line) for line in reversed(made.stdout.splitlines())]
    said = [
        one["delivered_kwh"] for one in lines if one["node"] == "past" and "delivered_kwh" in one
    ]
    grown = (said[95] - said[0], said[191] - said[95])
    assert kwh == [pytest.approx(one) for one in grown]


def test_what_is_not_as_the_store_has_it_is_said_and_not_sent(system: VerifySystem):
    """Another reading under a number that is taken, and a file that is no table: status 1."""
    system.start_stores()
    system.fill(new_hash(), 4)
    file = out(system, system.folder / "out", "some.csv", "--store", "MySQL")
    before = system.everything()
    text = file.read_text()
    file.write_text(text.replace(f"{T0 + timedelta(seconds=16):%H:%M:%S}", "23:00:00"))
    done = system.command("raven-import", str(file))
    assert done.status == 1
    assert "1 not sent: another reading has the same number" in done.out
    file.write_text(text.replace("network_info", "network_inf"))
    done = system.command("raven-import", str(file))
    assert done.status == 1
    assert "reading 2: 'network_inf' is no kind" in done.err
    assert system.everything() == before
    assert system.letters("list").out.startswith("No dead letters")


def test_an_export_that_is_interrupted_leaves_no_file(db: Db, tmp_path: Path):
    """What was there under its name before stays; the status says that it was interrupted."""
    schema.migrate(MysqlUrl(db.url))
    target = tmp_path / "out" / "all.parquet"
    target.parent.mkdir()
    target.write_bytes(b"before")
    export = stack.Process(
        "export",
        [str(stack.BIN / "raven-export"), *SPAN, str(target)],
        tmp_path,
        {"MYSQL_URL": db.url},
    )
    with closing(db.connect()) as other:
        run(other, "LOCK TABLES notification WRITE")
        export.start()
        wait_until(lambda: len(contents(target.parent)) == 2, "the export has begun")
        export.send(signal.SIGTERM)
        assert export.wait() == 130
    assert contents(target.parent) == {"all.parquet": b"before"}
    assert export.text() == ""


def test_memory_does_not_grow_with_what_is_exported(db: Db, tmp_path: Path):
    """Four times the rows need no more as CSV, and two groups of Parquet from files 100 MB."""
    url, first = MysqlUrl(db.url), 1280
    rows = 16 * first
    schema.migrate(url)
    look_after(url, utc=lambda: T0)
    hash_ = new_hash()
    with closing(db.sink()) as sink:
        sink.store([reading(hash_, seq) for seq in range(1, first + 1)])
    moved = ("time", "received", "device_time")
    same = (
        "node",
        "device",
        "meter",
        "run",
        "hash",
        "demand",
        "multiplier",
        "divisor",
        "rolled_up",
    )
    for count in (first * 2**power for power in range(6)):
        later = ", ".join(f"{name} + INTERVAL {8 * count} SECOND" for name in moved)
        db(
            f"INSERT INTO instantaneous_demand ({', '.join((*moved, *same))}, seq) "  # noqa: S608
            f"SELECT {later}, {', '.join(same)}, seq + {count} FROM instantaneous_demand"
        )

    def peak(name: str, count: int) -> int:
        """Return the most memory that an export of the first rows had."""
        end = (T0 + timedelta(seconds=8 * count)).isoformat()
        command = [str(stack.BIN / "raven-export"), "--from", "2026-03", "--to", end]
        command += ["--kind", "instantaneous_demand", str(tmp_path / name)]
        env = {"MYSQL_URL": db.url, "RAVEN_SQL_ARCHIVE": str(tmp_path)}
        with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
            found = stack.peak_bytes(process)
        assert process.returncode == 0
        return found

    assert peak("all.csv", rows) < 1.15 * peak("some.csv", rows // 4)
    Retention(Archive(url, tmp_path, threading.Event()), None).archive(Month.parse("2026-03"))
    assert peak("all.parquet", 4 * rows) < 100e6
    lines = (tmp_path / "all.csv").read_bytes().count(b"\n")
    assert lines > 3.9 * (tmp_path / "some.csv").read_bytes().count(b"\n")
    of_all = parquet.read_metadata(tmp_path / "all.parquet")
    assert (of_all.num_rows, of_all.num_row_groups) == (4 * (lines - 1), 2)
