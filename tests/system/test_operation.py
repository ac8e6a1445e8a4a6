"""What a person sees: settings, accounts, states, commands, health, and the contract kept."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from queue import SimpleQueue

import pytest
from jsonschema import Draft202012Validator

from raven_harness import stack
from raven_harness.certificates import Authority
from ravenbus.contract import schema_for
from ravenbus.errors import BrokerAwayError
from ravenbus.mqtt import Broker, Events, Lost
from ravenbus.settings import MqttUrl
from ravenbus.topics import Topics

from .system import NODE, System, wait_until


def test_everything_that_is_published_keeps_the_contract(system: System):
    """Every message of the running services validates against the published schemas."""
    system.reader.env |= {"RAVEN_PUBLISH_RAW": "true", "RAVEN_MAX_DEMAND_KW": "1"}
    system.start("--rate", "100", "--fault", "clock:2,-100000", reader=False)
    bus = system.watch("raven/v1/#", "homeassistant/#")
    system.reader.start()
    command = {"id": "1", "name": "get_schedule", "parameters": {"Event": "demand"}}
    commands = f"raven/v1/{NODE}/command"
    system.wait_for_log(system.reader, "connected to the broker")
    system.wait_until_stored(1)
    system.client("watcher").publish(commands, json.dumps(command).encode())
    system.client("watcher").publish(commands, b'{"name":"factory_reset"}')
    system.client(NODE).publish(f"raven/v1/{NODE}/reading/warning", b"poison")
    wait_until(system.db["schedule_info"].find_one, "the answer is stored")
    wait_until(lambda: system.accepted()[1] > 500, "much else is said")
    system.simulator.stop()
    wait_until(
        lambda: sum(system.stored()[0].values()) == system.accepted()[1] > 0, "all is stored"
    )
    for service in ("mongo-recorder", "reader"):
        wait_until(
            lambda s=service: system.db["dead_letter"].find_one({"service": s}),
            f"a dead letter of the {service} is stored",
        )
    assert system.reader.text().count("fragment rejected") == 1, "one line, not one a fragment"
    system.reader.stop()
    seen: set[str] = set()
    for message in bus.messages():
        schema = schema_for(message.topic, Topics())
        if message.payload in (b"poison", b'{"name":"factory_reset"}') or schema is None:
            continue
        Draft202012Validator(schema).validate(json.loads(message.payload))
        seen.add("/".join(message.topic.split("/")[2:]))
    leaves = {"reading/instantaneous_demand", "latest/instantaneous_demand", "status", "run"}
    leaves |= {"raw", "reply", "command", "dead", "reading/price_cluster", "reading/schedule_info"}
    assert {f"{NODE}/{leaf}" for leaf in leaves} | {"dead/mongo-recorder"} <= {
        one.removeprefix("v1/") for one in seen
    }


@pytest.mark.parametrize("fault", ["clock:0,-5000000", "unset-clock"])
def test_a_stick_whose_clock_is_wrong_loses_nothing_and_is_seen(system: System, fault: str):
    """Every report is stored without a time, the status says why, and one line in the log does."""
    system.start("--rate", "20", "--count", "60", "--fault", fault, reader=False)
    bus = system.watch(f"raven/v1/{NODE}/status")
    system.reader.start()
    system.assert_complete()
    demands = list(system.db["instantaneous_demand"].find())
    assert demands
    assert {found["time"] for found in demands} == {None}
    said = [found["claimed_time"] for found in demands if found["claimed_time"]]
    assert len(said) == (len(demands) if fault.startswith("clock") else 0)
    states = [json.loads(message.payload)["clock"] for message in bus.messages()]
    assert states[-1] == ("off" if fault.startswith("clock") else "unset")
    assert system.reader.text().count("check=clock") == 1, system.reader.text()


def test_wrong_settings_stop_the_start_with_every_problem(system: System):
    """Exit status 78, one line for each variable with what is allowed, and no password."""
    for process, variables in (
        (system.reader, ("RAVEN_MAX_DEMAND_KW", "RAVEN_STATE", "RAVEN_DEVICE", "MQTT_URL")),
        (system.recorder, ("RAVEN_BATCH_SIZE", "MONGO_URL", "MQTT_URL")),
    ):
        process.env |= {
            "RAVEN_MAX_DEMAND_KW": "lots",
            "RAVEN_STATE": "/dev/null/nowhere",
            "RAVEN_DEVICE": "COM3",
            "RAVEN_BATCH_SIZE": "0",
            "MQTT_URL": "http://me:hunter2@host",
            "MONGO_URL": "postgres://me:hunter2@host",
        }
        process.start()
        assert process.wait() == 78
        lines = process.text().splitlines()
        assert sorted(line.split(": ")[1] for line in lines) == sorted(variables)
        assert all("allowed is" in line or "cannot be used: [" in line for line in lines)
        assert "hunter2" not in process.text()


def test_a_secret_can_come_from_a_file(system: System):
    """MQTT_URL_FILE and MONGO_URL_FILE do what the variables do."""
    for process in (system.reader, system.recorder):
        for name in ("MQTT_URL", "MONGO_URL"):
            if name in process.env:
                path = system.folder / f"{process.name}-{name}"
                path.write_text(process.env.pop(name) + "\n")
                process.env[f"{name}_FILE"] = str(path)
    system.start("--rate", "50", "--count", "20")
    system.assert_complete()


def test_a_broker_is_trusted_by_its_certificate_only(system: System):
    """mqtts:// works with the right certificate; with another the log says why it does not."""
    right, wrong = (Authority(system.folder, name) for name in ("right", "wrong"))
    server = right.server()
    with Path(system.broker.command[-1]).open("a") as config:
        config.write(f"certfile {server}\nkeyfile {server}\n")
    for process in (system.reader, system.recorder):
        process.env["MQTT_URL"] = process.env["MQTT_URL"].replace("mqtt://", "mqtts://")
        process.env["MQTT_TLS_CA"] = str(right.file)
    system.reader.env["MQTT_TLS_CA"] = str(wrong.file)
    system.start("--rate", "50", "--count", "150")
    assert "certificate verify failed" in system.wait_for_log(system.reader, "problem check=broker")
    assert system.stored()[1] == []
    system.simulator.wait()
    system.reader.stop()
    system.reader.env["MQTT_TLS_CA"] = str(right.file)
    system.reader.start()
    wait_until(lambda: len(system.stored()[1]) == system.accepted()[1] > 50, "all is stored")


