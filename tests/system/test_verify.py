"""The operator's tools over both stores: what is missing is said exactly, and comes back."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from raven_harness import stack
from raven_setup.accounts import MYSQL_RIGHTS
from ravenbus.messages import Reading, Run, encode
from ravenbus.months import Month
from ravenbus.notifications import KINDS
from ravenmongo.archiving import MongoArchive
from ravenmongo.settings import MongoUrl
from ravensql import rows, schema
from ravensql.archiving import Archive
from ravensql.housekeeping import look_after
from ravensql.retention import Retention
from ravensql.settings import MysqlUrl
from tests import judge
from tests.kinds import METER, T0, every_kind, new_hash, reading

from .sql import Db, SqlSystem
from .system import NODE, wait_until

TABLES = tuple(rows.COLUMNS)


class Done(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


class VerifySystem(SqlSystem):
    """Broker, writer with MariaDB and recorder with MongoDB, side by side."""

    def start_stores(self) -> None:
        """Start everything but the stick and its reader."""
        self.broker.start()
        for store in (self.recorder, self.writer):
            store.start()
            self.wait_for_log(store, "connected to the broker")

    def fill(self, hash_: str, count: int) -> None:
        """Have both stores hold a run with readings of every kind."""
        run = Run(node=NODE, run="r", hash=hash_, started=T0.replace(microsecond=0), meter=METER)
        self.publish(f"raven/v1/{NODE}/run", encode(run))
        for seq, notification in zip(range(1, count + 1), cycle(every_kind()), strict=False):
            one = Reading(reading(hash_, seq).envelope, notification)
            self.publish(f"raven/v1/{NODE}/reading/{one.kind}", encode(one))
        self.wait_for(hash_, count)

    def publish(self, topic: str, payload: bytes) -> None:
        if not self.clients:
            self.client(NODE)
        self.clients[0].publish(topic, payload)

    def wait_for(self, hash_: str, count: int) -> None:
        wait_until(
            lambda: (
                len(judge.in_sql(self.sql.url, hash_)[1]) == count
                and len(judge.in_mongo(self.db, hash_)[1]) == count
            ),
            f"{count} readings are in both stores",
        )

    def command(self, name: str, *arguments: str, **settings: str) -> Done:
        """Run one of the tools, which has both stores and the broker unless told otherwise."""
        env = {
            "PATH": os.environ["PATH"],
            "MQTT_URL": self.broker.url("verify"),
            "MYSQL_URL": self.sql.url,
            "MONGO_URL": self.mongo_url,
            **settings,
        }
        done = subprocess.run(
            [stack.BIN / name, *arguments],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def verify(self, *arguments: str, **settings: str) -> Done:
        return self.command("raven-verify", *arguments, **settings)

    def run_report(
        self, hash_: str, *arguments: str, **settings: str
    ) -> tuple[int, dict[str, Any]]:
        """Return the exit status and what --json says of a run."""
        done = self.verify("--json", *arguments, **settings)
        runs = {run["hash"]: run for run in json.loads(done.out)["runs"]}
        return done.status, runs[hash_]

    def letters(self, *arguments: str, **settings: str) -> Done:
        return self.command("raven-dead-letters", *arguments, **settings)

    def everything(self) -> dict[str, Any]:
        """Return all rows and documents of readings and runs, but for what each insert makes."""
        found: dict[str, Any] = {}
        for table in TABLES:
            names = ", ".join((*rows.IDENTITY, *rows.COLUMNS[table]))
            query = f"SELECT {names} FROM {table} ORDER BY hash, seq"  # noqa: S608 - our names
            found[table] = self.sql(query)
        for name in ("runs", *KINDS):
            found[f"mongo {name}"] = list(self.db[name].find().sort("_id", 1))
        return found

    def narrow_account(self) -> str:
        """Return a URL with no more rights than the container's account has."""
        name, password = f"v{self.sql.name}", secrets.token_hex(12)
        self.sql.admin(f"CREATE USER {name}@'%' IDENTIFIED BY '{password}'")
        self.sql.admin(f"GRANT SELECT ON {self.sql.name}.* TO {name}@'%'")
        letters = f"{self.sql.name}.dead_letter"
        rights = MYSQL_RIGHTS["verify"]["dead_letter"]
        self.sql.admin(f"GRANT {rights} ON {letters} TO {name}@'%'")
        return self.sql.url.replace(f"{self.sql.user}:{self.sql.password}", f"{name}:{password}")

    def delete_rows(self, hash_: str, seqs: list[int]) -> None:
        for table in TABLES:
            query = f"DELETE FROM {table} WHERE hash = %s AND seq IN %s"  # noqa: S608 - our names
            self.sql(query, hash_, seqs)

    def delete_documents(self, hash_: str, seqs: list[int]) -> None:
        for kind in KINDS:
            self.db[kind].delete_many({"_id": {"$in": [f"{hash_}/{seq}" for seq in seqs]}})


