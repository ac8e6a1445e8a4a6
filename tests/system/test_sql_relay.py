"""What is in the tables reaches a recorder behind an upstream broker, whoever inserted it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from credentials import relay_lines

from raven_harness import stack
from raven_sql_relay import outbox as module
from raven_sql_relay import waiting
from raven_sql_relay.claims import SIZE
from raven_sql_relay.outbox import SqlOutbox
from raven_sql_relay.source import RelayMetrics
from ravenbus import resending
from ravenbus.confirming import STORES_MAX, Stores
from ravenbus.errors import FatalError, RetryableError
from ravenbus.health import Health
from ravenbus.messages import Confirmation, Envelope, Reading, Run, decode, decode_reading, encode
from ravenbus.publisher import Entry
from ravenbus.ranges import merged
from ravenbus.resending import PATIENCE_S, TURN_S
from ravenbus.topics import READING, Topics
from ravensql import rows, schema
from ravensql.settings import MysqlUrl
from ravensql.sink import MysqlSink
from tests import judge
from tests.kinds import METER, T0, every_kind, new_hash, reading
from tests.unit.ravenbus.fakes import Clock

from .sql import DATA, OLD_INSERT, Db, SqlSystem, run
from .system import NODE, Client, wait_until

MANY = 5_000
PATIENCE_TURNS = int(PATIENCE_S / TURN_S)


class RelaySystem(SqlSystem):
    """Stick, reader, broker, writer and MariaDB; behind them a relay, a broker and a recorder."""

    def __init__(self, folder: Path, mongo: stack.Mongo | None, db: Db) -> None:
        super().__init__(folder, mongo, db)
        self.upstream = stack.Broker(folder, [NODE, "mongo-recorder", "watcher"], "upstream")
        self.recorder = stack.recorder(folder, self.upstream.url("mongo-recorder"), self.mongo_url)
        self.relay = self.another_relay("sql-relay")
        self.others.append(self.upstream)

    def another_relay(self, name: str) -> stack.Process:
        url = self.upstream.url(NODE)
        relay = stack.sql_relay(self.folder, self.sql.url, url, name, RAVEN_NODE=NODE)
        self.others.append(relay)
        return relay

    def start_upstream(self, *, recorder: bool = True) -> None:
        """Start the upstream broker, and its recorder, whose session exists from then on."""
        self.upstream.start()
        if recorder:
            self.recorder.start()
            self.wait_for_log(self.recorder, "connected to the broker")

    def watch_upstream(self) -> Client:
        """Return a client that sees what the relay publishes."""
        client = Client(self.upstream.url("watcher"))
        client.subscribe("raven/v1/#")
        self.clients.append(client)
        return client

    def relayed(self) -> Counter[int | None]:
        """Count the rows by their mark."""
        query = " UNION ALL ".join(
            f"SELECT relayed, COUNT(*) FROM {table} GROUP BY relayed"  # noqa: S608 - our names
            for table in rows.COLUMNS
        )
        found: Counter[int | None] = Counter()
        for mark, count in self.sql(query):
            found[mark] += count
        return found

    def wait_until_relayed(self, count: int, mark: int | None = 1) -> None:
        wait_until(
            lambda: self.relayed()[mark] >= count,
            f"{count} rows are marked {mark}; they are marked {self.relayed()}",
        )

    def upstream_stored(self, hash_: str) -> list[int]:
        """Return every number that MongoDB upstream has of a run."""
        return judge.in_mongo(self.db, hash_)[1]

    def wait_until_upstream(self, hash_: str, numbers: list[int]) -> None:
        """Wait until MongoDB upstream has exactly these."""
        wait_until(
            lambda: len(self.upstream_stored(hash_)) >= len(numbers),
            f"{len(numbers)} are upstream, where {len(self.upstream_stored(hash_))} are; rows "
            f"are marked {self.relayed()}",
        )
        assert self.upstream_stored(hash_) == numbers

    def fill(self, count: int) -> str:
        """Have the tables hold so many readings of a run, and return its hash."""
        hash_ = new_hash()
        with closing(self.sql.sink()) as sink:
            sink.prepare()
            for start in range(1, count + 1, 1000):
                batch = range(start, min(start + 1000, count + 1))
                sink.store([reading(hash_, seq) for seq in batch])
        return hash_


@pytest.fixture
def system(tmp_path: Path, mongo: stack.Mongo | None, db: Db) -> Iterator[RelaySystem]:
    built = RelaySystem(tmp_path, mongo, db)
    yield built
    built.close()


def seen(client: Client) -> Counter[bytes]:
    """Count the readings that a client has seen by their text."""
    return Counter(m.payload for m in client.messages() if "/reading/" in m.topic)


# From the stick to MongoDB upstream


def test_what_arrives_upstream_is_what_was_on_the_local_broker(system: RelaySystem):
    """Every kind, to the last byte, each once; and the run with its meter."""
    system.start_upstream()
    upstream = system.watch_upstream()
    system.relay.start()
    system.broker.start()
    local = system.watch(f"raven/v1/{NODE}/reading/+")
    system.writer.start()
    system.wait_for_log(system.writer, "connected to the broker")
    system.plug_in("--model", "emu2", "--rate", "100", "--count", "500")
    system.reader.start()
    system.assert_complete()
    hash_, accepted = system.accepted()
    system.wait_until_upstream(hash_, list(range(1, accepted + 1)))
    first, second = seen(upstream), seen(local)

    def same() -> bool:
        first.update(seen(upstream))
        second.update(seen(local))
        return first == second

    wait_until(same, "both were said the same")
    (stored,) = system.db["runs"].find()
    assert (stored["_id"], stored["node"], stored["run"]) == (hash_, NODE, "default")
    assert stored["meter"] == system.sql("SELECT meter_id FROM run_info")[0][0]
    wait_until(lambda: set(system.relayed()) == {1}, "every row is confirmed and marked")


@pytest.mark.parametrize("away", ["upstream", "mariadb"])
def test_what_is_away_is_waited_for(system: RelaySystem, mariadb: stack.MariaDb | None, away: str):
    """Killed in the middle and started again: nothing is missing upstream and nothing is there twice."""
    if not mariadb:
        pytest.skip("MYSQL_ADMIN_URL names a server that is not ours to kill")
    system.start_upstream()
    system.relay.start()
    system.start_writing("--rate", "100", "--count", "900")
    for count in (100, 500):
        system.wait_until_relayed(count)
        system.outage({"upstream": system.upstream, "mariadb": mariadb}[away], system.relay)
    system.assert_complete()
    hash_, accepted = system.accepted()
    system.wait_until_upstream(hash_, list(range(1, accepted + 1)))


def test_a_relay_that_is_killed_loses_and_doubles_nothing(system: RelaySystem):
    """Kill -9 at any moment: what was not marked is sent again, and stored once."""
    hash_ = system.fill(MANY)
    system.start_upstream()
    for count in range(500, 4000, 500):
        system.relay.start()
        system.wait_until_relayed(count)
        system.relay.kill()
    system.relay.start()
    system.wait_until_upstream(hash_, list(range(1, MANY + 1)))
    system.wait_until_relayed(MANY)


def test_two_relays_share_the_work_and_one_takes_over_from_the_other(system: RelaySystem):
    """Neither sends what the other sends; what a dead one had under way comes from the other."""
    system.start_upstream()
    upstream = system.watch_upstream()
    hash_, other = system.fill(SIZE), system.another_relay("sql-relay-2")
    relays = {relay: stack.free_port() for relay in (system.relay, other)}
    for relay, port in relays.items():
        relay.env["RAVEN_METRICS_PORT"] = str(port)
        relay.start()
        system.wait_for_log(relay, "connected to the broker")
    count = SIZE
    with closing(system.sql.sink()) as sink:

        def each_has_taken_more_than_a_block() -> bool:
            nonlocal count
            sink.store([reading(hash_, count + number) for number in range(1, SIZE + 1)])
            count += SIZE
            taken = [stack.metric(port, "raven_taken_total") for port in relays.values()]
            return min(taken) > SIZE

        wait_until(each_has_taken_more_than_a_block, "both relays take from what comes")
    system.wait_until_relayed(count)
    copies: Counter[bytes] = Counter()

    def all_seen() -> bool:
        copies.update(seen(upstream))
        return len(copies) == count

    wait_until(all_seen, "the watcher has seen them")
    assert set(copies.values()) == {1}

    with closing(system.sql.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE instantaneous_demand SET relayed = NULL")
    system.wait_until_relayed(SIZE)
    other.kill()
    system.wait_until_relayed(count)
    system.wait_until_upstream(hash_, list(range(1, count + 1)))


def test_rows_that_nobody_takes_are_kept_until_somebody_does(system: RelaySystem):
    """PUBACK 16 is no delivery: the rows are marked as tried, and sent when a store has come."""
    hash_ = system.fill(1200)
    system.start_upstream(recorder=False)
    system.relay.start()
    system.wait_for_log(system.relay, "nobody subscribes, entries are kept")
    system.wait_until_relayed(1200, mark=0)
    system.recorder.start()
    system.wait_for_log(system.recorder, "connected to the broker")
    with closing(system.sql.sink()) as sink:
        sink.store([reading(hash_, 1201)])
    system.wait_until_upstream(hash_, list(range(1, 1202)))
    system.wait_until_relayed(1201)


def of_node(node: str, hash_: str, *seqs: int) -> list[Reading]:
    return [reading(hash_, seq, node=node) for seq in seqs]


def test_a_node_that_the_account_may_not_write_is_said_once_and_holds_up_no_other(
    system: RelaySystem,
):
    """Its rows stay as they are, over connections; once it may, all of them follow by themselves."""
    acl = system.folder / "acl"
    acl.write_text(stack.ACL.read_text())
    config = Path(system.upstream.command[-1])
    config.write_text(config.read_text().replace(str(stack.ACL), str(acl)))
    system.start_upstream()
    mine, others = new_hash(), new_hash()
    with closing(system.sql.sink()) as sink:
        sink.prepare()
        sink.store(of_node("other", others, *range(1, 1201)))
        sink.store(of_node(NODE, mine, *range(1, 6)))
        refused = "problem check=publish:raven/v1/other/reading/instantaneous_demand"
        health = system.folder / "relay-health"
        system.relay.env |= {"RAVEN_HEALTH_FILE": str(health)}
        system.relay.start()
        system.wait_until_upstream(mine, [1, 2, 3, 4, 5])
        assert "Not authorized (0x87)" in system.wait_for_log(system.relay, refused)
        wait_until(lambda: system.relayed() == {1: 5, 0: 1200}, "the others are kept")
        wait_until(
            lambda: system.relay.text().count("connected to the broker") > 1, "they are tried again"
        )
        sink.store(of_node("other", others, 1201) + of_node(NODE, mine, 6))
        system.wait_until_upstream(mine, [1, 2, 3, 4, 5, 6])
        wait_until(lambda: system.relayed() == {1: 6, 0: 1201}, "none of the others was taken")
        assert system.relay.text().count(refused) == 1
        assert "recovered check=publish" not in system.relay.text()
        assert "publish:raven/v1/other/" in health.read_text()

        acl.write_text(acl.read_text() + relay_lines(acl.read_text(), NODE, ["other"]))
        system.upstream.send(signal.SIGHUP)
        sink.store(of_node("other", others, 1202))
        system.wait_until_upstream(others, list(range(1, 1203)))
        system.wait_until_relayed(1208)
    recovered = "recovered check=publish:raven/v1/other/reading/instantaneous_demand"
    assert system.relay.text().count(recovered) == 1
    assert system.relay.text().count(refused) == 1


def test_without_an_upstream_broker_it_is_idle_and_healthy(tmp_path: Path):
    """It says so once, needs no database, and ends when asked."""
    health = tmp_path / "health"
    relay = stack.sql_relay(tmp_path, "mysql://nobody@127.0.0.1:1/none", "")
    relay.env["RAVEN_HEALTH_FILE"] = str(health)
    relay.start()
    wait_until(health.exists, "the health is written")
    command = [sys.executable, "-m", "ravenbus.health", str(health)]
    assert subprocess.run(command, check=False, capture_output=True).stdout == b"healthy\n"
    relay.send(signal.SIGTERM)
    assert relay.wait() == 0
    assert relay.text().count("UPSTREAM_MQTT_URL is not set") == 1


def test_what_is_wrong_is_said_without_a_password(system: RelaySystem):
    """A database that no writer has made yet, and one that refuses the password, are waited for."""
    system.start_upstream()
    system.relay.start()
    text = system.wait_for_log(system.relay, "start a raven-sql-writer")
    system.sql.set_password("other")
    text = system.wait_for_log(system.relay, "see MYSQL_URL")
    assert system.sql.password not in text
    system.sql.set_password(system.sql.password)
    hash_ = system.fill(10)
    system.wait_until_upstream(hash_, list(range(1, 11)))
    system.relay.send(signal.SIGTERM)
    assert system.relay.wait() == 0


# Rows of other programs


def test_the_old_table_reaches_a_recorder_that_knows_nothing_of_sql(system: RelaySystem):
    """5,000 rows of October 2016 without 176 made-up ones, numbered from 1 without a gap."""
    file = DATA / "legacy-instantaneous_demand.csv"
    if not file.exists():
        pytest.skip("the old table is not here: RAVEN_DATA names its folder")
    system.sql.make_legacy()
    system.sql.insert_legacy(file, 5000)
    with closing(system.sql.sink()) as sink:
        sink.prepare()
    system.start_upstream()
    system.relay.start()
    system.wait_until_relayed(5000 - 176)
    assert system.relayed() == {1: 5000 - 176, 2: 176}
    demands = system.db["instantaneous_demand"]
    wait_until(lambda: demands.count_documents({}) == 5000 - 176, "all are upstream")
    found: dict[str, list[int]] = {}
    for one in demands.find({}, {"hash": 1, "seq": 1}):
        found.setdefault(one["hash"], []).append(one["seq"])
    assert all(sorted(seqs) == list(range(1, len(seqs) + 1)) for seqs in found.values())
    (mean,) = demands.aggregate([{"$group": {"_id": None, "kw": {"$avg": "$demand_kw"}}}])
    ((expected,),) = system.sql("SELECT AVG(demand_kw) FROM demand")
    assert mean["kw"] == pytest.approx(float(expected))


def test_a_row_of_an_old_script_has_one_identity_for_good(system: RelaySystem):
    """Sent before a kill -9 and after it: upstream it is one reading; late rows follow on."""
    system.sql.make_legacy()
    system.sql("INSERT INTO run_info (name, hash, meter_id) VALUES ('r', 'h', '0x00135001ABC')")
    for demand in (1437, -1, 250):
        system.sql(OLD_INSERT, demand, 1, 1000, "r", "h")
    with closing(system.sql.sink()) as sink:
        sink.prepare()
    system.start_upstream()
    upstream = system.watch_upstream()
    system.relay.start()
    system.wait_until_relayed(3)
    system.relay.kill()
    system.sql("UPDATE instantaneous_demand SET relayed = NULL")
    system.sql(OLD_INSERT, 99, 1, 1000, "r", "h")
    system.relay.start()
    system.wait_until_relayed(4)
    found = [decode_reading(payload) for payload in seen(upstream)]
    assert sorted(f.envelope.seq for f in found) == [1, 2, 3, 4]
    assert [f.notification.demand for f in sorted(found, key=lambda f: f.envelope.seq)] == [
        *(1437, -1, 250, 99)
    ]
    assert {(f.envelope.node, f.envelope.run, f.notification.meter) for f in found} == {
        (NODE, "r", "0000000135001abc")
    }
    assert {f.notification.time for f in found} == {None}, "the host's clock is not the device's"


# The outbox alone


@pytest.fixture
def new_outbox(db: Db) -> Iterator[Callable[..., SqlOutbox]]:
    """Outboxes of a database whose tables are there, for a relay each."""
    schema.migrate(MysqlUrl(db.url))
    made: list[SqlOutbox] = []

    def new(**options: Any) -> SqlOutbox:
        url, metrics = MysqlUrl(db.url), RelayMetrics()
        made.append(
            SqlOutbox(url, Topics(), metrics, **{"upstream": "mqtt://up"} | options, node=NODE)
        )
        return made[-1]

    yield new
    for one in made:
        one.close()


@pytest.fixture
def outbox(new_outbox: Callable[..., SqlOutbox], monkeypatch: pytest.MonkeyPatch) -> SqlOutbox:
    monkeypatch.setattr(module, "POLL_S", 0)
    monkeypatch.setattr(module, "MARK_AFTER_S", 0)
    monkeypatch.setattr(module, "FROM_START_S", 0)
    return new_outbox()


class Connection:
    """Takes from an outbox as a publisher does in one connection."""

    def __init__(self, outbox: SqlOutbox) -> None:
        self.outbox = outbox
        self.after = 0
        outbox.begin()

    def take(self) -> list[Entry]:
        """Return the next entries, those of readings only."""
        self.outbox.tend()
        entries = self.outbox.entries(self.after, 500)
        if entries:
            self.after = entries[-1].key
        self.outbox.taken([e.key for e in entries if "/reading/" not in e.topic])
        return [e for e in entries if "/reading/" in e.topic]

    def take_all(self) -> list[Entry]:
        """Return the entries until nothing comes, none of them answered."""
        found: list[Entry] = []
        while entries := self.take():
            found += entries
        return found


def end(db: Db, outbox: SqlOutbox) -> None:
    """Close an outbox's connection, and wait until the server has given its locks back."""
    session = outbox._database._connection.thread_id()
    outbox._database.close()
    query = f"SELECT 1 FROM information_schema.processlist WHERE id = {session}"  # noqa: S608 - a number
    wait_until(lambda: not db.admin(query), "the session has ended")


