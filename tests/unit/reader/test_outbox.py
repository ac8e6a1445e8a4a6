"""What the spool keeps until stores confirm it, and what it sends again."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

import pytest

from raven_reader import outbox as module
from raven_reader.outbox import BACKLOG_TURNS, KEEP_TURNS, TURN_S, Backlog, SpoolOutbox
from raven_reader.spool import Spool, disk_errors
from ravenbus import resending
from ravenbus.confirming import Stores
from ravenbus.errors import PoisonError, RetryableError
from ravenbus.health import Health
from ravenbus.messages import Confirmation, decode_reading
from ravenbus.metrics import PublisherMetrics
from ravenbus.resending import AT_ONCE_FIRST, PATIENCE_S
from ravenbus.topics import Topics
from tests.unit.ravenbus.fakes import Clock

from .fakes import Crowded
from .test_spool import LETTER, NOON, reading

PATIENCE_TURNS = int(PATIENCE_S / TURN_S)
SQL, MONGO = "raven-sql-writer", "raven-mongo-recorder"


class Home:
    """A spool and its outbox, from which a subscriber takes whatever is sent."""

    def __init__(self, folder, stores="auto"):
        self.path = folder / "spool.sqlite"
        self.stores = Stores(stores)
        self.clock = Clock()
        self.given_up = []
        self.metrics = PublisherMetrics()
        self.health = Health()
        self.spool = Spool(self.path, Topics(), max_mb=1, on_given_up=self.given_up.append)
        self.spool.begin("home", "default", NOON)
        self.restart()

    def restart(self):
        self.outbox = SpoolOutbox(
            self.path,
            metrics=self.metrics,
            stores=self.stores,
            health=self.health,
            clock=self.clock,
        )

    def accept(self, *numbers):
        return self.spool.accept([reading(number) for number in numbers], [])

    def send(self):
        """Have what is due taken; return the numbers of the readings."""
        self.outbox.tend()
        entries = self.outbox.entries(0, 10_000)
        self.outbox.taken([entry.key for entry in entries])
        found = [decode_reading(e.payload) for e in entries if "/reading/" in e.topic]
        return [one.envelope.seq for one in found]

    def after(self, turns):
        """Let turns pass and return the numbers that are sent meanwhile."""
        sent = []
        for _ in range(turns):
            self.clock.now += TURN_S
            sent += self.send()
        return sent

    def confirm(self, store, *ranges, letters=()):
        runs = {self.spool.run.hash: list(ranges)} if ranges else {}
        said = Confirmation(node="home", store=store, runs=runs, letters=list(letters))
        self.outbox.confirmed(said)

    def kept(self):
        with sqlite3.connect(self.path) as db:
            return [seq for (seq,) in db.execute("SELECT seq FROM outbox ORDER BY seq")]


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def test_what_every_store_confirmed_is_forgotten_after_a_while(home):
    """Neither the first store's word nor age alone removes a reading; both together do."""
    home.accept(1, 2, 3)
    home.confirm(SQL)
    home.confirm(MONGO)
    assert home.send() == [1, 2, 3]
    home.confirm(SQL, (1, 3))
    home.confirm(MONGO, (1, 2))
    assert home.outbox.unconfirmed() == 1
    assert home.metrics.confirmed._value.get() == 2
    home.after(KEEP_TURNS + 1)
    assert home.kept() == [3]
    home.confirm(MONGO, (3, 3))
    home.after(KEEP_TURNS + 1)
    assert home.kept() == []


def test_what_a_store_passed_over_is_sent_again(home):
    """A minute after it has confirmed what was sent later, and nothing else is."""
    home.confirm(SQL)
    home.accept(1, 2, 3)
    home.send()
    home.after(1)
    home.accept(4, 5)
    home.send()
    home.confirm(SQL, (1, 1), (4, 4))
    assert home.after(PATIENCE_TURNS) == []
    home.confirm(SQL, (5, 5))
    assert home.after(1) == [2, 3]
    assert home.metrics.sent_again._value.get() == 2
    home.confirm(SQL, (2, 3))
    assert home.after(20 * PATIENCE_TURNS) == []
    assert home.outbox.unconfirmed() == 0