@pytest.fixture
def system(tmp_path: Path, mongo: stack.Mongo | None, db: Db) -> Iterator[VerifySystem]:
    built = VerifySystem(tmp_path, mongo, db)
    yield built
    built.close()


def test_what_a_store_lacks_is_said_and_comes_back_as_it_was(system: VerifySystem):
    """Gaps in both stores: exact ranges and status 1; after --repair every byte is as before."""
    system.start_stores()
    hash_ = new_hash()
    system.fill(hash_, 120)
    assert system.verify().status == 0
    before = system.everything()

    system.delete_rows(hash_, [1, *range(17, 41), 120])
    system.delete_documents(hash_, [*range(50, 61), 99])
    done = system.verify()
    assert done.status == 1
    assert "missing 26: 1, 17-40, 120" in done.out
    assert "missing 12: 50-60, 99" in done.out
    status, run = system.run_report(hash_)
    assert status == 1
    assert run["stores"]["MySQL"]["lacking"] == [[1, 1], [17, 40], [120, 120]]
    assert run["stores"]["MongoDB"]["lacking"] == [[50, 60], [99, 99]]

    done = system.verify("--repair")
    assert done.status == 0
    assert "MySQL: 26 stored (1, 17-40, 120)" in done.err
    assert "MongoDB: 12 stored (50-60, 99)" in done.err
    assert system.everything() == before
    again = system.verify("--repair")
    assert (again.status, again.err) == (0, ""), "there is nothing left to do"


def test_a_store_that_knows_nothing_of_a_run_gets_all_of_it(system: VerifySystem):
    """Every kind, with the run itself; a lost reading that nobody has is said to be nowhere."""
    system.start_stores()
    hash_ = new_hash()
    count = 2 * len(KINDS)
    system.fill(hash_, count)
    wait_until(lambda: system.db.runs.find_one(hash_), "the run is there")
    before = system.everything()
    system.delete_documents(hash_, list(range(1, count + 1)))
    system.db.runs.delete_one({"_id": hash_})
    assert system.verify("--repair").status == 0
    assert system.everything() == before

    system.delete_documents(hash_, [3])
    system.delete_rows(hash_, [3])
    done = system.verify("--repair", "--run", hash_)
    assert done.status == 1
    assert "1 in no other store (3)" in done.err
    assert done.out.count("missing 1: 3") == 2


def test_archived_months_count_and_what_is_there_twice_does_not(system: VerifySystem):
    """A month in files is held by its store; a number in two tables is doubled, whatever its time."""
    url = MysqlUrl(system.sql.url)
    schema.migrate(url)
    look_after(url, utc=lambda: datetime(2026, 3, 1, tzinfo=UTC))
    system.start_stores()
    hash_ = new_hash()
    system.fill(hash_, 40)
    archive = Archive(url, system.folder / "archive", threading.Event())
    month = Month.parse("2026-03")
    assert Retention(archive, None).archive(month) == 40
    assert system.sql("SELECT COUNT(*) FROM instantaneous_demand") == ((0,),)
    status, run = system.run_report(hash_)
    assert (status, run["stores"]["MySQL"]["archived"]) == (0, 40)
    assert run["stores"]["MySQL"]["count"] == 40
    mongo = MongoArchive(
        MongoUrl(system.mongo_url), system.folder / "mongo", None, threading.Event()
    )
    with closing(mongo):
        assert mongo.archive(month) == 40
        status, run = system.run_report(hash_)
        assert (status, run["stores"]["MongoDB"]["archived"]) == (0, 40)
        assert mongo.restore(month) == 40

    archive.restore(month)
    (seq,) = system.sql("SELECT MIN(seq) FROM instantaneous_demand")[0]
    system.sql(
        "INSERT INTO notification (time, node, kind, body, run, hash, seq) "
        "VALUES ('2026-03-09', 'home', 'warning', '{}', 'r', %s, %s)",
        hash_, seq,
    )  # fmt: skip
    done = system.verify()
    assert done.status == 1
    assert f"duplicate 1: {seq}" in done.out