def test_a_wrong_password_is_said_and_nothing_is_lost_meanwhile(system: System):
    """The log names broker and reason, never the password; mended, everything arrives."""
    right = system.reader.env["MQTT_URL"]
    system.reader.env["MQTT_URL"] = right.replace(system.broker.passwords[NODE], "hunter2")
    system.start("--rate", "50", "--count", "150")
    wait_until(lambda: system.accepted()[1] > 40, "the reader accepts without an account")
    log = system.wait_for_log(system.reader, "refuses")
    assert f"mqtt://{NODE}@127.0.0.1:{system.broker.port} refuses: " in log
    assert "hunter2" not in log
    assert system.stored()[1] == []
    system.simulator.wait()
    system.reader.stop()
    system.reader.env["MQTT_URL"] = right
    system.reader.start()
    wait_until(lambda: len(system.stored()[1]) == system.accepted()[1] > 100, "all is stored")


def test_two_groups_with_one_client_id_do_not_fight_without_end(system: System):
    """Both say what to look for, or the loser ends where the broker tells it; nothing is lost."""
    system.start("--rate", "50", "--count", "200")
    # Who calls the broker by another name takes it for another one.
    other_name = {"MQTT_URL": system.recorder.env["MQTT_URL"].replace("127.0.0.1", "localhost")}
    second = stack.Process(
        "second", system.recorder.command, system.folder, {**system.recorder.env, **other_name}
    )
    system.run_process(second)
    hints = ("RAVEN_CLIENT_ID", "does another client use the same client id?")
    wait_until(
        lambda: any(hint in system.recorder.text() + second.text() for hint in hints),
        "the log names the client id",
    )
    system.assert_complete()


def test_a_stick_belongs_to_one_reader(system: System):
    """A second reader says that another program uses the stick, and takes nothing from it."""
    system.start("--rate", "50")
    system.wait_until_stored(10)
    second = stack.reader(system.folder, system.device, system.broker.url(NODE), "other")
    system.run_process(second)
    system.wait_for_log(second, "another program uses it")
    system.simulator.stop()
    system.assert_complete()