def keys(entries: list[Entry]) -> list[int]:
    return [entry.key for entry in entries]


def seqs(entries: list[Entry]) -> list[int]:
    return [decode_reading(entry.payload).envelope.seq for entry in entries]


def demands(entries: list[Entry]) -> list[int]:
    return [decode_reading(entry.payload).notification.demand for entry in entries]


def test_a_row_that_commits_late_is_missed_by_its_id_and_not_by_us(db: Db, outbox: SqlOutbox):
    """An id is given when a row is inserted and seen when it commits: another order."""
    connection, last = Connection(outbox), 0
    naive: list[int] = []
    ours: list[int] = []

    def poll() -> None:
        nonlocal last
        for id_, demand in db(
            "SELECT id, demand FROM instantaneous_demand WHERE id > %s ORDER BY id", last
        ):
            last = id_
            naive.append(demand)
        found = connection.take_all()
        ours.extend(demands(found))
        outbox.taken(keys(found))

    with closing(db.connect(autocommit=False)) as late:
        run(late, OLD_INSERT, 1, 1, 1, "r", "h")
        db(OLD_INSERT, 2, 1, 1, "r", "h")
        poll()
        late.commit()
    db(OLD_INSERT, 3, 1, 1, "r", "h")
    poll()
    assert naive == [2, 3], "the naive way has lost the first row for good"
    assert sorted(ours) == [1, 2, 3]