def test_a_reading_that_differs_between_stores_is_named(system: VerifySystem):
    """Somebody changed a row: numbers alone do not show it, what the stores say does."""
    system.start_stores()
    hash_ = new_hash()
    system.fill(hash_, 20)
    (seq,) = system.sql("SELECT MAX(seq) FROM instantaneous_demand")[0]
    system.sql("UPDATE instantaneous_demand SET demand = 7 WHERE seq = %s", seq)
    system.db["network_info"].update_one({"_id": f"{hash_}/3"}, {"$set": {"status": "x"}})
    status, run = system.run_report(hash_)
    assert (status, run["differing"]) == (1, [[3, 3], [seq, seq]])
    assert system.verify("--quick").status == 0


def test_a_live_system_is_complete_and_what_waits_is_under_way(system: VerifySystem):
    """While readings come what was accepted before is there; what a store that is away lacks is not.

    Neither is called lost, and nothing complete that the spool still has.
    """
    system.start_stores()
    system.plug_in("--rate", "50", "--count", "600")
    system.reader.start()
    state = {"RAVEN_STATE": str(system.folder / f"state-{NODE}")}
    wait_until(lambda: system.accepted()[1] > 100, "a hundred readings are accepted")
    for _ in range(3):
        assert system.verify(**state).status == 0
    system.simulator.wait(60)
    gone = "problem check=device"  # said when all that came before is kept
    system.wait_for_log(system.reader, gone)
    hash_, accepted = system.accepted()
    system.wait_for(hash_, accepted)
    status, run = system.run_report(hash_, **state)
    assert (status, run["accepted"], run["accepted_by"]) == (0, accepted, "spool")

    system.recorder.kill()
    system.writer.kill()
    system.broker.kill()
    system.plug_in("--rate", "50", "--count", "60")
    wait_until(lambda: system.accepted()[1] > accepted + 20, "more are accepted")
    said = system.reader.text().count(gone)
    system.simulator.kill()
    wait_until(lambda: system.reader.text().count(gone) > said, "the stick's end is noticed")
    for stop in (lambda: None, system.reader.stop):  # with its journal, and without
        stop()
        total = system.accepted()[1]
        status, run = system.run_report(hash_, **state)
        assert (status, run["complete"]) == (75, False)
        assert run["accepted"] == total
        assert "not complete yet" in system.verify(**state).out
        for store in run["stores"].values():
            assert store["under_way"][-1] == [accepted + 1, total]
            assert store["lacking"] == []


