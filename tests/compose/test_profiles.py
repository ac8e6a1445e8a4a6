"""Every command line that the README names, run for real, and what is in the stores counted."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

from raven_harness import stack
from tests.compose.project import COUNT_MYSQL, ROOT, Project, Stick, docker, say, wait_until

CHANGES = (
    ("--profile", "server", "up", "--detach", "--no-build", "--scale", "mongo-recorder=2"),
    ("--profile", "server", "up", "--detach", "--no-build", "--scale", "mongo-recorder=4"),
    ("--profile", "server", "restart", "mongo-recorder"),
)
DELETE_IN_MONGO = """
from pymongo import MongoClient
db = MongoClient(open("/credentials/mongo_url").read())["raven"]
print(db["instantaneous_demand"].delete_one({"seq": {"$lt": 20}}).deleted_count)
"""
DELETE_IN_MYSQL = """
with db.cursor() as cursor:
    print(cursor.execute("DELETE FROM instantaneous_demand WHERE seq > 20 ORDER BY seq LIMIT 1"))
db.commit()
"""
PROFILES = ("sql", "mqtt", "server", "server-sql", "edge", "demo", "monitoring")


def test_every_profile_and_every_pair_of_profiles_can_be_used(project: Callable[..., Project]):
    """`docker compose config -q` passes for each profile, and for each two together."""
    home = project()
    for chosen in [*combinations(PROFILES, 1), *combinations(PROFILES, 2)]:
        words = [word for profile in chosen for word in ("--profile", profile)]
        home.compose(*words, "config", "-q", shown=True)


def test_what_the_pages_show_can_be_used(project: Callable[..., Project]):
    """The override for one device in docs/containers.md passes, the Swarm's stack and `bake` too."""
    home = project()
    page = (ROOT / "docs" / "containers.md").read_text()
    home.override(page.partition("```yaml\n")[2].partition("```")[0])
    shown = json.loads(home.compose("--profile", "edge", "config", "--format", "json").stdout)
    reader = shown["services"]["reader"]
    assert "device_cgroup_rules" not in reader
    assert "/dev" not in [one["target"] for one in reader["volumes"]]
    assert reader["devices"]
    docker("stack", "config", "--compose-file", str(ROOT / "deploy" / "stack.yml"))
    bake = ["buildx", "bake", "-f", str(ROOT / "docker-compose.yml"), "--print"]
    docker(*bake, "--set", "*.platform=linux/amd64,linux/arm64")


def test_a_new_setting_is_taken_by_the_next_up(
    project: Callable[..., Project], stick: Callable[..., Stick]
):
    """Who changes `.env` says `up` again: the services that it concerns start with it."""
    home = project(RAVEN_DEVICE=stick().path)
    home.up("--profile", "mqtt")
    home.wait_healthy("broker", "mongo", "mongo-recorder", "reader")
    home.set(RAVEN_RUN="winter", SERVER_NAME="raven.example.org")
    home.up("--profile", "mqtt")
    home.wait_healthy("broker", "mongo", "mongo-recorder", "reader")
    home.wait_complete(home.in_mongo, "MongoDB, of both runs", more_than=50)
    script = "cat /credentials/server.pem"
    certificate = home.all("exec", "-T", "broker", "sh", "-c", script)
    (home.folder / "server.pem").write_text(certificate)
    names = ssl._ssl._test_decode_cert(str(home.folder / "server.pem"))["subjectAltName"]
    assert ("DNS", "raven.example.org") in names
    assert "run=winter" in home.logs("reader")