def test_a_row_is_marked_by_its_puback_alone(db: Db, sink: MysqlSink, outbox: SqlOutbox):
    """What was taken from the outbox and not answered comes again with the next connection."""
    sink.store([reading(new_hash(), seq) for seq in range(1, 6)])
    first = Connection(outbox).take_all()
    outbox.taken(keys(first)[:2])
    outbox.kept(keys(first)[2:3])
    connection = Connection(outbox)
    again = connection.take_all()
    assert sorted(seqs(first)) == [1, 2, 3, 4, 5]
    assert seqs(again) == seqs(first[3:])
    outbox.taken(keys(again)[:1])
    assert connection.take_all() == []
    outbox.taken(keys(again)[1:])
    kept = connection.take_all()
    assert seqs(kept) == seqs(first[2:3])
    outbox.kept(keys(kept))
    assert connection.take_all() == []
    marks = db("SELECT relayed, COUNT(*) FROM instantaneous_demand GROUP BY relayed")
    assert dict(marks) == {1: 4, 0: 1}


def test_a_row_whose_time_is_zero_is_buried_and_holds_nothing_up(
    db: Db, sink: MysqlSink, outbox: SqlOutbox
):
    """What a session that was not strict wrote is no reading; the others are sent, once."""
    sink.store([reading(new_hash(), seq) for seq in (1, 2)])
    with closing(db.connect(init_command="SET sql_mode = ''")) as lax:
        run(
            lax,
            OLD_INSERT.replace("(demand", "(time, demand").replace("(%s", "(0, %s"),
            7,
            1,
            1,
            "r",
            "h",
        )
        run(lax, OLD_INSERT, 1437, 1, 1000, "r", "h")
    found = Connection(outbox).take_all()
    outbox.taken(keys(found))
    assert len(found) == 3
    assert Connection(outbox).take_all() == []
    ((reason, detail),) = db("SELECT reason, detail FROM dead_letter")
    assert (reason, "the row has no time" in detail) == ("not-contract", True)
    marks = db("SELECT relayed, COUNT(*) FROM instantaneous_demand GROUP BY relayed")
    assert dict(marks) == {1: 3, 2: 1}