def test_a_dead_letter_is_not_lost_and_is_replayed_once_its_cause_is_mended(system: VerifySystem):
    """A table that somebody narrowed buries a reading; widened again, replay stores it."""
    system.start_stores()
    hash_ = new_hash()
    system.fill(hash_, 10)
    system.sql("ALTER TABLE instantaneous_demand MODIFY demand SMALLINT NULL")
    message = reading(hash_, 11, demand=1_000_000)
    topic = f"raven/v1/{NODE}/reading/instantaneous_demand"
    system.publish(topic, encode(message))
    wait_until(lambda: system.sql("SELECT 1 FROM dead_letter"), "it is buried")
    wait_until(lambda: len(judge.in_mongo(system.db, hash_)[1]) == 11, "MongoDB has it")

    done = system.verify()
    assert done.status == 0
    assert "dead letters 1: 11" in done.out
    assert "1 not-storable" in done.out
    listed = system.letters("list")
    assert "1 in MySQL, 0 in MongoDB" in listed.out
    (line,) = [line for line in listed.out.splitlines() if "not-storable" in line]
    letter_id = line.split()[0]
    shown = system.letters("show", letter_id)
    assert encode(message).decode() in shown.out
    assert topic in shown.out
    assert json.loads(system.letters("list", "--json").out)["reason"] == "not-storable"
    for nothing in (["--reason", "other"], ["--service", "reader"], ["--since", "2999-01-01"]):
        assert "No dead letters" in system.letters("list", *nothing).out

    again = system.letters("replay", letter_id, "--yes")
    assert again.status == 1
    assert "stays: buried again: not-storable" in again.out
    assert "1 in MySQL" in system.letters("list").out

    system.sql("ALTER TABLE instantaneous_demand MODIFY demand INT NULL")
    done = system.letters(
        "replay", "--reason", "not-storable", "--yes", MYSQL_URL=system.narrow_account()
    )
    assert (done.status, "1 replayed and removed" in done.out) == (0, True)
    assert "No dead letters" in system.letters("list").out
    status, run = system.run_report(hash_)
    assert (status, run["stores"]["MySQL"]["count"]) == (0, 11)


def test_what_cannot_be_replayed_stays_and_says_why(system: VerifySystem):
    """An identity that another reading has, another contract, the serial line, what was cut."""
    system.start_stores()
    hash_ = new_hash()
    system.fill(hash_, 20)
    topic = f"raven/v1/{NODE}/reading/instantaneous_demand"
    system.publish(topic, encode(reading(hash_, 20, received=T0)))
    system.publish(topic, encode(reading(hash_, 21)).replace(b'"v":1', b'"v":2'))
    letter = json.dumps(
        {"v": 1, "id": "5" * 32, "service": "reader", "node": NODE, "at": "2026-03-01T12:00:00Z",
         "reason": "bad-value", "detail": "d", "payload": "PHg+", "size": 3}
    )  # fmt: skip
    system.publish(f"raven/v1/{NODE}/dead", letter.encode())
    system.publish("raven/v1/dead/reader", letter.replace("5" * 32, "6" * 32).encode())
    wait_until(lambda: "4 in MySQL, 4 in MongoDB" in system.letters("list").out, "four are buried")

    shown = system.letters("replay", "--all")
    assert (shown.status, "Nothing is sent yet: --yes sends 2 again, 6 stay" in shown.out) == (
        0,
        True,
    )
    number = f"instantaneous_demand {hash_}/20 of the node {NODE}, run"
    assert shown.out.count(number) == 2

    done = system.letters("replay", "--all", "--yes")
    assert done.status == 1
    assert "0 replayed and removed, 8 stay" in done.out
    for why in (
        "buried again: identity-conflict: another reading is stored as",
        "contract version 2: this program reads version 1",
        "it came from the serial line",
    ):
        assert done.out.count(why) == (4 if "serial" in why else 2), why
    assert "4 in MySQL, 4 in MongoDB" in system.letters("list").out

    # The other reading is gone: now the letter's own can be stored.
    system.delete_rows(hash_, [20])
    system.delete_documents(hash_, [20])
    done = system.letters("replay", "--reason", "identity-conflict", "--yes")
    assert (done.status, "2 replayed and removed" in done.out) == (0, True)
    assert "3 in MySQL, 3 in MongoDB" in system.letters("list").out


def test_one_number_without_end_keeps_nobody_busy(system: VerifySystem):
    """A home that sends the largest number there is: looking and repairing end, and say the gap."""
    system.start_stores()
    hash_ = new_hash()
    system.fill(hash_, 10)
    topic = f"raven/v1/{NODE}/reading/instantaneous_demand"
    system.publish(topic, encode(reading(hash_, 2**63 - 1)))
    system.wait_for(hash_, 11)
    system.delete_rows(hash_, [4])
    status, run = system.run_report(hash_, "--repair")
    assert status == 1
    for store in ("MySQL", "MongoDB"):
        assert run["stores"][store]["lacking"] == [[11, 2**63 - 2]]
    system.wait_for(hash_, 11)


