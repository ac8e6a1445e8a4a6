"""Recorders that come, go and die share the readings: each is stored once."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue

import pytest

from raven_harness import stack
from raven_mongo_recorder.group import Group, Slot, State
from raven_mongo_recorder.ledger import MongoLedger
from ravenbus.mqtt import Broker
from ravenbus.settings import MqttUrl

from .system import System, patiently, wait_until

GROUP = "raven-mongo-recorder"
LEASE_S = "1"


class Replicas:
    """The recorders of one system, which come and go."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.all = [system.recorder]
        self.lease_s = LEASE_S

    def start(self, count: int) -> list[stack.Process]:
        """Start more of them and return once they are subscribed."""
        url = self.system.broker.url("mongo-recorder")
        made = [
            stack.recorder(
                self.system.folder,
                url,
                self.system.mongo_url,
                f"recorder-{len(self.all) + number}",
                RAVEN_LEASE_S=self.lease_s,
            )
            for number in range(1, count + 1)
        ]
        for one in made:
            self.system.run_process(one)
        for one in made:
            self.system.wait_for_log(one, "connected to the broker")
        self.all += made
        return made

    def stop(self, replicas: Iterable[stack.Process]) -> None:
        """Stop some at once, as `--scale` does; none may take longer than Docker waits."""
        replicas = list(replicas)
        for one in replicas:
            # One that has only just begun would be ended by the signal itself.
            self.system.wait_for_log(one, "connected to the broker")
        for one in replicas:
            one.send(signal.SIGTERM)
        assert [one.wait() for one in replicas] == [0] * len(replicas)

    def assert_somebody_was_always_subscribed(self) -> None:
        """The broker has told the reader so, at every reading."""
        assert "nobody subscribes" not in self.system.reader.text()

    def slots(self) -> list[int]:
        """Return the slots that are in use."""
        (group,) = self.system.db["slots"].find()
        return [one["number"] for one in group["slots"] if one["state"] != "closed"]

    def start_alone(self) -> None:
        """Start the first one; wait until it has looked into every session, and has the first slot."""
        (group,) = self.system.db["slots"].find()
        closed = [one for one in group["slots"] if one["state"] == "closed"]
        self.system.recorder.start()
        wait_until(
            lambda: self.system.recorder.said().count("slot adopted") >= len(closed),
            f"it looks into {len(closed)} sessions",
        )
        wait_until(lambda: self.slots() == [1], "a lone recorder has the first slot again")

    def sessions(self) -> list[str]:
        """Stop every recorder; return the sessions that the broker still has, and end them.

        One that runs would be thrown out of its session, and look into all of them again.
        """
        self.stop(one for one in self.all if one.running)
        url = MqttUrl(self.system.broker.url("mongo-recorder"))
        found = []
        for name in (GROUP, *(f"{GROUP}-{number}" for number in range(2, 8))):
            broker = Broker(url, name, session_expiry_s=60)
            connection = patiently(lambda b=broker: b(SimpleQueue()))
            if connection.session_present:
                found.append(name)
            connection.close(end_session=True)
        return found


@pytest.fixture
def replicas(system: System) -> Replicas:
    system.recorder.env["RAVEN_LEASE_S"] = LEASE_S
    return Replicas(system)


def test_recorders_come_and_go_under_load(system: System, replicas: Replicas):
    """From 1 to 3, to 1, and to 3 again: who goes leaves nothing behind, a lone one shares nothing."""
    system.start("--rate", "150", "--count", "700")
    system.wait_until_stored(50)
    others = replicas.start(2)
    system.wait_until_stored(200)
    replicas.stop([system.recorder, others[0]])
    system.wait_until_stored(350)
    replicas.start(2)
    system.assert_complete()
    replicas.assert_somebody_was_always_subscribed()
    replicas.stop(one for one in replicas.all if one.running)
    replicas.start_alone()
    assert replicas.sessions() == [GROUP]


def test_a_killed_recorder_comes_back_or_its_session_is_drained(system: System, replicas: Replicas):
    """Kill -9 with a new start, then without: what its session held is stored by the others."""
    system.start("--rate", "150", "--count", "800")
    one, two = replicas.start(2)
    system.wait_until_stored(100)
    one.kill()
    one.start()
    system.wait_until_stored(200)
    two.kill()
    wait_until(
        lambda: any("slot adopted" in other.text() for other in replicas.all),
        "a session is adopted",
    )
    system.assert_complete()
    replicas.assert_somebody_was_always_subscribed()
    wait_until(lambda: len(replicas.slots()) == 2, "only the living have slots")
    replicas.stop([one])
    wait_until(lambda: replicas.slots() == [1], "the one that is left has the first slot")
    assert replicas.sessions() == [GROUP]


