"""Brokers that lack something: what a person reads, and what works all the same."""

from __future__ import annotations

from .system import System, wait_until


def limit(system: System, line: str) -> None:
    """Have the broker lack something."""
    with (system.folder / "broker" / "mosquitto.conf").open("a") as config:
        config.write(f"{line}\n")


def test_a_broker_that_retains_nothing_is_said_and_works(system: System):
    """A store that comes after the reader has its run nevertheless."""
    limit(system, "retain_available false")
    system.start("--rate", "100", "--count", "100", recorder=False)
    said = "the broker retains nothing: who comes later sees no last readings"
    system.wait_for_log(system.reader, said)
    system.recorder.start()
    system.assert_complete()
    assert said in system.recorder.text()
    wait_until(system.db["runs"].find_one, "the recorder has the run")


def test_a_broker_without_acknowledgements_is_refused(system: System):
    """Nobody could tell there what arrived: the reader keeps everything and says why."""
    limit(system, "max_qos 0")
    system.broker.start()
    system.recorder.start()
    system.plug_in("--rate", "100", "--count", "20")
    system.reader.start()
    said = "refuses: it has QoS 0 alone, where nothing is acknowledged: needed is QoS 1"
    for process in (system.recorder, system.reader):
        system.wait_for_log(process, said)
    wait_until(lambda: system.accepted()[1] == 20, "the reader accepts what comes")