def test_meter_to_sql_through_unplugging_killing_and_down(
    project: Callable[..., Project], stick: Callable[..., Stick]
):
    """From a stick on a port to MySQL nothing is lost: unplug, kill -9, restart, down and up."""
    meter = stick()
    home = project(RAVEN_DEVICE=meter.path)
    home.up("--profile", "sql")
    home.wait_healthy("broker", "mysql", "sql-writer", "sql-relay", "reader")
    stored = home.wait_complete(home.in_mysql, "MySQL", more_than=20)

    meter.unplug()
    home.wait_unhealthy("reader", "check=device")
    meter.plug()
    home.wait_healthy("reader")
    stored = home.wait_complete(home.in_mysql, "MySQL after replugging", more_than=stored + 20)

    for service in ("reader", "sql-writer", "broker", "mysql"):
        home.kill(service)
        wait_until(home.accepted, "the reader is back")
        what = f"MySQL after kill -9 of {service}"
        stored = home.wait_complete(home.in_mysql, what, more_than=stored + 20)

    say("\n$ docker compose --profile sql restart")
    home.all("restart", "--timeout", "30")
    stored = home.wait_complete(home.in_mysql, "MySQL after a restart", more_than=stored + 20)

    say("\n$ docker compose --profile sql down")
    home.all("down")
    home.up("--profile", "sql")
    home.wait_healthy("broker", "mysql", "sql-writer", "sql-relay", "reader")
    home.wait_complete(home.in_mysql, "MySQL after down and up", more_than=stored + 20)


def test_what_two_stores_lost_is_seen_and_sent_again(
    project: Callable[..., Project], stick: Callable[..., Stick]
):
    """The operator's tools reach what is switched on, with rights for no more than they do."""
    meter = stick()
    home = project(RAVEN_DEVICE=meter.path)
    both = ("--profile", "sql", "--profile", "mqtt")
    home.up(*both)
    home.wait_healthy("broker", "mysql", "mongo", "sql-writer", "mongo-recorder", "reader")
    home.wait_complete(home.in_mysql, "MySQL", more_than=50)
    meter.unplug()
    home.wait_complete(home.in_mysql, "MySQL")
    home.wait_complete(home.in_mongo, "MongoDB")

    def verify(*words: str) -> tuple[int, str]:
        done = home.compose(*both, "run", "--rm", "-T", "verify", *words, check=False, shown=True)
        say(done.stdout.rstrip())
        return done.returncode, done.stdout + done.stderr

    whole = "complete in MySQL and MongoDB"
    status, said = verify()
    assert (status, whole in said) == (0, True), said
    home.python("mongo-recorder", DELETE_IN_MONGO)
    home.python("sql-writer", COUNT_MYSQL.partition("seqs =")[0] + DELETE_IN_MYSQL)
    status, said = verify()
    assert (status, said.count("missing 1: ")) == (1, 2), said
    status, said = verify("raven-verify", "--repair")
    assert status == 0, said
    status, said = verify()
    assert (status, whole in said) == (0, True), said
    status, said = verify("raven-dead-letters", "list")
    assert status == 0, said


@pytest.mark.skipif(os.geteuid() != 0, reason="makes links in /dev")
def test_the_stick_is_found_by_its_usb_identity_under_any_name(
    project: Callable[..., Project], stick: Callable[..., Stick]
):
    """Nothing is set: the container finds the stick on USB, also when it comes back elsewhere."""
    home = project()
    names = ("ttyUSB987", "ttyUSB988")
    for name in names:
        pretend_usb(home.folder / "sys", name)
    home.override("services: {reader: {volumes: ['./sys:/sys/class/tty:ro']}}")
    meter = stick(path=f"/dev/{names[0]}")
    home.up("--profile", "mqtt")
    home.wait_healthy("reader", "mongo-recorder")
    stored = home.wait_complete(home.in_mongo, f"MongoDB, of /dev/{names[0]}", more_than=20)
    meter.unplug()
    home.wait_unhealthy("reader", "no RAVEn or EMU-2 is plugged in")
    meter.plug(f"/dev/{names[1]}")
    home.wait_complete(home.in_mongo, f"MongoDB, of /dev/{names[1]}", more_than=stored + 20)