def test_a_state_folder_belongs_to_one_reader(system: System):
    """A second reader with the same RAVEN_STATE ends and says why; the first goes on."""
    system.start("--rate", "50", "--count", "100")
    system.wait_until_stored(10)
    second = stack.Process("second", system.reader.command, system.folder, system.reader.env)
    system.run_process(second)
    assert second.wait() == 1
    assert "another reader uses" in second.text()
    system.assert_complete()


def test_messages_without_acknowledgement_are_welcome_too(system: System):
    """QoS 0, which mosquitto_pub and Home Assistant use, disturbs neither reader nor recorder."""
    system.recorder.env["RAVEN_LEASE_S"] = "60"  # a late renewal is not what is looked for
    system.start("--rate", "50", "--count", "300")
    replies = system.watch(f"raven/v1/{NODE}/reply")
    system.wait_until_stored(10)
    asker = system.client("watcher")
    command = b'{"id": "7", "name": "get_time"}'
    asker.publish(f"raven/v1/{NODE}/command", command, qos=0)
    asker.publish("homeassistant/status", b"online", qos=0)
    system.client(NODE).publish(f"raven/v1/{NODE}/reading/warning", b"poison", qos=0)
    wait_until(lambda: any(b'"7"' in m.payload for m in replies.messages()), "the reply comes")
    wait_until(lambda: system.db["dead_letter"].count_documents({}) == 1, "the poison is buried")
    system.assert_complete()
    for process in (system.reader, system.recorder):
        assert process.text().count("connected to the broker") == 1, process.text()


def test_status_says_what_is_connected(system: System):
    """Status goes online, connected, disconnected, and offline on both kinds of end."""
    system.start("--rate", "50", reader=False)
    status = system.watch(f"raven/v1/{NODE}/status")
    seen: list[tuple[str, str]] = []

    def said(service: str, device: str) -> None:
        def look() -> bool:
            for message in status.messages():
                state = json.loads(message.payload)
                seen.append((state["service"], state["device"]))
            return (service, device) in seen

        wait_until(look, f"status says {service}, {device}; it said {seen}")
        seen.clear()

    system.reader.start()
    said("online", "connected")
    system.simulator.stop()
    said("online", "disconnected")
    assert system.reader.stop() == 0
    said("offline", "disconnected")
    system.reader.start()
    said("online", "disconnected")
    system.reader.kill()
    said("offline", "disconnected")


def test_what_the_meter_remembers_is_asked_for_and_stored(system: System):
    """At the first start: the newest intervals of three hours, with the channel that was asked for."""
    system.start("--rate", "0.4", "--past", "6")
    of_delivered = {"interval_channel": "delivered"}
    found = wait_until(lambda: system.db["profile_data"].find_one(of_delivered), "it is stored")
    assert (found["status"], found["interval_s"], len(found["intervals"])) == (0, 900, 12)
    assert None not in found["intervals"]
    assert found["time"] == found["end_time"] <= found["received"]


def test_commands_are_sent_when_allowed_and_refused_when_not(system: System):
    """get_time brings a reading, a setter needs the setting, factory_reset is never sent."""
    system.start("--rate", "5")
    bus = system.watch(f"raven/v1/{NODE}/reply", f"raven/v1/{NODE}/reading/time_cluster")
    asker = system.client("watcher")
    system.wait_until_stored(5)
    for name in ("get_time", "set_fast_poll", "factory_reset"):
        asker.publish(f"raven/v1/{NODE}/command", json.dumps({"name": name, "id": name}).encode())
    replies: dict[str, bool] = {}
    kinds: list[str] = []

    def answered() -> bool:
        for message in bus.messages():
            body = json.loads(message.payload)
            if "sent" in body:
                replies[body["id"]] = body["sent"]
            else:
                kinds.append(body["kind"])
        return len(replies) == 3 and bool(kinds)

    wait_until(answered, "three replies and a time")
    assert replies == {"get_time": True, "set_fast_poll": False, "factory_reset": False}
    ledger = (system.folder / "ledger").read_text()
    assert '"get_time"' in ledger
    assert "factory_reset" not in ledger