def test_new_rows_do_not_wait_for_the_backlog_and_memory_is_bounded(
    sink: MysqlSink, outbox: SqlOutbox
):
    """Of 20 blocks a few are in memory; what is inserted meanwhile is in the next look."""
    hash_, count = new_hash(), 20 * SIZE
    for start in range(1, count + 1, 1000):
        sink.store([reading(hash_, seq) for seq in range(start, start + 1000)])
    connection, taken, waited = Connection(outbox), 0, []
    new = count
    since = 0
    while found := connection.take():
        numbers = seqs(found)
        taken += len(numbers)
        since += len(numbers)
        if new in numbers and taken < count:
            waited.append(since)
            since, new = 0, new + 1
            sink.store([reading(hash_, new)])
        assert len(outbox._entries) <= 2 * SIZE
        outbox.taken(keys(found))
    assert taken == new
    assert len(waited) >= 5
    assert max(waited) <= 4 * SIZE, "rows sent before one that had just been inserted"


def test_two_outboxes_have_no_row_in_common(
    db: Db, sink: MysqlSink, outbox: SqlOutbox, new_outbox: Callable[..., SqlOutbox]
):
    """And when the connection of one ends, what it had not handed out comes from the other."""
    hash_ = new_hash()
    sink.store([reading(hash_, seq) for seq in range(1, 4 * SIZE)])
    one, two = Connection(outbox), Connection(new_outbox())
    first, second = one.take(), two.take()
    assert first
    assert second
    assert not set(seqs(first)) & set(seqs(second))
    end(db, outbox)
    while found := two.take():
        second += found
        two.outbox.taken(keys(found))
    assert set(seqs(first)) | set(seqs(second)) == set(range(1, 4 * SIZE))


def test_what_nobody_took_is_tried_again_when_another_relay_lets_go_of_its_block(
    sink: MysqlSink, outbox: SqlOutbox, new_outbox: Callable[..., SqlOutbox]
):
    """It stands among rows that the other one has on their way, and was the only one to try it."""
    hash_ = new_hash()
    one, two = Connection(outbox), Connection(new_outbox())
    assert two.take_all() == []
    sink.store([reading(hash_, 1)])
    while found := one.take_all():
        outbox.kept(keys(found))
    sink.store([reading(hash_, 2)])
    (others,) = two.take_all()
    again = Connection(outbox)
    assert [again.take_all() for _ in range(3)] == [[]] * 3
    two.outbox.taken([others.key])
    assert two.take_all() == []
    assert seqs(again.take_all()) == [1]


