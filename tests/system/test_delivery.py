"""What the stick sent is stored once, whatever is killed, stopped or away meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import sys

import pytest

from raven_harness import stack
from ravenbus.notifications import KINDS

from .system import NODE, System, wait_until


@pytest.mark.parametrize("model", ["raven", "emu2"])
def test_every_report_is_stored_once(system: System, model: str):
    """A RAVEn's and an EMU-2's reports arrive in MongoDB complete, in order, with their run."""
    system.start("--model", model, "--rate", "100", "--count", "500")
    system.assert_complete()
    run, accepted = system.accepted()
    (stored_run,) = system.db["runs"].find()
    assert (stored_run["_id"], stored_run["node"], stored_run["run"]) == (run, NODE, "default")
    demand = system.db["instantaneous_demand"].find_one({"_id": f"{run}/{accepted}"})
    demand = demand or system.db["instantaneous_demand"].find_one()
    assert demand["demand_kw"] == demand["demand"] / 1000
    assert demand["meter"] == stored_run["meter"]


def test_a_faulty_line_costs_only_what_it_damages(system: System):
    """Garbage, NULs, cuts, overwrites, lost letters and odd chunks: every whole report is stored."""
    faults = ["garbage", "nul", "cut:0.05", "overwrite:0.05", "letters:0.05", "chunks", "midstart"]
    options = [word for fault in faults for word in ("--fault", fault)]
    system.start("--rate", "200", "--count", "1000", "--seed", "7", *options)
    system.assert_complete()


def test_a_broker_restart_loses_nothing(system: System):
    """The broker stops and comes back twice in the middle of the stream."""
    system.start("--rate", "100")
    for count in (100, 300):
        system.wait_until_stored(count)
        system.broker.stop()
        accepted = system.accepted()[1]
        wait_until(lambda a=accepted: system.accepted()[1] > a + 20, "the reader goes on alone")
        system.broker.start()
    system.simulator.stop()
    system.assert_complete()


def test_a_broker_that_is_away_at_the_start_is_waited_for(system: System):
    """Reader and recorder start without a broker; what the reader hears meanwhile arrives."""
    system.recorder.start()
    system.plug_in("--rate", "100", "--count", "200")
    system.reader.start()
    system.wait_for_log(system.recorder, "cannot reach mqtt://")
    wait_until(lambda: system.accepted()[1] > 50, "the reader accepts without a broker")
    system.broker.start()
    system.assert_complete()


def test_a_recorder_that_is_killed_in_mid_batch_loses_and_doubles_nothing(system: System):
    """Kill -9 of the recorder at any moment: the broker gives the batch to the next one."""
    system.start("--rate", "200", "--count", "1600")
    for count in range(100, 1300, 200):
        system.wait_until_stored(count)
        system.recorder.kill()
        system.recorder.start()
    system.assert_complete()


def test_a_reader_that_is_killed_keeps_every_reading_that_it_accepted(system: System):
    """Kill -9 of the reader: the numbering goes on without a gap, and nothing comes twice."""
    system.start("--rate", "200")
    for count in range(100, 1300, 300):
        wait_until(lambda c=count: system.accepted()[1] >= c, f"{count} are accepted")
        system.reader.kill()
        system.reader.start()
    wait_until(lambda: system.accepted()[1] > 1300, "more are accepted")
    system.simulator.stop()
    wait_until(lambda: len(system.stored()[1]) == system.accepted()[1], "all accepted are stored")
    kinds, numbers = system.stored()
    assert numbers == list(range(1, len(numbers) + 1))
    assert system.db["runs"].count_documents({}) == 1
    assert not kinds - system.sent(), "nothing was invented"


def test_a_database_that_is_away_is_waited_for(system: System):
    """The database is killed in mid-commit and comes back later: all is stored once."""
    if not system.mongo:
        pytest.skip("MONGO_URL names a database that is not ours to kill")
    system.start("--rate", "100")
    for count in (100, 900):
        system.wait_until_stored(count)
        system.outage(system.mongo, system.recorder)
    system.simulator.stop()
    system.assert_complete()
    log = system.recorder.text()
    assert log.count("problem check=store") < 10, (
        "a problem is logged when it starts, not at each try"
    )


def test_a_stick_that_is_unplugged_is_found_again_under_another_name(system: System):
    """Unplugged and back behind another device file twice: every report in between counts."""
    faults = ["--fault", "unplug:1,1", "--fault", "unplug:4,2"]
    system.start("--rate", "50", *faults, reader=False)
    status = system.watch(f"raven/v1/{NODE}/status")
    system.reader.start()
    seen: list[str] = []

    def came_back() -> bool:
        seen.extend(json.loads(message.payload)["device"] for message in status.messages())
        return seen.count("connected") >= 3

    wait_until(came_back, "the status has said connected three times")
    assert "disconnected" in seen
    system.simulator.stop()
    system.assert_complete()


def test_a_stick_behind_a_network_is_read_as_well(system: System):
    """socket:// reads the same reports, also after the connection broke."""
    system.device = "127.0.0.1:0"
    system.broker.start()
    system.recorder.start()
    system.wait_for_log(system.recorder, "connected to the broker")
    ledger = str(system.folder / "ledger")
    system.simulator.command[1:] = ["--tcp", system.device, "--wait", "--ledger", ledger]
    system.simulator.command += ["--rate", "100", "--count", "400", "--fault", "unplug:2,1"]
    system.simulator.start()
    address = system.wait_for_log(system.simulator, "ready").split()[1]
    system.reader.env["RAVEN_DEVICE"] = f"socket://{address}"
    system.reader.start()
    system.assert_complete()