def test_home_assistant_finds_the_stick(system: System):
    """One retained payload describes power, both energies, price and link, with availability."""
    system.start("--rate", "50", "--count", "50")
    system.assert_complete()
    topic = f"homeassistant/device/{NODE}/config"
    watcher = system.watch(topic)
    (message,) = wait_until(lambda: list(watcher.messages()), "the payload is retained")
    config = json.loads(message.payload)
    sensors = {"power", "delivered", "received", "price", "link_strength", "clock"}
    assert sensors < set(config["components"])
    for component in config["components"].values():
        assert component["unique_id"]
        topics = (f"raven/v1/{NODE}/latest/", f"raven/v1/{NODE}/status")
        assert component["state_topic"].startswith(topics)
    power = config["components"]["power"]
    assert power["availability"][0]["topic"] == f"raven/v1/{NODE}/status"
    assert (power["device_class"], power["unit_of_measurement"]) == ("power", "kW")


def test_health_and_metrics_follow_the_progress(system: System):
    """Healthy while readings flow; unhealthy, with the reason, when the broker is away."""
    port = stack.free_port()
    health = system.folder / "health"
    system.reader.env |= {"RAVEN_HEALTH_FILE": str(health), "RAVEN_METRICS_PORT": str(port)}
    system.start("--rate", "20")
    system.wait_until_stored(10)

    def report() -> tuple[int, str]:
        command = [sys.executable, "-m", "ravenbus.health", str(health)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    wait_until(lambda: report() == (0, "healthy\n"), "the reader is healthy")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        metrics = answer.read().decode()
    values = {
        line.split()[0]: float(line.split()[1]) for line in metrics.splitlines() if line[0] != "#"
    }
    assert values["raven_taken_total"] >= 10
    assert values["raven_device_connected"] == 1
    assert values['raven_fragments_total{outcome="accepted"}'] >= 10
    system.broker.stop()
    wait_until(lambda: report()[0] == 1 and "broker" in report()[1], "the reader is unhealthy")


def test_an_account_has_only_its_own_topics(system: System):
    """A reader's account cannot write another node's readings, nor an intruder any."""
    system.start("--rate", "50", "--count", "10", reader=False)
    copies = system.watch(f"raven/v1/{NODE}/reading/+")
    system.reader.start()
    system.assert_complete()
    payload = next(copies.messages()).payload
    system.client("intruder").publish(f"raven/v1/{NODE}/reading/warning", payload)
    system.client(NODE).publish("raven/v1/neighbour/reading/warning", b"from home")
    system.client(NODE).publish(f"raven/v1/{NODE}/reading/warning", b"its own")
    letters = wait_until(lambda: list(system.db["dead_letter"].find()), "its own is buried")
    assert [letter["payload"] for letter in letters] == [b"its own"]


@pytest.mark.parametrize(
    "service",
    [
        "raven-reader",
        "raven-mongo-recorder",
        "raven-simulator",
        "raven-verify",
        "raven-dead-letters",
    ],
)
def test_every_command_explains_itself(service: str):
    """--help and --version answer with status 0."""
    for option in ("--help", "--version"):
        done = subprocess.run(
            [stack.BIN / service, option], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert service in done.stdout


def test_a_connection_that_ended_keeps_no_file_open(system: System):
    """Closed, refused or ended by the broker: who reconnects for months has no more files than at first."""
    system.broker.start()

    def end(how: str) -> None:
        events: Events = SimpleQueue()
        url = system.broker.url("watcher")
        if how == "refused":
            with pytest.raises(BrokerAwayError, match="refuses"):
                Broker(MqttUrl(url.replace(system.broker.passwords["watcher"], "x")), "c")(events)
            return
        connection = Broker(MqttUrl(url), "c")(events)
        if how == "ended":
            system.broker.kill()
            assert isinstance(events.get(timeout=stack.WAIT_S), Lost)
            system.broker.start()
        connection.close()

    files = Path("/proc/self/fd")
    gc.disable()  # it would close them in its own time
    try:
        for how in ("closed", "refused", "ended"):
            before = len(list(files.iterdir()))
            for _ in range(3):
                end(how)
            assert len(list(files.iterdir())) == before, how
    finally:
        gc.enable()