def test_relays_of_one_database_send_to_one_broker(
    db: Db, sink: MysqlSink, new_outbox: Callable[..., SqlOutbox]
):
    """A second one with another upstream is refused, for as long as any other relay works."""
    sink.store([reading(new_hash(), 1)])
    one, two, other = new_outbox(), new_outbox(), new_outbox(upstream="mqtt://elsewhere")
    for outbox in (one, two):
        outbox.entries(0, 1)
    with pytest.raises(FatalError, match="sends this database's rows to mqtt://up, and each"):
        other.entries(0, 1)
    end(db, one)
    two._turn_at = 0
    two.tend()
    with pytest.raises(FatalError, match="sends this database's rows to mqtt://up, and each"):
        other.entries(0, 1)
    end(db, two)
    assert other.entries(0, 1)


def test_a_connection_that_was_lost_to_the_database_sends_nothing_twice(
    db: Db, sink: MysqlSink, outbox: SqlOutbox
):
    """What was handed out is still on its way: it is answered later and not read again."""
    sink.store([reading(new_hash(), seq) for seq in range(1, 700)])
    connection = Connection(outbox)
    first = connection.take()
    end(db, outbox)
    second = connection.take_all()
    assert sorted(seqs(first) + seqs(second)) == list(range(1, 700))
    outbox.taken(keys(first) + keys(second))
    assert connection.take_all() == []
    assert db("SELECT COUNT(*) FROM instantaneous_demand WHERE relayed = 1") == ((699,),)


def test_what_is_no_reading_is_in_the_dead_letters_and_the_rest_goes_on(
    db: Db, sink: MysqlSink, outbox: SqlOutbox
):
    """Rows that another program wrote beside the contract are kept with their reason, once."""
    hash_ = new_hash()
    sink.store([reading(hash_, 1)])
    for run_name, hash_of_run, demand in (("x" * 200, "h", 1), ("", "h", 2), ("r", "h", 3)):
        db(OLD_INSERT, demand, 1, 1000, run_name, hash_of_run)
    db(OLD_INSERT, 5, -7, 1000, "r", "h")
    into = "INSERT INTO notification (node, kind, body, run, hash, seq, received) VALUES "
    db(into + "('n', 'message_cluster', 'no json', 'r', %s, 2, NOW())", hash_)
    db(into + "('n', 'unheard_of', '{}', 'r', %s, 3, NOW())", hash_)
    db(into + "('dead', 'warning', '{}', 'r', 'no uuid', 4, NULL)")
    connection = Connection(outbox)
    found = connection.take_all()
    outbox.taken(keys(found))
    assert connection.take_all() == []
    assert sorted(demands(found)) == [3, 1437]
    letters = db("SELECT service, reason, detail, payload FROM dead_letter ORDER BY detail")
    assert {service for service, *_ in letters} == {"sql-relay"}
    assert Counter(reason for _, reason, _, _ in letters) == {"not-contract": 5, "not-json": 1}
    assert "x" * 200 in {json.loads(payload)["run"] for *_, payload in letters}
    marks = db("SELECT relayed, COUNT(*) FROM instantaneous_demand GROUP BY relayed")
    assert dict(marks) == {1: 2, 2: 3}


def test_what_nobody_takes_is_tried_a_block_at_a_time(db: Db, sink: MysqlSink, outbox: SqlOutbox):
    """A million rows without a subscriber are not sent anew with each connection."""
    hash_ = new_hash()
    sink.store([reading(hash_, seq) for seq in range(1, 3 * SIZE)])
    connection = Connection(outbox)
    while found := connection.take():
        outbox.kept(keys(found))
    tried: list[int] = []
    for _ in range(5):
        connection, before = Connection(outbox), len(tried)
        while found := connection.take():
            tried += seqs(found)
            outbox.kept(keys(found))
        assert len(tried) - before <= SIZE
    assert set(tried) == set(range(1, 3 * SIZE))
    connection = Connection(outbox)
    while found := connection.take():
        outbox.taken(keys(found))
    outbox.tend()
    taken = db("SELECT COUNT(*) FROM instantaneous_demand WHERE relayed = 1")
    assert taken >= ((SIZE,),), "once somebody takes them the rest follows"


def test_what_may_not_be_sent_is_tried_once_in_a_connection_and_passed_over(
    db: Db, sink: MysqlSink, outbox: SqlOutbox, monkeypatch: pytest.MonkeyPatch
):
    """However many such rows come first, others that nobody took so far are not kept waiting."""
    mine, others = new_hash(), new_hash()
    for start in range(1, 10 * SIZE, SIZE):
        sink.store(of_node("other", others, *range(start, start + SIZE)))
    sink.store(of_node(NODE, mine, *range(1, 11)))
    forbidden = frozenset({"raven/v1/other/reading/instantaneous_demand"})

    def connected(*, heard: bool) -> tuple[int, int]:
        """Return how many of either node a connection sends; the broker has a subscriber if heard."""
        connection, sent = Connection(outbox), Counter[str]()
        for _ in range(50):  # a look that passes a block over brings nothing
            found = connection.take()
            here = {entry.key: decode_reading(entry.payload).node for entry in found}
            if "other" in here.values():
                outbox.forbidden(forbidden)
            sent.update(here.values())
            outbox.kept([key for key, node in here.items() if node == "other" or not heard])
            outbox.taken([key for key, node in here.items() if node == NODE and heard])
        return sent[NODE], sent["other"]

    assert connected(heard=False)[1] >= 10 * SIZE
    mine_sent, others_sent = connected(heard=True)
    assert mine_sent == 10
    assert 0 < others_sent <= SIZE
    assert db("SELECT COUNT(*) FROM instantaneous_demand WHERE relayed = 1") == ((10,),)
    monkeypatch.setattr(outbox._source, "entries", lambda *_: pytest.fail("it is looked at again"))
    for _ in range(5):
        assert outbox.entries(0, 500) == []