def test_what_could_not_be_noted_as_lost_is_lost_still(home, monkeypatch):
    """A disk that fails while it is sent again takes nothing from what is sent again later."""
    home.confirm(SQL)
    home.accept(1)
    home.send()
    home.after(1)
    home.accept(2)
    home.send()
    home.confirm(SQL, (2, 2))
    assert home.after(PATIENCE_TURNS) == []

    def fails():
        raise RetryableError("the disk fails")

    with monkeypatch.context() as failing:
        failing.setattr(home.outbox, "_forget_silent", fails)
        with pytest.raises(RetryableError):
            home.after(1)
    assert home.after(1) == [1]


def test_a_long_queue_is_no_loss(home):
    """What a store works off for an hour, in order, is not sent a second time."""
    home.confirm(SQL)
    for number in range(720):
        home.accept(number)
        home.send()
        assert home.after(1) == []
    for number in range(0, 720, 4):
        home.confirm(SQL, (number + 1, number + 4))
        assert home.after(1) == []
    assert home.outbox.unconfirmed() == 0


def test_a_store_that_is_away_is_asked_more_and_more_rarely(home):
    """It has what was sent in its session: the last reading, alone, finds out what became of that."""
    home.confirm(SQL)
    home.accept(*range(100))
    home.send()
    asked = home.after(int(3600 / TURN_S))
    assert set(asked) == {100}
    assert 13 <= len(asked) <= 16


def test_what_nothing_follows_is_found_to_be_lost(home):
    """The last one is sent again alone; confirmed, it shows that what came before it is lost."""
    home.confirm(SQL)
    home.accept(*range(10))
    home.send()
    assert home.after(4) == [10]
    home.confirm(SQL, (10, 10))
    assert home.after(PATIENCE_TURNS + 2) == list(range(1, 10))


def test_what_was_sent_twice_shows_no_more_than_its_first_sending(home):
    """Either may have arrived: what was sent between them may still be in the queue."""
    home.confirm(SQL)
    home.accept(1)
    home.send()
    assert home.after(4) == [1]
    home.accept(2)
    home.send()
    home.confirm(SQL, (1, 1))
    home.accept(3)
    home.send()
    assert 2 not in home.after(PATIENCE_TURNS + 2)


def test_as_much_is_sent_again_as_a_store_keeps_up_with(home):
    """Twice as much while it does, half as much when that is lost too."""
    home.confirm(SQL)
    home.accept(*range(500))
    home.send()
    home.after(1)
    home.accept(0)
    home.send()
    home.confirm(SQL, (501, 501))
    home.after(PATIENCE_TURNS)
    first = home.after(1)
    assert first == list(range(1, AT_ONCE_FIRST + 1))
    assert home.after(2) == [], "nothing more before that is there"
    home.confirm(SQL, (1, AT_ONCE_FIRST))
    assert home.after(1) == list(range(AT_ONCE_FIRST + 1, 3 * AT_ONCE_FIRST + 1))
    # None of these arrives.
    home.accept(0)
    home.after(1)
    home.confirm(SQL, (502, 502))
    home.after(PATIENCE_TURNS)
    again = home.after(1)
    assert len(again) == AT_ONCE_FIRST


def test_a_store_that_comes_late_gets_what_is_kept(home):
    """Whoever is switched on a little after another gets what came before its session."""
    home.accept(1, 2)
    home.confirm(SQL)
    home.send()
    home.confirm(SQL, (1, 2))
    assert home.after(PATIENCE_TURNS + 1) == []
    home.confirm(MONGO)
    home.accept(3)
    home.send()
    home.confirm(MONGO, (3, 3))
    home.confirm(SQL, (3, 3))
    assert home.after(PATIENCE_TURNS + 2) == [1, 2]