def test_everything_is_killed_at_once(system: System, replicas: Replicas):
    """A host restarts and fewer recorders come back: they drain the sessions of the others."""
    system.start("--rate", "150", "--count", "900")
    replicas.start(2)
    system.wait_until_stored(150)
    for process in replicas.all:
        process.kill()
    system.broker.stop()
    if system.mongo:
        system.mongo.kill()
        system.mongo.start()
    system.broker.start()
    system.recorder.start()
    system.assert_complete()
    wait_until(lambda: replicas.slots() == [1], "the sessions of the others are drained")
    assert replicas.sessions() == [GROUP]


def test_a_recorder_that_hung_beyond_its_lease_harms_nobody(system: System, replicas: Replicas):
    """Its session is drained by the others; when it goes on, it takes a slot anew."""
    system.start("--rate", "150", "--count", "800")
    (other,) = replicas.start(1)
    system.wait_until_stored(100)
    other.send(signal.SIGSTOP)
    system.wait_for_log(system.recorder, "session drained and ended")
    other.send(signal.SIGCONT)
    wait_until(lambda: other.text().count("slot taken") > 1, "it takes a slot anew")
    system.assert_complete()
    replicas.assert_somebody_was_always_subscribed()
    assert replicas.slots() == [1, 2]
    replicas.stop([other])
    assert replicas.sessions() == [GROUP]


def test_a_database_that_is_away_for_long_makes_nobody_fight(system: System, replicas: Replicas):
    """Without the database there are no leases: all stop, and go on as they were."""
    if not system.mongo:
        pytest.skip("MONGO_URL names a database that is not ours to kill")
    # Nobody may adopt a slot before its holder is back.
    system.recorder.env["RAVEN_LEASE_S"] = replicas.lease_s = "5"
    system.start("--rate", "150", "--count", "600")
    replicas.start(1)
    system.wait_until_stored(100)
    system.mongo.kill()
    for one in replicas.all:
        system.wait_for_log(one, "was not renewed")
    system.mongo.start()
    system.assert_complete()
    replicas.assert_somebody_was_always_subscribed()
    assert replicas.slots() == [1, 2]
    assert not any("slot adopted" in one.text() for one in replicas.all)


def test_all_that_stop_at_once_leave_one_session(system: System, replicas: Replicas):
    """Each may rely on another one only if that one stays; what comes afterwards is kept."""
    system.start("--rate", "150", "--count", "600")
    others = replicas.start(2)
    system.wait_until_stored(150)
    replicas.stop([system.recorder, *others])
    system.broker.stop()
    system.broker.start()
    system.simulator.wait()
    replicas.start_alone()
    system.assert_complete()
    replicas.assert_somebody_was_always_subscribed()
    assert replicas.sessions() == [GROUP]


def test_the_ledger_loses_no_change(system: System):
    """Replicas that change the group at the same moment do so one after the other."""

    def ledger(address: str) -> MongoLedger:
        return MongoLedger(system.mongo_url, GROUP, address)

    def change() -> None:
        with closing(ledger("broker:1883")) as one:
            for _ in range(25):
                one.change(lambda group: {1: Slot(State.MEMBER, "a", beat_of(group) + 1)})

    def beat_of(group: Group) -> int:
        return group[1].beat if group else 0

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(change) for _ in range(4)]:
            done.result()
    with closing(ledger("broker:1883")) as same, closing(ledger("other:8883")) as renamed:
        assert same.change(lambda group: group) == {1: Slot(State.MEMBER, "a", 100)}
        known = renamed.change(lambda group: group)
    assert known == {1: Slot(State.CLOSED)}, "the broker may only have another name now"


def test_what_waits_in_the_sessions_of_an_older_version_is_stored(replicas: Replicas):
    """Before 1.1 anybody knew a session's name: both are drained, and ended."""
    system = replicas.system
    system.broker.start()
    url = MqttUrl(system.broker.url("mongo-recorder"))
    names = (GROUP, f"{GROUP}-2")
    for number, name in enumerate(names, 1):
        broker = Broker(url, name, session_expiry_s=3600, secret=False)
        old = patiently(lambda b=broker: b(SimpleQueue()))
        old.subscribe([f"$share/{GROUP}/raven/v1/+/reading/+", "raven/v1/+/run"])
        patiently(old.settle)
        old.close()
        with closing(MongoLedger(system.mongo_url, GROUP, str(url.addresses[0]))) as ledger:
            ledger.change(lambda group, n=number: {**group, n: Slot(State.MEMBER)})
    system.plug_in("--rate", "50", "--count", "100")
    system.reader.start()
    system.simulator.wait()
    wait_until(lambda: system.accepted()[1] == system.sent().total(), "all is accepted")
    system.recorder.start()
    system.assert_complete()

    def kept() -> list[str]:
        found = []
        for name in names:
            broker = Broker(url, name, session_expiry_s=60, secret=False)
            connection = patiently(lambda b=broker: b(SimpleQueue()))
            if connection.session_present:
                found.append(name)
            connection.close()
        return found

    wait_until(lambda: "slot adopted" in system.recorder.text(), "the other slot is adopted")
    wait_until(lambda: replicas.slots() == [1], "and drained")
    system.recorder.stop()
    assert kept() == []