def test_a_run_is_sent_before_its_readings_and_again_when_its_meter_is_known(
    sink: MysqlSink, outbox: SqlOutbox
):
    """What the store upstream knows of a run is what the database knows."""
    hash_ = new_hash()
    began = Run(node=NODE, run="r", hash=hash_, started=T0)
    sink.store([began, reading(hash_, 1, meter=None)])
    first = outbox.entries(0, 500)
    outbox.taken(keys(first))
    sink.store([reading(hash_, 2)])
    second = outbox.entries(first[-1].key, 500)
    runs = [decode(entries[0].payload, Run) for entries in (first, second)]
    assert [entries[0].topic for entries in (first, second)] == [f"raven/v1/{NODE}/run"] * 2
    assert [r.meter for r in runs] == [None, METER]
    assert {(r.hash, r.run, r.started) for r in runs} == {(hash_, "r", T0.replace(microsecond=0))}


def test_an_older_or_newer_database_is_not_touched(db: Db, outbox: SqlOutbox):
    """The writer goes first; a relay that does not know the tables stops."""
    outbox._database.close()
    db("DELETE FROM schema_version WHERE version > 1")
    with pytest.raises(RetryableError, match="start a raven-sql-writer"):
        outbox.entries(0, 1)
    db("INSERT INTO schema_version (version, name) VALUES (99, 'later')")
    with pytest.raises(FatalError, match="run a newer release"):
        outbox.entries(0, 1)


def test_every_kind_comes_back_from_its_row_as_it_was(sink: MysqlSink, outbox: SqlOutbox):
    """Nothing of a reading is lost between the local broker and the one upstream."""
    hash_ = new_hash()
    batch = [
        Reading(Envelope(node=NODE, run="ü€", hash=hash_, seq=seq, received=T0), notification)
        for seq, notification in enumerate(every_kind(), 1)
    ]
    sink.store(batch)
    found = sorted(
        Connection(outbox).take_all(), key=lambda e: decode_reading(e.payload).envelope.seq
    )
    assert [entry.payload for entry in found] == [encode(one) for one in batch]
    assert [entry.topic for entry in found] == [
        Topics().of(READING, node=NODE, kind=b.kind) for b in batch
    ]


def confirm(outbox: SqlOutbox, store: str, hash_: str, *ranges: tuple[int, int]) -> None:
    outbox.confirmed(Confirmation(node=NODE, store=store, runs={hash_: list(ranges)}))


def relayed(db: Db) -> list[int | None]:
    return [mark for (mark,) in db("SELECT relayed FROM instantaneous_demand ORDER BY seq")]


def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("POLL_S", "MARK_AFTER_S", "FROM_START_S"):
        monkeypatch.setattr(module, pause, 0)


def test_a_row_is_marked_when_every_store_upstream_has_it(
    db: Db, sink: MysqlSink, new_outbox: Callable[..., SqlOutbox], monkeypatch: pytest.MonkeyPatch
):
    """What was taken, and a store has passed over, is sent again; nothing else is."""
    at_once(monkeypatch)
    clock, hash_ = Clock(), new_hash()
    outbox = new_outbox(clock=clock)
    connection = Connection(outbox)

    def after(turns: int) -> list[int]:
        found = []
        for _ in range(turns):
            clock.now += TURN_S
            entries = connection.take_all()
            outbox.taken(keys(entries))
            found += seqs(entries)
        return found

    sink.store([reading(hash_, seq) for seq in range(1, 6)])
    confirm(outbox, "raven-mongo-recorder", hash_)
    outbox.taken(keys(connection.take_all()))
    assert relayed(db) == [None] * 5
    confirm(outbox, "raven-mongo-recorder", hash_, (1, 2), (5, 10**12))
    assert connection.take_all() == []
    assert relayed(db) == [1, 1, None, None, 1]
    after(1)
    sink.store([reading(hash_, 6)])
    assert after(1) == [6]
    confirm(outbox, "raven-mongo-recorder", hash_, (6, 6))
    again = after(PATIENCE_TURNS + 1)
    assert sorted(again) == [3, 4], "the store has confirmed what was sent after them"
    assert outbox._metrics.sent_again._value.get() == 2
    confirm(outbox, "raven-mongo-recorder", hash_, (3, 4))
    assert after(10 * PATIENCE_TURNS) == []
    assert relayed(db) == [1] * 6

    another = new_outbox(clock=clock)
    sink.store([reading(hash_, seq) for seq in range(7, 10)])
    connection = Connection(another)
    found = connection.take_all()
    another.taken(keys(found))
    connection.take_all()
    assert relayed(db)[6:] == [None] * 3, "another relay knows of the store"


class Upstream:
    """A broker upstream and stores with a queue each, which take so many readings in a turn."""

    def __init__(self, outbox: SqlOutbox, clock: Clock, sink: MysqlSink, *names: str) -> None:
        self.clock, self.sink = clock, sink
        self.hash = new_hash()
        self.connections = [Connection(outbox)]
        self.queues: dict[str, deque[int]] = {name: deque() for name in names}
        self.stored: dict[str, Counter[int]] = {name: Counter() for name in names}
        self.inserted = 0
        for name in names:
            confirm(outbox, name, self.hash)

    def turn(self, new: int, **capacity: int) -> list[int]:
        """Let a turn pass in which rows come and stores take; return what is sent."""
        self.clock.now += TURN_S
        for start in range(self.inserted + 1, self.inserted + new + 1, 500):
            numbers = range(start, min(start + 500, self.inserted + new + 1))
            self.sink.store([reading(self.hash, seq) for seq in numbers])
        self.inserted += new
        found: list[Entry] = []
        for connection in self.connections:
            while entries := connection.take():
                connection.outbox.taken(keys(entries))
                found += entries
        for name, queue in self.queues.items():
            queue.extend(seqs(found))
            taken = [queue.popleft() for _ in range(min(len(queue), capacity.get(name, 0)))]
            self.stored[name].update(taken)
            ranges = merged((seq, seq) for seq in taken)
            for connection in self.connections if ranges else ():
                confirm(connection.outbox, name, self.hash, *ranges)
        return seqs(found)

    def instead(self, *outboxes: SqlOutbox) -> None:
        """Let other relays take the place of those that work."""
        for connection in self.connections:
            connection.outbox.close()
        self.connections = [Connection(outbox) for outbox in outboxes]