def pretend_usb(folder: Path, name: str) -> None:
    """Make what the kernel shows below /sys/class/tty of a RAVEn on USB."""
    device = folder / "usb" / name / "1-1:1.0" / name
    device.mkdir(parents=True)
    (device / "subsystem").symlink_to("/sys/bus/usb-serial")
    for file, text in (("idVendor", "0403"), ("idProduct", "8a28"), ("bNumInterfaces", "1")):
        (folder / "usb" / name / file).write_text(text + "\n")
    (folder / name).mkdir()
    (folder / name / "device").symlink_to(f"../usb/{name}/1-1:1.0/{name}")


def test_any_of_it_without_a_meter(project: Callable[..., Project]):
    """The demo's simulated stick fills MongoDB; its readings are a run named demo."""
    home = project()
    home.up("--profile", "demo", "--profile", "mqtt")
    home.wait_healthy("broker", "mongo", "mongo-recorder", "reader")
    stored = home.wait_complete(home.in_mongo, "MongoDB", more_than=3)
    assert "run=demo" in home.logs("reader")

    for service in ("mongo-recorder", "mongo", "broker"):
        home.kill(service)
        what = f"MongoDB after kill -9 of {service}"
        stored = home.wait_complete(home.in_mongo, what, more_than=stored)

    home.all("down")
    home.up("--profile", "demo", "--profile", "mqtt")
    home.wait_complete(home.in_mongo, "MongoDB after down and up", more_than=stored)


def test_what_waits_at_the_broker_survives_its_kill(
    project: Callable[..., Project], stick: Callable[..., Stick]
):
    """While no recorder runs, the broker is killed with kill -9 and holds every message still."""
    home = project(RAVEN_DEVICE=stick(50).path)
    home.up("--profile", "mqtt")
    home.wait_healthy("broker", "mongo", "mongo-recorder", "reader")
    stored = home.wait_complete(home.in_mongo, "MongoDB", more_than=50)
    home.all("stop", "mongo-recorder")
    wait_until(lambda: sum(home.accepted().values()) > stored + 400, "readings wait at the broker")
    home.all("stop", "reader")
    home.kill("broker")
    home.wait_healthy("broker")
    home.all("start", "mongo-recorder", "reader")
    home.wait_complete(home.in_mongo, "MongoDB after kill -9 of the broker", more_than=stored + 400)


def test_what_recorders_share_survives_a_kill_of_the_broker(
    project: Callable[..., Project], stick: Callable[..., Stick]
):
    """The broker is killed under load, alone and with all four recorders: each share is kept."""
    home = project(RAVEN_DEVICE=stick(50).path)
    profiles = ("--profile", "server", "--profile", "edge")
    home.up(*profiles, options=["--scale", "mongo-recorder=4"])
    home.wait_healthy("broker", "mongo", "mongo-recorder", "reader")
    wait_until(lambda: home.logs("mongo-recorder").count("slot taken") == 4, "each has a slot")
    stored = home.wait_complete(home.in_mongo, "MongoDB, by four recorders", more_than=100)

    # Somebody else's session takes every reading too.  A broker that forgot the recorders' would
    # answer with success then, and the reader would keep nothing for them.
    url = home.compose("run", "--rm", "credentials", "account", "watcher").stdout
    password = url.partition("watcher:")[2].partition("@")[0]
    client = ["mosquitto_sub", "-V", "5", "-i", "witness", "-c", "-x", "3600", "-E", "-q", "1"]
    client += ["-u", "watcher", "-P", password, "-t", "raven/v1/+/reading/+"]
    home.all("exec", "-T", "broker", *client)

    def kill(*services: str) -> None:
        say(f"\n$ docker kill: {' '.join(services)}")
        docker("kill", *home.all("ps", "--quiet", *services).split())

    kill("broker")
    home.up(*profiles, options=["--scale", "mongo-recorder=4"])
    what = "MongoDB after docker kill of the broker"
    stored = home.wait_complete(home.in_mongo, what, more_than=stored + 400)

    kill("mongo-recorder")
    wait_until(lambda: sum(home.accepted().values()) > stored + 400, "readings wait at the broker")
    kill("broker")
    home.up(*profiles, options=["broker", "reader"])
    home.wait_healthy("broker")
    wait_until(lambda: sum(home.accepted().values()) > stored + 800, "more wait at the broker")
    wait_until(lambda: home.waiting() < 50, "the reader has handed on what it had")
    home.up(*profiles, options=["--scale", "mongo-recorder=4"])
    what = "MongoDB after docker kill of the broker and of all recorders"
    home.wait_complete(home.in_mongo, what, more_than=stored + 800)


