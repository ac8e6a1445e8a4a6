"""An installation that 1.0.0 made is upgraded in place: nothing is missing and nothing twice."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from raven_harness import stack
from ravenbus.messages import Reading, encode
from ravenbus.mqtt import Broker
from ravenbus.notifications import KINDS
from ravenbus.settings import MqttUrl
from ravensql import rows
from ravensql.housekeeping import look_after
from ravensql.settings import MysqlUrl
from tests import judge, released
from tests.kinds import new_hash

from .sql import OLD_INSERT, Db
from .system import NODE, wait_until
from .test_backup import everything
from .test_retention import of_every_kind
from .test_sql_writer import from_rows
from .test_verify import VerifySystem

SCRIPTS_RUN = ("r", "a script's")
"""Name and hash of the run whose rows a script inserts beside the writer."""
ASK_EMU2 = ("get_fast_poll_status", "get_price_blocks", "get_billing_periods")
ASK_RAVEN = (
    *("get_connection_status", "get_device_info", "get_network_info", "get_schedule"),
    *("get_meter_list", "get_meter_info", "get_profile_data"),
    *("get_current_period_usage", "get_last_period_usage"),
    ASK_EMU2[0],  # which it does not know, and warns of
)
ASK_AGAIN_S = 15.0
MAKE_TABLES_IN_MARCH = """
import sys
from datetime import UTC, datetime
from raven_sql_writer.housekeeping import look_after
from ravensql import schema
from ravensql.settings import MysqlUrl
url = MysqlUrl(sys.argv[1])
schema.migrate(url)
look_after(url, utc=lambda: datetime(2026, 3, 1, tzinfo=UTC))
"""


class Upgrade(VerifySystem):
    """A home with both stores, and a relay to an upstream broker with a recorder of its own.

    Programs run the released version until each is upgraded.
    """

    def __init__(self, folder: Path, mongo: stack.Mongo | None, db: Db) -> None:
        super().__init__(folder, mongo, db)
        self.old = released.unpack(folder / "released")
        self.upstream = stack.Broker(folder, [NODE, "mongo-recorder", "verify"], "upstream")
        self.upstream_url = stack.in_database(self.mongo_url, f"{self.database}_upstream")
        self.upstream_recorder = stack.recorder(
            folder, self.upstream.url("mongo-recorder"), self.upstream_url, "upstream-recorder"
        )
        self.relay = stack.sql_relay(folder, db.url, self.upstream.url(NODE), RAVEN_NODE=NODE)
        self.others += [self.relay, self.upstream_recorder, self.upstream]
        for program in (*self.stores, self.relay, self.reader):
            program.env["PYTHONPATH"] = released.python_path(self.old)
        for broker in (self.broker, self.upstream):
            give_access_list(broker, self.old / "deploy" / "mosquitto" / "acl")

    @property
    def stores(self) -> tuple[stack.Process, ...]:
        return self.upstream_recorder, self.recorder, self.writer

    @property
    def sessions(self) -> list[Broker]:
        """The stores' sessions under the names that 1.0.0 gave them."""
        names = [
            (self.broker.url("sql-writer"), "sql-writer"),
            (self.broker.url("mongo-recorder"), "raven-mongo-recorder"),
            (self.upstream.url("mongo-recorder"), "raven-mongo-recorder"),
        ]
        return [Broker(MqttUrl(url), name, session_expiry_s=1, secret=False) for url, name in names]

    @property
    def upstream_db(self) -> Any:
        return self.db.client.get_database(f"{self.database}_upstream")

    @property
    def spool(self) -> Path:
        return self.folder / f"state-{NODE}" / "spool.sqlite"

    def spooled(self) -> list[dict[str, Any]]:
        """Return the readings in the spool."""
        query = "SELECT payload FROM outbox WHERE seq IS NOT NULL"
        return [json.loads(payload) for (payload,) in self.in_spool(query)]

    def letters_in_spool(self) -> set[str]:
        """Return the ids of the dead letters in the spool."""
        query = "SELECT letter FROM outbox WHERE letter IS NOT NULL"
        return {letter for (letter,) in self.in_spool(query)}

    def in_spool(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.spool}?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()

    def wait_until_spooled(self, count: int, which: str) -> None:
        query = f"SELECT COUNT(*) FROM outbox WHERE seq IS NOT NULL AND {which}"  # noqa: S608
        wait_until(lambda: self.in_spool(query)[0][0] >= count, f"{count} wait: {which}")

    def accept_more(self, count: int) -> None:
        """Wait until the reader has accepted so many more."""
        before = self.accepted()[1]
        wait_until(lambda: self.accepted()[1] >= before + count, f"{count} more are accepted")

    def ask(self, *names: str) -> None:
        """Send the stick commands once the reader has it."""
        self.accept_more(1)
        for name in names:
            command = json.dumps({"name": name, "id": name}).encode()
            self.client("watcher").publish(f"raven/v1/{NODE}/command", command)

    def wait_until_upstream(self, *kinds: str, asking: Sequence[str] = ()) -> None:
        """Wait until MongoDB upstream has a reading of each kind; the line may damage an answer."""
        ask_again_at = time.monotonic() + ASK_AGAIN_S

        def came(kind: str) -> Any:
            nonlocal ask_again_at
            if asking and time.monotonic() > ask_again_at:
                self.ask(*asking)
                ask_again_at = time.monotonic() + ASK_AGAIN_S
            return self.upstream_db[kind].find_one()

        for kind in kinds:
            wait_until(lambda k=kind: came(k), f"{kind} is upstream")

    def insert_by_script(self, *demands: int) -> None:
        for demand in demands:
            self.sql(OLD_INSERT, demand, 1, 1000, *SCRIPTS_RUN)

    def of_script(self) -> list[tuple[int, int]]:
        """Return number and demand of each reading upstream whose row a script inserted."""
        found = self.upstream_db["instantaneous_demand"].find({"run": SCRIPTS_RUN[0]})
        return sorted((one["seq"], one["demand"]) for one in found)

    def relayed(self) -> Counter[int | None]:
        """Count the rows by their mark."""
        query = " UNION ALL ".join(f"SELECT relayed FROM {table}" for table in rows.COLUMNS)  # noqa: S608
        return Counter(mark for (mark,) in self.sql(query))

    def letters_in_stores(self) -> tuple[set[Any], set[Any]]:
        """Return every dead letter: id, service, reason and payload."""
        in_sql = self.sql("SELECT id, service, reason, payload FROM dead_letter")
        names = ("_id", "service", "reason", "payload")
        in_mongo = self.db["dead_letter"].find()
        return set(in_sql), {tuple(one[name] for name in names) for one in in_mongo}

    def rows_of(self, columns: dict[str, list[str]]) -> dict[str, set[tuple[Any, ...]]]:
        """Return the values of every row in these columns."""
        return {
            table: set(self.sql(f"SELECT {', '.join(names)} FROM {table}"))  # noqa: S608
            for table, names in columns.items()
        }

    def columns(self) -> dict[str, list[str]]:
        """Return the columns of the tables of readings, but for marks."""
        query = (
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = %s "
            "AND column_name NOT IN ('relayed', 'relay_seq', 'rolled_up')"
        )
        return {table: [name for (name,) in self.sql(query, table)] for table in rows.COLUMNS}

    def documents(self, db: Any) -> dict[tuple[str, int], dict[str, Any]]:
        """Return what a MongoDB has of the reader's run, by identity and without what is null."""
        hash_ = self.accepted()[0]
        found = [one for kind in KINDS for one in db[kind].find({"hash": hash_})]
        return {
            (one["hash"], one["seq"]): {name: v for name, v in one.items() if v is not None}
            for one in found
        }

    def wait_until_complete(self) -> None:
        """Wait until all three stores have what the reader has accepted; each has each once."""
        hash_, accepted = self.accepted()
        every = list(range(1, accepted + 1))

        def numbers() -> dict[str, list[int]]:
            return {
                "MySQL": judge.in_sql(self.sql.url, hash_)[1],
                "MongoDB": judge.in_mongo(self.db, hash_)[1],
                "MongoDB upstream": judge.in_mongo(self.upstream_db, hash_)[1],
            }

        wait_until(
            lambda: all(len(found) >= accepted for found in numbers().values()),
            f"{accepted} are everywhere",
        )
        for store, found in numbers().items():
            assert found == every, store

    def replay_what_the_reader_rejected(self) -> int:
        """Have the reader, which is stopped, take in what it can of that; return how much."""
        letters = self.letters("list", "--json", "--reason", "clock-far-off", MYSQL_URL="").out
        done = subprocess.run(
            [stack.BIN / "raven-reader", "replay", "--yes"],
            input=letters,
            env={"PATH": os.environ["PATH"], **self.reader.env},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.count(self.accepted()[0]) == letters.count("\n"), done.stdout
        return letters.count("\n")

    def demands(self, period_s: int) -> list[tuple[Any, ...]]:
        """Return the roll-ups of all meters together."""
        query = (
            "SELECT start, SUM(readings), SUM(sum_kw), MIN(min_kw), MAX(max_kw) FROM demand_rollup "
            "WHERE period_s = %s GROUP BY start"
        )
        return sorted(self.sql(query, period_s))

    def energy(self, period_s: int) -> dict[str, Decimal]:
        """Return what each meter used by the roll-ups."""
        query = (
            "SELECT meter, SUM(delivered_kwh) FROM energy_rollup WHERE period_s = %s GROUP BY meter"
        )
        return dict(self.sql(query, period_s))

    def grown(self) -> dict[str, Decimal]:
        """Return what each meter used by its registers."""
        query = (
            "SELECT meter, MAX(delivered_kwh) - MIN(delivered_kwh) FROM current_summation_delivered "
            "GROUP BY meter"
        )
        return dict(self.sql(query))

    def stop_at_home(self) -> None:
        """Kill the stores and stop the broker, each when something waits in what is before it."""
        self.writer.kill()
        self.recorder.kill()
        self.wait_until_spooled(50, "sent IS NOT NULL")
        assert self.broker.stop() == 0
        self.wait_until_spooled(30, "sent IS NULL")

    def upgrade(self, program: stack.Process) -> None:
        """Start a program of this version."""
        del program.env["PYTHONPATH"]
        program.start()

    def close(self) -> None:
        if not self.mongo:
            self.db.client.drop_database(self.upstream_db.name)
        super().close()


def give_access_list(broker: stack.Broker, file: Path) -> None:
    """Have a broker use an access list from its next start on."""
    config = Path(broker.command[-1])
    config.write_text(re.sub("acl_file .*", f"acl_file {file}", config.read_text()))


def session_present(broker: Broker) -> bool:
    with closing(broker(SimpleQueue())) as connection:
        return connection.session_present


def same_values(said: dict[str, Any], document: dict[str, Any]) -> bool:
    """Say whether a document has what a message in the spool says."""
    for name, value in said.items():
        kept = document.get(name)
        if kept != (datetime.fromisoformat(value) if isinstance(kept, datetime) else value):
            return False
    return True


@pytest.fixture
def system(tmp_path: Path, mongo: stack.Mongo | None, db: Db) -> Iterator[Upgrade]:
    built = Upgrade(tmp_path, mongo, db)
    yield built
    built.close()


def test_all_that_1_0_left_behind_is_taken_over(system: Upgrade):
    """Spool, sessions, tables, marks, roll-ups and dead letters: each reading is everywhere once."""
    work_with_1_0(system)
    leave_something_everywhere(system)
    columns = system.columns()
    before, letters = system.rows_of(columns), system.letters_in_stores()
    upgrade_the_stores(system)
    spooled, spooled_letters = system.spooled(), system.letters_in_spool()
    (hash_, accepted), replayed = system.accepted(), upgrade_the_reader(system)

    assert system.in_spool("SELECT hash FROM run") == [(hash_,)]
    assert system.accepted()[1] > accepted + replayed
    at_home, upstream = system.documents(system.db), system.documents(system.upstream_db)
    assert upstream == at_home, "what came through the tables is what came directly"
    assert all(same_values(one, at_home[one["hash"], one["seq"]]) for one in spooled)
    now = system.rows_of(columns)
    assert all(before[table] <= now[table] for table in before)
    assert system.of_script() == [(1, 101), (2, 102), (3, 103), (4, 104)]
    for store, old in enumerate(letters):
        assert old <= system.letters_in_stores()[store]
        wait_until(
            lambda s=store: spooled_letters <= {id_ for id_, *_ in system.letters_in_stores()[s]},
            "the dead letters that were in the spool are stored",
        )
    look_after(MysqlUrl(system.sql.url))  # the writer does so every five minutes
    for period_s in (300, 3600, 86400):
        assert system.demands(period_s) == from_rows(system.sql, period_s)
        assert system.energy(period_s) == system.grown()
    for session in system.sessions:
        wait_until(lambda s=session: not session_present(s), f"{session.client_id} is ended")
    state = {"RAVEN_STATE": str(system.spool.parent)}
    assert system.verify(**state).status == 0
    assert system.verify(**state, MONGO_URL=system.upstream_url).status == 0


def test_the_months_that_1_0_archived_are_known_and_restored(system: Upgrade):
    """Its files are good, a redelivery of what is in them is stored already, and rows come back.

    So they are after a backup that was made and restored before the upgrade.
    """
    hash_, folder = new_hash(), system.folder / "archive"
    folder.mkdir()
    march, april = of_every_kind(hash_, 1, 3), of_every_kind(hash_, 21, 4)

    def command(*words: str) -> str:
        command = [stack.BIN / "raven-sql-writer", *words, "2026-03"]
        env = {"PATH": os.environ["PATH"], **system.writer.env, "RAVEN_SQL_ARCHIVE": str(folder)}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    def send(*readings: Reading) -> None:
        for one in readings:
            said = json.loads(encode(one)) | {"run": "default"}
            said.pop("claimed_time", None)  # which 1.0.0 does not know
            topic = f"raven/v1/{NODE}/reading/{one.kind}"
            system.publish(topic, json.dumps(said).encode())

    def numbers() -> list[int]:
        return judge.in_sql(system.sql.url, hash_)[1]

    in_march = [sys.executable, "-c", MAKE_TABLES_IN_MARCH, system.sql.url]
    subprocess.run(in_march, env=system.writer.env, check=True)
    system.broker.start()
    system.writer.start()
    system.wait_for_log(system.writer, "connected to the broker")
    send(*march, *april)
    wait_until(lambda: len(numbers()) == 40, "all is stored")
    columns = system.columns()
    before = system.rows_of(columns)
    assert command("archive") == "2026-03: 20 rows archived\n"
    system.writer.stop()
    at_1_0 = everything(system.sql)
    settings = {"MONGO_URL": "", "RAVEN_SQL_ARCHIVE": str(folder)}
    backups = str(system.folder / "backups")
    assert system.command("raven-backup", backups, **settings).status == 0
    system.sql.admin(f"DROP DATABASE {system.sql.name}")
    system.sql.admin(f"CREATE DATABASE {system.sql.name}")
    folder.rename(system.folder / "lost")
    assert system.command("raven-restore", backups, **settings).status == 0
    assert everything(system.sql) == at_1_0
    system.upgrade(system.writer)
    system.wait_for_log(system.writer, "connected to the broker")
    assert command("verify").count(": good\n") == len(rows.COLUMNS)
    send(*march, *of_every_kind(hash_, 41, 4, number=1))
    wait_until(lambda: 41 in numbers(), "what came last is stored")
    assert numbers() == list(range(21, 42))
    assert system.sql("SELECT COUNT(*) FROM dead_letter") == ((0,),)
    assert command("restore") == "2026-03: 20 rows restored\n"
    now = system.rows_of(columns)
    assert all(before[table] <= now[table] for table in before)
    assert numbers() == list(range(1, 42))


def test_services_are_replaced_one_by_one_while_readings_come(system: Upgrade):
    """Stores first, the reader last: all that the stick sent is everywhere once.

    Back to 1.0.0 is refused with a sentence, and changes nothing.
    """
    brokers = system.broker, system.upstream
    for server in brokers:
        server.start()
    programs = (*system.stores, system.relay)
    for program in programs:
        program.start()
        system.wait_for_log(program, "connected to the broker")
    system.plug_in("--rate", "50")
    system.reader.start()
    system.accept_more(100)
    for broker in brokers:
        assert broker.stop() == 0
        give_access_list(broker, stack.ACL)
        broker.start()
    for program in programs:
        program.stop()
        system.accept_more(30)
        system.upgrade(program)
        system.wait_for_log(program, "connected to the broker")
    with system.simulator.paused():
        wait_until(lambda: system.accepted()[1] == system.sent().total(), "all is read")
        system.reader.stop()
        system.upgrade(system.reader)
        system.wait_for_log(system.reader, "connected to the broker")
    system.accept_more(100)
    system.simulator.stop()
    system.wait_for_log(system.reader, "problem check=device")
    system.wait_until_complete()
    hash_, accepted = system.accepted()
    assert system.in_spool("SELECT hash FROM run") == [(hash_,)], "the run goes on"
    assert accepted == system.sent().total()
    assert judge.in_sql(system.sql.url, hash_)[0] == system.sent()
    assert system.letters_in_stores() == (set(), set())
    for program in (system.writer, system.relay, system.reader):
        program.stop()
    go_back(system)


def go_back(system: Upgrade) -> None:
    """Start what 1.0.0 has in place of ours; it says why not, and all is as it was."""
    columns = system.columns()
    before = system.rows_of(columns), system.accepted()
    for program, said in (
        (system.writer, r"the database is at version \d+ and this program knows versions up to 8"),
        (system.relay, r"the database is at version \d+ and this program knows versions up to 8"),
        (system.reader, r"the spool .* is of version \d+; this program knows 3: use the newer"),
    ):
        program.env["PYTHONPATH"] = released.python_path(system.old)
        program.start()
        assert program.wait() == 1, program.name
        assert re.search(said, program.said()), program.said()
    assert (system.rows_of(columns), system.accepted()) == before


def work_with_1_0(system: Upgrade) -> None:
    """Have all parts of the released version take in readings of every kind, and dead letters."""
    for broker in (system.broker, system.upstream):
        broker.start()
    programs = (*system.stores, system.relay)
    for program in programs:
        program.start()
    for program in programs:
        system.wait_for_log(program, "connected to the broker")
    # A stick whose clock is wrong, which 1.0.0 rejects; one that knows the kinds of an EMU-2; and
    # one that stays, on a line that damages some of what it says.
    system.plug_in("--rate", "50", "--count", "60", "--fault", "clock:0,-200000")
    system.reader.start()
    system.simulator.wait()
    system.plug_in("--rate", "50", "--model", "emu2", "--meter-mac", "0013500100aaaaaa")
    system.ask(*ASK_EMU2)
    system.wait_until_upstream("fast_poll_status", "block_price_detail", "billing_period_list")
    system.simulator.stop()
    system.plug_in("--rate", "50", "--meter-mac", "0013500100bbbbbb", "--fault", "letters:0.02")
    system.ask(*ASK_RAVEN)
    system.client(NODE).publish(f"raven/v1/{NODE}/reading/warning", b"poison")
    system.insert_by_script(101, 102)
    system.wait_until_upstream(*KINDS, asking=ASK_RAVEN)
    wait_until(lambda: len(system.of_script()) == 2, "the script's rows are upstream")
    wait_until(
        lambda: all(
            {reason for _, _, reason, _ in found} >= {"not-json", "clock-far-off"}
            for found in system.letters_in_stores()
        ),
        "both stores have dead letters of a store and of the reader",
    )


def leave_something_everywhere(system: Upgrade) -> None:
    """Leave behind what waits: in the session of each store, in the tables and in the spool."""
    system.upstream_recorder.kill()
    system.accept_more(50)
    system.relay.kill()
    system.insert_by_script(103)
    wait_until(lambda: system.relayed()[None] > 50, "rows are left that nobody has sent")
    assert system.relayed()[1] > 50
    system.stop_at_home()
    assert system.upstream.stop() == 0
    assert system.sql("SELECT MAX(version) FROM schema_version") == ((8,),)


def upgrade_the_stores(system: Upgrade) -> None:
    """Upgrade brokers and stores while the reader goes on, and leave it with a full spool."""
    for broker in (system.broker, system.upstream):
        give_access_list(broker, stack.ACL)
        broker.start()
    for program in (*system.stores, system.relay):
        system.upgrade(program)
    for store in system.stores:
        system.wait_for_log(store, "session drained and ended")
    system.accept_more(50)
    system.stop_at_home()
    wait_until(system.letters_in_spool, "a dead letter is left in the spool")
    system.reader.kill()
    assert system.in_spool("PRAGMA user_version") == [(3,)]


def upgrade_the_reader(system: Upgrade) -> int:
    """Go on with all parts upgraded; return how many readings came out of the dead letters."""
    for program in (system.broker, system.writer, system.recorder):
        program.start()
    system.upgrade(system.reader)
    system.accept_more(100)
    system.insert_by_script(104)
    system.simulator.stop()
    system.wait_for_log(system.reader, "problem check=device")
    system.reader.stop()
    replayed = system.replay_what_the_reader_rejected()
    system.reader.start()
    system.wait_until_complete()
    wait_until(lambda: len(system.of_script()) == 4, "the script's rows are upstream")
    return replayed