@pytest.fixture
def upstream(
    sink: MysqlSink, new_outbox: Callable[..., SqlOutbox], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Upstream]:
    at_once(monkeypatch)
    clock = Clock()

    def new(*names: str, **options: Any) -> Upstream:
        return Upstream(new_outbox(clock=clock, **options), clock, sink, *names)

    return new


def test_what_is_lost_is_sent_again_however_much_waits(
    db: Db, upstream: Callable[..., Upstream], monkeypatch: pytest.MonkeyPatch
):
    """More wait than are read at once, and the broker has lost all of them."""
    monkeypatch.setattr(module, "WAITING_MAX", 800)
    those = upstream("store")
    those.turn(2600)
    those.queues["store"].clear()
    for _ in range(200):
        those.turn(0, store=300)
    assert set(those.stored["store"]) == set(range(1, 2601))
    assert max(those.stored["store"].values()) <= 2
    assert set(relayed(db)) == {1}


def test_a_row_that_nothing_follows_is_not_sent_without_end(
    db: Db, upstream: Callable[..., Upstream]
):
    """A store is gone, and no more rows come: the last one asks it, more and more rarely."""
    those = upstream("here", "gone")
    for _ in range(30):
        those.turn(1, here=9)
    sent = [those.turn(0, here=9) for _ in range(720)]
    assert sum(map(len, sent)) <= 16, "in an hour"
    those.queues["gone"].clear()
    for _ in range(200):
        those.turn(0, here=99, gone=99)
    assert set(those.stored["gone"]) == set(range(1, 31)), "it is back without its session"
    assert set(relayed(db)) == {1}


def test_relays_share_what_is_parked(
    db: Db, upstream: Callable[..., Upstream], new_outbox: Callable[..., SqlOutbox]
):
    """Rows that went meanwhile, by another relay or by hand, keep nothing else from being sent."""
    those = upstream("here", "gone")
    for _ in range(40):
        those.turn(20, here=100)
    those.queues["gone"].clear()
    those.instead(new_outbox(clock=those.clock), new_outbox(clock=those.clock))
    db("DELETE FROM instantaneous_demand WHERE seq BETWEEN 101 AND 200")
    for _ in range(150):
        those.turn(1, here=400, gone=400)
    left = set(range(1, those.inserted + 1)) - set(range(101, 201))
    assert set(those.stored["gone"]) >= left
    for _ in range(PATIENCE_TURNS):
        those.turn(0, here=400, gone=400)
    assert set(relayed(db)) == {1}
    assert db("SELECT COUNT(*) FROM relay_waiting") == ((0,),)


def test_a_relay_settles_nothing_for_a_store_that_another_learned(
    db: Db, upstream: Callable[..., Upstream], new_outbox: Callable[..., SqlOutbox]
):
    """It has not heard of it itself, as its confirmations have QoS 0."""
    those = upstream("here")
    other = new_outbox(clock=those.clock)
    other.entries(0, 1)
    confirm(those.connections[0].outbox, "late", those.hash)
    for _ in range(30):
        those.turn(5, here=99)
        other.tend()
    marks = Counter(relayed(db))
    assert marks[3] > 50
    assert not marks[1]
    db("UPDATE relay_store SET heard = -1 WHERE name = 'late'")
    for _ in range(3):
        those.turn(0, here=99)
    assert set(relayed(db)) == {1}, "and forgets it when another one has"


