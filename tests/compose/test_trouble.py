"""What goes wrong at homes: the log says it, `docker compose ps` shows it, nothing spins."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.compose.project import Project, Stick, docker, say, wait_until


def calm(home: Project, *services: str) -> None:
    """Wait until no container, or none of some services, is busy: one that spins always is."""
    ids = home.all("ps", "--quiet", *services).split()

    def idle() -> bool:
        table = docker("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}", *ids)
        return all(float(line.split()[1].rstrip("%")) < 25 for line in table.splitlines())

    wait_until(idle, "nothing spins")


def test_a_home_without_a_stick_waits_for_it(
    project: Callable[..., Project], stick: Callable[..., Stick]
):
    """A missing device is unhealthy and named; once plugged in it is read without a restart."""
    meter = stick()
    meter.unplug()
    home = project(RAVEN_DEVICE=meter.path)
    home.up("--profile", "mqtt")
    home.wait_unhealthy("reader", "there is no such port")
    calm(home)
    meter.plug()
    home.wait_healthy("reader")
    home.wait_complete(home.in_mongo, "MongoDB", more_than=10)

    other = project(RAVEN_DEVICE=meter.path)
    other.up("--profile", "mqtt")
    other.wait_unhealthy("reader", "another program uses it; two readers cannot share a stick")
    calm(other)
    assert home.health("reader") == "healthy"
    assert other.port() != home.port()


def test_an_upstream_that_cannot_be_reached_and_a_full_disk(
    project: Callable[..., Project], stick: Callable[..., Stick]
):
    """An edge home says that the server is not reached, and, when readings filled its disk, that."""
    meter = stick(60)
    home = project(RAVEN_DEVICE=meter.path, MQTT_URL="mqtt://house:x@nowhere.invalid")
    home.give_disk("reader", 10001, "1m")
    home.up("--profile", "edge")
    home.wait_unhealthy("reader", "check=broker")
    home.wait_unhealthy("reader", "check=spool")
    meter.unplug()
    calm(home)


def test_a_full_disk_at_the_broker(project: Callable[..., Project], stick: Callable[..., Stick]):
    """The broker is unhealthy; what it could not keep over a kill is sent again by the reader."""
    home = project(RAVEN_DEVICE=stick().path)
    home.give_disk("broker", 1883, "128m")
    home.up("--profile", "mqtt")
    home.wait_healthy("broker", "mongo", "mongo-recorder", "reader")
    stored = home.wait_complete(home.in_mongo, "MongoDB", more_than=20)
    home.all("kill", "mongo-recorder")
    home.fill_disk()
    wait_until(lambda: home.health("broker") == "unhealthy", "the broker is unhealthy")
    (container,) = home.all("ps", "--quiet", "broker").split()
    looks = docker("inspect", "--format", "{{json .State.Health.Log}}", container)
    assert "the disk is full: 0 MB are left" in looks
    wait_until(lambda: sum(home.accepted().values()) > stored + 100, "readings reach the broker")
    home.kill("broker")
    calm(home)
    home.free_disk()
    home.wait_healthy("broker", "reader")
    home.all("start", "mongo-recorder")
    home.wait_complete(home.in_mongo, "MongoDB, of a full disk", more_than=stored + 200)


def test_a_full_disk_at_mysql(project: Callable[..., Project], stick: Callable[..., Stick]):
    """The writer is unhealthy, readings wait at the broker; all arrive once there is room."""
    home = project(RAVEN_DEVICE=stick().path)
    home.give_disk("mysql", 999, "400m")
    home.up("--profile", "sql")
    home.wait_healthy("broker", "mysql", "sql-writer", "reader")
    stored = home.wait_complete(home.in_mysql, "MySQL", more_than=20)

    def is_unhealthy() -> bool:
        home.fill_disk()  # MySQL may end of it, and what it gives back is taken too
        return home.health("sql-writer") == "unhealthy"

    wait_until(is_unhealthy, "the writer is unhealthy")
    assert "problem check=store" in home.logs("sql-writer")
    calm(home, "broker", "reader", "sql-writer", "sql-relay")
    home.free_disk()
    home.wait_healthy("mysql", "sql-writer", "reader")
    home.wait_complete(home.in_mysql, "MySQL, of a full disk", more_than=stored + 100)


BEGUN = '[ -n "$(ls)" ]'


@pytest.mark.parametrize(
    ("service", "folder", "profile", "moments"),
    [
        ("mongo", "/data/db", "mqtt", [BEGUN]),
        ("mysql", "/var/lib/mysql", "sql", [BEGUN, "[ -e /var/run/mysqld/mysqld.sock ]"]),
    ],
)
def test_a_first_start_that_is_cut_off_begins_anew(
    project: Callable[..., Project], service: str, folder: str, profile: str, moments: list[str]
):
    """Nobody has to remove a volume because the power went while its database was made."""
    home = project()
    for moment in moments:
        script = f"cd {folder}; until {moment}; do :; done; "
        script += "[ -e .being-made ] && echo cut && kill -9 -1"

        def is_cut(script: str = script) -> bool:
            home.up(options=[service])
            if home.all("exec", "-T", service, "sh", "-c", script, check=False) == "cut\n":
                return True
            home.down()  # it was quicker than we are
            return False

        wait_until(is_cut, f"the first start of {service} is cut off")
    home.up("--profile", "demo", "--profile", profile)
    stored = home.in_mysql if service == "mysql" else home.in_mongo
    home.wait_complete(stored, service, more_than=3)
    assert ".being-made" not in home.all("exec", "-T", service, "ls", "-A", folder)
    assert "the first start was cut off" in home.logs(service)


def test_a_wrong_password(project: Callable[..., Project]):
    """A password that a server does not take is named with the setting to look at."""
    home = project()
    secrets = home.folder / "deploy/secrets"
    (secrets / "mongo_url").write_text("mongodb://mongo-recorder:wrong@mongo/raven")
    (secrets / "mysql_url").write_text("mysql://sql-writer:wrong@mysql/raven")
    home.up("--profile", "mqtt", "--profile", "sql", "--profile", "demo")
    home.wait_unhealthy("mongo-recorder", "see MONGO_URL")
    home.wait_unhealthy("sql-writer", "see MYSQL_URL")
    calm(home)
    (secrets / "mongo_url").unlink()
    (secrets / "mysql_url").unlink()
    home.up(
        "--profile", "mqtt", "--profile", "sql", "--profile", "demo", options=["--force-recreate"]
    )
    home.wait_healthy("mongo-recorder", "sql-writer", "sql-relay", "reader")
    home.wait_complete(home.in_mongo, "MongoDB", more_than=2)

    (secrets / "mqtt_url").write_text("mqtt://somebody:wrong@broker")
    home.up("--profile", "mqtt", options=["--force-recreate", "credentials", "mongo-recorder"])
    home.wait_unhealthy("mongo-recorder", "somebody@broker:1883 refuses: Not authorized")


def test_a_setting_that_cannot_be_used(project: Callable[..., Project]):
    """The service stops with status 78 and names the variable; the engine tries seldom."""
    home = project(RAVEN_DEVICE="usb")
    home.up("--profile", "edge")
    wait_until(lambda: "(78)" in str(home.ps()["reader"]["Status"]), "the reader ended with 78")
    said = "RAVEN_DEVICE: 'usb' cannot be used: allowed is auto, a path"
    assert said in home.logs("reader")
    say(f"  reader {home.ps()['reader']['Status']}: {said}")

    home.set(RAVEN_DEVICE="auto", RAVEN_NODE="no name")
    assert "credentials" in home.up("--profile", "edge", check=False)
    assert "'no name': allowed is 1 to 64 letters" in home.logs("credentials")


def test_a_volume_from_an_older_version_gets_what_is_missing(project: Callable[..., Project]):
    """Accounts that an older version did not make are made, what was made stays, rights become fewer."""
    home = project()
    home.up("--profile", "demo", "--profile", "sql")
    home.wait_healthy("sql-writer", "sql-relay", "reader")
    stored = home.wait_complete(home.in_mysql, "MySQL", more_than=2)
    mysql = ["exec", "-T", "mysql", "mysql", "--defaults-extra-file=/credentials/root.cnf"]
    home.all(*mysql, "-e", "DROP USER 'sql-relay'@'%'")
    home.all(*mysql, "-e", "GRANT SELECT, INSERT, UPDATE ON raven.* TO 'verify'@'%'")
    home.all("down")
    forget = "rm /made/mysql-sql-relay /made/ca.* /made/server.* /for/sql-relay/* /for/broker/*"
    home.compose("run", "--rm", "--entrypoint", "sh", "credentials", "-c", forget)
    home.up("--profile", "demo", "--profile", "sql")
    home.wait_healthy("broker", "sql-writer", "sql-relay", "reader")
    home.wait_complete(home.in_mysql, "MySQL", more_than=stored)
    grants = home.all(*mysql, "--skip-column-names", "-e", "SHOW GRANTS FOR 'verify'@'%'")
    assert "GRANT SELECT ON `raven`.* TO" in grants
    assert "INSERT" not in grants
    relay = home.all(*mysql, "--skip-column-names", "-e", "SHOW GRANTS FOR 'sql-relay'@'%'")
    everywhere = [line for line in relay.splitlines() if "`raven`.*" in line]
    assert everywhere == ["GRANT SELECT ON `raven`.* TO `sql-relay`@`%`"]


def test_two_projects_that_want_one_port(project: Callable[..., Project]):
    """The engine names the port that is taken; MQTTS_PUBLISH gives the second its own."""
    first = project()
    first.up("--profile", "mqtt", options=["broker"])
    second = project(MQTTS_PUBLISH=f"127.0.0.1:{first.port()}")
    said = second.up("--profile", "mqtt", options=["broker"], check=False)
    assert "port is already allocated" in said
    say(f"  {said.strip().splitlines()[-1][-140:]}")
    second.set(MQTTS_PUBLISH="127.0.0.1:0")
    second.up("--profile", "mqtt", options=["broker"])
    second.wait_healthy("broker")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes")
def test_the_reader_may_open_serial_ports_and_no_other_device(
    project: Callable[..., Project],
):
    """Of the host's devices the container's rules let the reader open ttyUSB and ttyACM alone."""
    home = project()
    home.up("--profile", "edge")
    wait_until(lambda: home.health("reader") != "starting", "the reader is up")
    script = """
import errno, json, os
def tried(path):
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))
        return "opened"
    except OSError as error:
        return errno.errorcode[error.errno]
print(json.dumps([tried(path) for path in PATHS]))
"""
    nodes = {"/dev/raven-test-usb": 188, "/dev/raven-test-acm": 166, "/dev/raven-test-disk": 253}
    try:
        for path, major in nodes.items():
            os.mknod(path, 0o020666, os.makedev(major, 987))
            os.chmod(path, 0o666)  # noqa: PTH101, S103 - the group's rights are not what is tested
        usb, acm, other = home.python("reader", f"PATHS = {list(nodes)}" + script)
    finally:
        for path in nodes:
            os.unlink(path)  # noqa: PTH108
    say(f"  ttyUSB {usb}, ttyACM {acm} (no such hardware here), another device {other}")
    assert usb in ("ENXIO", "ENODEV", "opened")
    assert acm in ("ENXIO", "ENODEV", "opened")
    assert other == "EPERM"