def test_a_restart_forgets_no_confirmation_and_no_store(home):
    """Which stores there are, what they have, and what was sent, is in the file."""
    home.confirm(SQL)
    home.confirm(MONGO)
    home.accept(1, 2)
    home.send()
    home.confirm(SQL, (1, 2))
    home.confirm(MONGO, (1, 1))
    home.restart()
    assert home.send() == []
    assert home.outbox.unconfirmed() == 1
    home.accept(3)
    home.send()
    home.confirm(SQL, (3, 3))
    home.confirm(MONGO, (3, 3))
    assert home.after(PATIENCE_TURNS + 2) == [2]


def test_stores_that_are_named_are_waited_for_and_no_other(tmp_path):
    """A store that never said a word is waited for when it is named."""
    home = Home(tmp_path, stores=f"{SQL},elsewhere")
    home.accept(1)
    home.send()
    home.confirm(MONGO, (1, 1))
    home.confirm(SQL, (1, 1))
    assert home.outbox.unconfirmed() == 1
    home.after(KEEP_TURNS + 2)
    assert home.kept() == [1]
    home.confirm("elsewhere", (1, 1))
    home.after(KEEP_TURNS + 2)
    assert home.kept() == []
    home.stores = Stores(MONGO)
    home.restart()
    home.accept(2)
    home.send()
    home.confirm(MONGO, (2, 2))
    assert home.outbox.unconfirmed() == 0


def test_dead_letters_are_confirmed_too(home):
    """A letter of the reader's waits for its stores like a reading, by its id."""
    home.confirm(SQL)
    home.spool.accept([], [LETTER])
    home.send()
    assert home.outbox.unconfirmed() == 1
    home.confirm(SQL, letters=[LETTER.id])
    assert home.outbox.unconfirmed() == 0


def test_a_full_spool_gives_up_what_subscribers_took(home):
    """New readings come before waiting for stores, and it is counted."""
    home.confirm(SQL)
    while not home.given_up:
        home.accept(*range(100))
        home.send()
    assert sum(home.given_up) == home.given_up[0] == 1000
    assert home.kept()[0] == 1001


def test_a_full_spool_never_gives_up_what_nobody_took(home):
    """Without a subscriber a full spool takes nothing more."""
    home.accept(*range(100))
    with Crowded(home.spool), pytest.raises(RetryableError, match="full"):
        home.accept(*range(10_000))
    assert home.kept() == list(range(1, 101))


def test_a_full_spool_has_room_to_note_what_was_taken(home):
    """A spool that nobody emptied until it was full is emptied like any other."""
    home.confirm(SQL)
    with suppress(RetryableError):
        while True:
            home.accept(*range(20))
    numbers = home.send()
    home.confirm(SQL, (1, len(numbers)))
    home.confirm(MONGO, (1, len(numbers)))
    assert home.outbox.depth()[0] == home.outbox.unconfirmed() == 0
    assert home.kept() == numbers


def test_a_full_spool_sends_again_what_a_store_lacks(home):
    """It would otherwise be given up although the store is there to take it."""
    home.confirm(SQL)
    with suppress(RetryableError):
        while True:
            home.accept(*range(20))
    last = home.send()[-1]
    home.confirm(SQL, (last, last))
    home.after(PATIENCE_TURNS)
    assert home.after(1) == list(range(1, AT_ONCE_FIRST + 1))


def test_what_is_confirmed_is_given_up_first(home):
    """A full spool needs nothing of that, whereas what is not confirmed may be the only copy."""
    home.confirm(SQL)
    home.accept(*range(10))
    home.send()
    with suppress(RetryableError):
        while True:
            home.spool._accept([reading(1)], [])
    last = home.send()[-1]
    home.confirm(SQL, (11, last))
    home.accept(1)
    assert home.kept()[:11] == [*range(1, 11), 1011]
    assert home.given_up == []


def test_nothing_is_given_up_because_the_file_is_busy(home, monkeypatch):
    """Room is made only where there is none."""
    home.confirm(SQL)
    home.accept(1, 2)
    home.send()
    accept = home.spool._accept

    def busy(*_):
        monkeypatch.setattr(home.spool, "_accept", accept)
        with disk_errors():
            raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(home.spool, "_accept", busy)
    with pytest.raises(RetryableError, match="locked"):
        home.accept(3)
    assert home.kept() == [1, 2]
    assert home.given_up == []