def test_homes_report_to_a_server_over_tls(
    project: Callable[..., Project], stick: Callable[..., Stick]
):
    """An edge home's reader and another home's relay fill the server's MongoDB through TLS."""
    host = docker(
        "network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"
    ).strip()
    # A port that stays the same when the broker is started again.
    server = project(SERVER_NAME=host, MQTTS_PUBLISH=str(stack.free_port()))
    server.up("--profile", "server", options=["--scale", "mongo-recorder=4"])
    server.wait_healthy("broker", "mongo", "mongo-recorder")
    ca = server.compose("run", "--rm", "credentials", "ca").stdout

    def account(name: str) -> str:
        made = server.compose("run", "--rm", "credentials", "account", name, shown=True)
        url = made.stdout.strip()
        assert url.endswith(f"@{host}:8883")
        return url.replace(":8883", f":{server.port()}")

    edge = project(RAVEN_DEVICE=stick().path, MQTT_URL=account("house-7"))
    (edge.folder / "deploy/secrets/mqtt_ca.pem").write_text(ca)
    edge.up("--profile", "edge")
    edge.wait_healthy("reader")
    assert set(edge.ps()) == {"credentials", "reader"}
    stored = edge.wait_complete(
        lambda: server.in_mongo("house-7"), "the server, of house-7", more_than=20
    )

    # The broker has read its accounts again, and the engine still starts it again.
    server.kill("broker")
    server.kill("mongo-recorder")
    what = "the server after kill -9 of the broker and of a recorder"
    stored = edge.wait_complete(lambda: server.in_mongo("house-7"), what, more_than=stored + 50)
    for change in CHANGES:
        server.compose(*change, shown=True)
        stored = edge.wait_complete(
            lambda: server.in_mongo("house-7"), "the server, of house-7", more_than=stored + 50
        )

    relaying = project(
        RAVEN_DEVICE=stick().path, RAVEN_NODE="house-8", UPSTREAM_MQTT_URL=account("house-8")
    )
    (relaying.folder / "deploy/secrets/upstream_ca.pem").write_text(ca)
    relaying.up("--profile", "sql")
    relaying.wait_healthy("reader", "sql-writer", "sql-relay")
    relaying.wait_complete(relaying.in_mysql, "MySQL of house-8", more_than=20)
    relaying.wait_complete(
        lambda: server.in_mongo("house-8"), "the server, of house-8", more_than=20
    )

    # House 7 moves out: it cannot come back, and the broker keeps nothing of it.
    server.compose("run", "--rm", "credentials", "remove", "house-7", shown=True)
    edge.wait_unhealthy("reader", "Not authorized")
    edge.all("stop")
    sub = ["exec", "-T", "broker", "mosquitto_sub", "-o", "/credentials/forget"]
    topics = ["-t", "raven/v1/house-7/#", "-t", "homeassistant/device/house-7/config"]
    removed = server.compose(*sub, *topics, check=False, shown=True).stdout.splitlines()
    assert {"removed raven/v1/house-7/status", "removed raven/v1/house-7/run"} <= set(removed)
    assert server.compose(*sub, *topics, check=False).stdout == ""