def test_a_store_is_forgotten_a_part_at_a_time(
    db: Db, upstream: Callable[..., Upstream], monkeypatch: pytest.MonkeyPatch
):
    """A million rows would hold the relay up for longer than it may hang."""
    monkeypatch.setattr(waiting, "AT_ONCE", 10)
    those = upstream("here", "gone")
    for _ in range(30):
        those.turn(20, here=99)
    parked = Counter(relayed(db))[3]
    db("UPDATE relay_store SET heard = -1 WHERE name = 'gone'")
    those.turn(0, here=99)
    assert Counter(relayed(db))[3] == parked - 10 * module.FORGET_BATCHES
    for _ in range(parked // 10):
        those.turn(0, here=99)
    assert set(relayed(db)) == {1}


def test_what_is_parked_is_settled_by_the_first_word_after_a_restart(
    db: Db, upstream: Callable[..., Upstream], new_outbox: Callable[..., SqlOutbox]
):
    """And when nobody is waited for any longer, nothing stays parked."""
    those = upstream("here", "gone")
    for _ in range(30):
        those.turn(5, here=99)
    parked = Counter(relayed(db))[3]
    those.instead(new_outbox(clock=those.clock))
    those.connections[0].outbox.entries(0, 1)
    confirm(those.connections[0].outbox, "gone", those.hash, (1, 10))
    assert Counter(relayed(db))[3] == parked - 10
    db("UPDATE relay_store SET heard = -1")
    for _ in range(3):
        those.turn(0)
    assert not Counter(relayed(db))[3]


def test_turns_go_on_over_restarts(
    upstream: Callable[..., Upstream],
    new_outbox: Callable[..., SqlOutbox],
    monkeypatch: pytest.MonkeyPatch,
):
    """A store that is gone is said and forgotten, however often the relay starts meanwhile."""
    monkeypatch.setattr(resending, "DAY_TURNS", 60)
    those = upstream("gone")
    healths = []
    for _ in range(10):
        those.turn(1)
        for _ in range(30):
            those.turn(0)
        healths.append(Health())
        those.instead(new_outbox(clock=those.clock, health=healths[-1]))
    assert "gone has confirmed nothing for" in healths[-2].problems()["stores"]


def test_a_store_that_is_named_counts_however_many_there_were(
    db: Db, upstream: Callable[..., Upstream]
):
    """Names that were forgotten use nothing up."""
    for number in range(STORES_MAX):
        db("INSERT INTO relay_store (name, heard) VALUES (%s, -1)", f"old-{number}")
    those = upstream("mine", stores=Stores("mine"))
    those.turn(3)
    those.turn(0)
    assert relayed(db) == [None] * 3


def test_a_store_that_is_gone_costs_the_others_nothing(
    db: Db, sink: MysqlSink, new_outbox: Callable[..., SqlOutbox], monkeypatch: pytest.MonkeyPatch
):
    """Rows that lack it alone are parked, and none is sent twice; when it is back it gets all."""
    at_once(monkeypatch)
    monkeypatch.setattr(module, "WAITING_MAX", 400)
    clock = Clock()
    outbox = new_outbox(clock=clock)
    those = Upstream(outbox, clock, sink, "here", "gone")
    sent = [seq for _ in range(60) for seq in those.turn(20, here=100)]
    assert sorted(sent) == list(range(1, 1201)), "each once, more than may wait in memory"
    assert set(those.stored["here"].values()) == {1}
    marks = Counter(relayed(db))
    assert marks[3] >= 900
    assert not marks[1]

    those.queues["gone"].clear()  # its session has expired
    those.instead(new_outbox(clock=clock))
    for _ in range(60):
        those.turn(1, here=400, gone=400)
    assert set(those.stored["gone"]) == set(range(1, those.inserted + 1))
    assert max(those.stored["gone"].values()) <= 2
    assert set(relayed(db)[:1200]) == {1}
    assert db("SELECT COUNT(*) FROM relay_waiting") == ((0,),)


def test_after_an_outage_nothing_is_sent_again_that_waits_in_a_queue(
    db: Db, sink: MysqlSink, new_outbox: Callable[..., SqlOutbox], monkeypatch: pytest.MonkeyPatch
):
    """Of two stores one was away: it works off its queue, its confirmations settle what is parked."""
    at_once(monkeypatch)
    clock = Clock()
    outbox = new_outbox(clock=clock)
    those = Upstream(outbox, clock, sink, "here", "away")
    for _ in range(60):
        those.turn(20, here=100)
    distance = 1200
    while distance > 20:
        those.turn(20, here=100, away=50)
        assert distance - len(those.queues["away"]) >= 0.8 * 30, "it falls as fast as it can"
        distance = len(those.queues["away"])
    for _ in range(PATIENCE_TURNS):
        those.turn(0, here=100, away=50)
    for stored in those.stored.values():
        assert stored == Counter(range(1, those.inserted + 1)), "each once"
    those.turn(0)
    assert set(relayed(db)) == {1}


def test_a_store_that_is_gone_for_good_is_forgotten(
    db: Db, sink: MysqlSink, new_outbox: Callable[..., SqlOutbox], monkeypatch: pytest.MonkeyPatch
):
    """After a day it is said, after thirty nothing waits for it, not even what was parked."""
    at_once(monkeypatch)
    monkeypatch.setattr(resending, "DAY_TURNS", 40)
    clock, health = Clock(), Health()
    outbox = new_outbox(clock=clock, health=health)
    those = Upstream(outbox, clock, sink, "here", "gone")
    for _ in range(45):
        those.turn(1, here=9)
    assert "gone has confirmed nothing for 1 d" in health.problems()["stores"]
    assert db("SELECT COUNT(*) > 0 FROM relay_waiting") == ((1,),)
    for _ in range(40 * 30):
        those.turn(0, here=9)
    those.turn(1, here=9)
    those.turn(0)
    assert "stores" not in health.problems()
    assert set(relayed(db)) == {1}
    assert db("SELECT COUNT(*) FROM relay_waiting") == ((0,),)
    those.turn(1, gone=100)
    those.turn(1, here=100)
    those.turn(0)
    assert relayed(db)[-1] is None, "it is waited for again as soon as it confirms anything"


def test_a_store_that_is_named_is_waited_for(
    db: Db, sink: MysqlSink, new_outbox: Callable[..., SqlOutbox], monkeypatch: pytest.MonkeyPatch
):
    """It need not have said a word, others do not count, and few rows wait in memory."""
    at_once(monkeypatch)
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    hash_ = new_hash()
    sink.store([reading(hash_, seq) for seq in range(1, 6)])
    outbox = new_outbox(stores=Stores("mine"))
    connection = Connection(outbox)
    outbox.taken(keys(connection.take_all()))
    confirm(outbox, "yours", hash_, (1, 5))
    connection.take_all()
    assert relayed(db) == [None] * 5
    sink.store([reading(hash_, 6)])
    assert connection.take_all() == []
    confirm(outbox, "mine", hash_, (1, 5))
    assert seqs(connection.take_all()) == [6]
    assert relayed(db) == [1, 1, 1, 1, 1, None]


def test_a_store_that_is_slower_than_the_relay_gets_everything_once(
    sink: MysqlSink, new_outbox: Callable[..., SqlOutbox], monkeypatch: pytest.MonkeyPatch
):
    """Rows that wait in its session are not sent again because others were sent after them."""
    at_once(monkeypatch)
    monkeypatch.setattr(module, "WAITING_MAX", SIZE)
    hash_, count = new_hash(), 6 * SIZE
    for start in range(1, count + 1, SIZE):
        sink.store([reading(hash_, seq) for seq in range(start, start + SIZE)])
    outbox = new_outbox(stores=Stores("slow"), clock=Clock())
    connection, queue, sent = Connection(outbox), [], 0
    while (found := connection.take_all()) or queue:
        queue += seqs(found)
        sent += len(found)
        outbox.taken(keys(found))
        confirm(outbox, "slow", hash_, *((one, one) for one in queue[: SIZE // 2]))
        del queue[: SIZE // 2]
        assert sent <= count
    assert sent == count


def test_a_row_does_not_wait_for_the_confirmation_of_its_neighbour(
    sink: MysqlSink, new_outbox: Callable[..., SqlOutbox], monkeypatch: pytest.MonkeyPatch
):
    """What is inserted while a store is away goes to the broker at once."""
    at_once(monkeypatch)
    hash_ = new_hash()
    outbox = new_outbox(stores=Stores("away"), clock=Clock())
    connection = Connection(outbox)
    for seq in (1, 2, 3):
        sink.store([reading(hash_, seq)])
        found = connection.take_all()
        assert seqs(found) == [seq]
        outbox.taken(keys(found))