def test_what_is_confirmed_while_the_disk_fails_is_confirmed_later(home):
    """A confirmation that cannot be noted is an error that says so, and changes nothing."""
    home.confirm(SQL)
    home.accept(1)
    home.send()
    other = sqlite3.connect(home.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    home.outbox._db.execute("PRAGMA busy_timeout = 0")
    for store in (SQL, MONGO):
        with pytest.raises(RetryableError):
            home.confirm(store, (1, 1))
    other.execute("ROLLBACK")
    other.close()
    assert home.outbox.unconfirmed() == 1
    home.confirm(SQL, (1, 1))
    assert home.outbox.unconfirmed() == 0


def test_a_store_that_is_gone_is_said_after_a_day_and_forgotten_after_thirty(home, monkeypatch):
    """Its readings would fill the spool of every home; it counts again when it speaks again."""
    monkeypatch.setattr(resending, "DAY_TURNS", 40)
    home.confirm(SQL)
    home.confirm(MONGO)
    home.accept(1)
    home.send()
    home.after(2)
    for day in range(1, 30):
        home.confirm(SQL, (1, 1))
        home.after(40)
        assert home.health.problems() == {
            "stores": f"{MONGO} has confirmed nothing for {day} d: "
            "is it gone for good, say so with raven-verify --gone"
        }
    home.after(80)
    assert home.health.problems() == {}
    assert home.outbox.unconfirmed() == 0
    home.restart()
    assert home.outbox.unconfirmed() == 0
    home.accept(2)
    home.send()
    home.confirm(MONGO)
    assert home.outbox.unconfirmed() >= 1


def test_a_store_that_is_said_to_be_gone_is_forgotten_after_a_day(home, monkeypatch):
    """Not sooner, for it may be said by mistake; and no longer once it is said to be back."""
    monkeypatch.setattr(resending, "DAY_TURNS", 20)
    home.confirm(SQL)
    home.confirm(MONGO)
    home.accept(1)
    home.send()
    home.confirm(SQL, (1, 1))
    home.outbox.gone(frozenset({SQL, MONGO}))
    home.after(15)
    assert home.outbox.unconfirmed() == 1
    home.after(10)
    assert home.outbox.unconfirmed() == 0
    assert not home.health.problems()
    home.confirm(MONGO)
    home.outbox.gone(frozenset())
    home.accept(2)
    home.send()
    home.confirm(SQL, (2, 2))
    home.after(30)
    assert home.outbox.unconfirmed() == 2


def test_a_store_that_nothing_was_sent_to_is_not_forgotten(home, monkeypatch):
    """A stick that was away for forty days is no silence of the stores, nor is the day after."""
    monkeypatch.setattr(resending, "DAY_TURNS", 40)
    home.confirm(SQL)
    home.accept(1)
    home.send()
    home.confirm(SQL, (1, 1))
    home.after(40 * 40)
    assert home.health.problems() == {}
    home.accept(2)
    home.send()
    home.after(30)
    assert home.health.problems() == {}
    home.after(30)
    assert f"{SQL} has confirmed nothing for 1 d" in home.health.problems()["stores"]
    assert home.outbox.unconfirmed() == 1


def test_a_store_that_is_named_is_never_forgotten(tmp_path, monkeypatch):
    """Its owner has said that it counts."""
    monkeypatch.setattr(resending, "DAY_TURNS", 4)
    home = Home(tmp_path, stores=MONGO)
    home.accept(1)
    home.send()
    home.after(40 * 4)
    assert home.outbox.unconfirmed() == 1
    assert MONGO in home.health.problems()["stores"]


def test_what_waits_is_known_by_its_prefix(home):
    """Whoever changes the prefix is told what still goes to the old one, and stores there are heard."""
    assert home.outbox.prefixes() == {}
    home.accept(1, 2)
    assert home.outbox.prefixes() == {"raven": 2}
    home.send()
    assert home.outbox.prefixes() == {"raven": 0}


def test_names_without_end_are_no_stores(home, monkeypatch):
    """Whoever may confirm cannot fill the reader's memory with names."""
    monkeypatch.setattr(module, "STORES_MAX", 2)
    home.confirm("a")
    home.confirm("b")
    with pytest.raises(PoisonError, match="'c' is one more than 2 stores"):
        home.confirm("c")


def test_a_store_that_is_named_takes_the_place_of_one_that_counts_no_more(home, monkeypatch):
    """Whoever is named is waited for, however many stores there were, and has nothing yet."""
    monkeypatch.setattr(module, "STORES_MAX", 2)
    home.confirm("a")
    home.confirm("b")
    home.accept(1)
    home.send()
    home.confirm("a", (1, 1))
    home.confirm("b", (1, 1))
    assert home.outbox.unconfirmed() == 0
    home.stores = Stores("b,c")
    home.restart()
    assert home.outbox.unconfirmed() == 1
    home.confirm("c", (1, 1))
    assert home.outbox.unconfirmed() == 0


def of_the_version_before(path):
    """Make a spool what the first version left."""
    with sqlite3.connect(path) as db:
        db.execute("UPDATE outbox SET topic = 'raven/v1/dead/reader' WHERE topic GLOB '*/dead'")
        for index in ("unsent", "sent", "reading", "letter"):
            db.execute(f"DROP INDEX {index}")
        for column in ("run", "seq", "letter", "sent", "confirmed", "first"):
            db.execute(f"ALTER TABLE outbox DROP COLUMN {column}")
        tables = ("store", "replayed", "waiting", "register", "backfill", "identity", "program")
        for table in tables:
            db.execute(f"DROP TABLE {table}")
        db.execute("ALTER TABLE node DROP COLUMN retained")
        db.execute("ALTER TABLE run DROP COLUMN for_stores")
        db.executescript("PRAGMA user_version = 1; VACUUM")


def test_a_spool_of_the_version_before_is_taken_over(tmp_path):
    """Readings and letters that wait in it are known by their numbers and ids afterwards."""
    path = tmp_path / "spool.sqlite"
    spool = Spool(path, Topics(), max_mb=16)
    spool.begin("home", "default", NOON)
    spool.accept([reading(1), reading(2)], [LETTER])
    spool.close()
    of_the_version_before(path)
    home = Home(tmp_path)
    home.confirm(SQL)
    assert home.send() == [1, 2]
    home.confirm(SQL, (1, 2), letters=[LETTER.id])
    assert home.outbox.unconfirmed() == 0


def test_a_full_spool_of_the_version_before_is_taken_over(tmp_path):
    """The columns and indexes that are new take more than the file may have."""
    path = tmp_path / "spool.sqlite"
    spool = Spool(path, Topics(), max_mb=2)
    spool.begin("home", "default", NOON)
    spool.accept([reading(number) for number in range(2500)], [])
    spool.close()
    of_the_version_before(path)
    home = Home(tmp_path)
    assert len(home.send()) == 2500


def test_what_was_accepted_under_another_name_is_confirmed_under_it(tmp_path):
    """A node that was renamed listens for both."""
    for name, names in (
        ("home", ["home"]),
        ("house", ["home", "house"]),
        (None, ["home", "house"]),
    ):
        spool = Spool(tmp_path / "spool.sqlite", Topics(), max_mb=1)
        spool.begin(name, "default", NOON)
        assert spool.nodes == names
        spool.close()
    assert spool.node == "home"


def test_a_store_is_behind_after_a_minute(home):
    """What nobody took and what a store has not confirmed is told at once, and then each minute."""
    told = []
    home.outbox.on_backlog = told.append
    home.confirm(SQL)
    home.accept(1, 2, 3)
    home.after(1)
    assert told == [Backlog(3, {SQL: 0})]
    home.confirm(SQL, (1, 1))
    home.after(BACKLOG_TURNS)
    home.accept(4)
    home.after(BACKLOG_TURNS)
    assert told[-1].behind == {SQL: 2}
    assert home.outbox.backlog().waiting == 0