def test_what_cannot_be_reached_is_said(system: VerifySystem):
    """Status 69 for a store or broker that is away or refuses, 78 for settings, never a password."""
    nothing = {"MYSQL_URL": "", "MONGO_URL": ""}
    done = system.verify(**nothing)
    assert (done.status, "MYSQL_URL and MONGO_URL are not set" in done.err) == (78, True)
    system.broker.start()
    only_mongo = {"MYSQL_URL": ""}
    done = system.verify(**only_mongo)
    assert (done.status, done.out) == (0, "No readings yet in MongoDB.\n")
    assert "start a raven-sql-writer" in system.verify(MONGO_URL="").err
    system.sql.set_password("changed")
    for done in (
        system.verify(MONGO_URL=""),
        system.letters("list", MONGO_URL=""),
    ):
        assert done.status == 69
        assert "MySQL refuses mysql://" in done.err
        assert system.sql.password not in done.err
    port = stack.free_port()
    done = system.verify(MYSQL_URL="", MONGO_URL=f"mongodb://u:hunter2@127.0.0.1:{port}/raven")
    assert (done.status, "MongoDB is away" in done.err, "hunter2" in done.err) == (69, True, False)
    done = system.letters(
        "replay", "--all", "--yes", **only_mongo, MQTT_URL=system.broker.url("intruder")
    )
    assert done.status == 0, "there is nothing to replay"
    wrong = system.broker.url("verify").replace(":verify", "").replace("verify:", "verify:x")
    done = system.letters("replay", "--all", "--yes", **only_mongo, MQTT_URL=wrong)
    assert (done.status, "Not authorized" in done.err) == (69, True)


def test_what_the_reader_rejected_is_accepted_when_the_limits_are_mended(system: VerifySystem):
    """Letters of the serial line go through `raven-reader replay`, each once, and are numbered."""
    system.reader.env["RAVEN_MAX_DEMAND_KW"] = "0.001"
    system.start_stores()
    system.plug_in("--rate", "50", "--count", "80")
    system.reader.start()
    system.simulator.wait(60)
    reasons = ["--reason", "demand-too-large"]

    def buried() -> list[bytes]:
        return system.letters("list", "--json", *reasons, MYSQL_URL="").out.encode().splitlines()

    rejected = system.sent()["instantaneous_demand"]
    others = system.sent().total() - rejected
    wait_until(lambda: system.accepted()[1] == others, "other kinds are accepted")
    wait_until(lambda: len(buried()) == rejected, "every demand is in the dead letters")
    letters = b"\n".join(buried())
    again = [stack.BIN / "raven-reader", "replay"]

    def replay(*options: str, **settings: str) -> tuple[int, str]:
        env = {"PATH": os.environ["PATH"], **system.reader.env, **settings}
        done = subprocess.run(
            [*again, *options], input=letters, env=env, capture_output=True, check=False
        )
        return done.returncode, (done.stdout + done.stderr).decode()

    status, said = replay()
    assert (status, "another reader uses" in said) == (1, True)
    system.reader.stop()
    status, said = replay()
    assert (status, said.count("stays: demand-too-large")) == (1, rejected)
    before = system.accepted()[1]
    status, said = replay(RAVEN_MAX_DEMAND_KW="100")
    assert (status, said.count('"kind":"instantaneous_demand"')) == (0, rejected)
    assert f"Nothing is accepted yet: --yes accepts {rejected} into" in said
    assert system.accepted()[1] == before
    status, said = replay("--yes", RAVEN_MAX_DEMAND_KW="100")
    hash_, accepted = system.accepted()
    assert (status, accepted) == (0, before + rejected)
    assert f"instantaneous_demand {hash_}/{accepted}" in said
    status, said = replay("--yes", RAVEN_MAX_DEMAND_KW="100")
    assert (status, said.count("accepted before"), system.accepted()[1]) == (0, rejected, accepted)

    system.reader.start()
    system.wait_for(hash_, accepted)
    assert judge.in_mongo(system.db, hash_)[0]["instantaneous_demand"] == rejected
    ids = [json.loads(line)["id"] for line in letters.splitlines()]
    assert system.letters("remove", *ids).status == 0
    assert buried() == []
    assert system.verify(RAVEN_STATE=str(system.folder / f"state-{NODE}")).status == 0