def test_a_message_that_is_delivered_twice_is_stored_once(system: System):
    """The same readings again, in another order, change nothing."""
    system.start("--rate", "100", "--count", "50", reader=False)
    copies = system.watch(f"raven/v1/{NODE}/reading/+")
    system.reader.start()
    system.assert_complete()
    before = {name: list(system.db[name].find()) for name in system.db.list_collection_names()}
    home = system.client(NODE)
    for message in reversed(list(copies.messages())):
        home.publish(message.topic, message.payload)
    home.publish(f"raven/v1/{NODE}/reading/warning", b"the last one")
    wait_until(lambda: system.db["dead_letter"].count_documents({}) == 1, "the last one is buried")
    for name, documents in before.items():
        if name in (*KINDS, "runs"):
            assert list(system.db[name].find()) == documents


def test_a_poison_message_is_a_dead_letter_and_the_next_is_stored(system: System):
    """Whatever is put on the bus, its bytes and the reason are kept and the rest goes on."""
    system.start("--rate", "100", "--count", "20", reader=False)
    copies = system.watch(f"raven/v1/{NODE}/reading/instantaneous_demand", "raven/v1/dead/+")
    system.reader.start()
    system.assert_complete()
    readings = [m for m in copies.messages() if "reading" in m.topic]
    good = json.loads(readings[0].payload)
    topic = readings[0].topic
    conflict = {**good, "received": "2026-01-01T00:00:00.000Z"}
    later = {**good, "v": 2}
    poison = {
        b"no json": "not-json",
        b'{"a":' * 100_000: "not-json",
        b"x" * 10_000_000: "not-json",
        json.dumps(later).encode(): "contract-version",
        json.dumps({**good, "seq": "1"}).encode(): "not-contract",
        json.dumps(conflict).encode(): "identity-conflict",
    }
    home = system.client(NODE)
    for payload in poison:
        home.publish(topic, payload)
    accepted = system.accepted()[1]
    home.publish(topic, json.dumps({**good, "seq": accepted + 1}).encode())
    system.wait_until_stored(accepted + 1)
    letters = wait_until(
        lambda: (
            found if len(found := list(system.db["dead_letter"].find())) == len(poison) else None
        ),
        "every poison message is buried",
    )
    assert {letter["payload"]: letter["reason"] for letter in letters} == {
        payload[: 8 * 2**20]: reason for payload, reason in poison.items()
    }
    assert {(letter["topic"], letter["service"]) for letter in letters} == {
        (topic, "mongo-recorder")
    }
    wait_until(
        lambda: any(m.topic == "raven/v1/dead/mongo-recorder" for m in copies.messages()),
        "a dead letter is on the bus too",
    )


def test_what_is_impossible_is_a_dead_letter_of_the_reader(system: System):
    """A demand beyond the limit is in the dead letters with its bytes, and not in the store."""
    system.reader.env["RAVEN_MAX_DEMAND_KW"] = "0.000001"
    system.start("--rate", "50", "--count", "60")
    system.simulator.wait()
    sent = system.sent()
    wait_until(
        lambda: system.db["dead_letter"].count_documents({}) == sent["instantaneous_demand"],
        "every demand is buried",
    )
    letter = system.db["dead_letter"].find_one()
    assert (letter["service"], letter["node"], letter["reason"]) == (
        "reader",
        NODE,
        "demand-too-large",
    )
    assert b"<InstantaneousDemand>" in letter["payload"]
    assert system.db["instantaneous_demand"].count_documents({}) == 0


def test_the_demo_agrees_although_everything_is_killed(system: System):
    """Kill -9 of recorder and reader, and a broker that stops, in the middle of `make demo`."""
    command = [sys.executable, "-u", "-m", "raven_harness.demo"]
    demo = system.run_process(stack.Process("demo", command, system.folder))

    def pid(name: str) -> int:
        found = re.search(rf"\b(?<!-){name} (\d+)", demo.text().partition("processes")[2])
        assert found
        return int(found[1])

    def printed(number: int) -> None:
        """Wait until the demo has come so far; it prints the last reading, not each."""
        found = lambda: [int(n) for n in re.findall(r"  #(\d+) ", demo.text())]  # noqa: E731
        wait_until(lambda: max(found(), default=0) >= number, f"#{number}", timeout_s=180)

    printed(5)
    os.kill(pid("recorder"), signal.SIGKILL)
    printed(8)
    os.kill(pid("broker"), signal.SIGTERM)
    printed(11)
    os.kill(pid("reader"), signal.SIGKILL)
    wait_until(lambda: demo.text().count(": started again, pid") == 3, "the reader is back")
    printed(14)
    demo.send(signal.SIGINT)
    assert demo.wait(120) == 0, demo.text()
    assert "\nAGREE: " in demo.text()
