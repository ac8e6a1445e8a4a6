"""What the running containers may do, and who can read which secret."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from typing import Any

from tests.compose.project import Project, docker, say, wait_until

SERVICES = (
    "broker",
    "mysql",
    "mongo",
    "reader",
    "sql-writer",
    "sql-relay",
    "mongo-recorder",
    "dashboard",
)
MONITORS = ("prometheus", "alertmanager", "node-exporter", "blackbox-exporter")


def containers(home: Project) -> dict[str, dict[str, Any]]:
    """Return what `docker inspect` says of a project's containers, by service."""
    found = json.loads(docker("inspect", *home.all("ps", "--all", "--quiet").split()))
    return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}


def secrets_of(home: Project) -> dict[str, str]:
    """Return every secret that was made, by name."""
    script = (
        "import json, pathlib; print(json.dumps({f.name: f.read_text() for f in "
        "pathlib.Path('/made').iterdir() if f.name.split('-')[0] in "
        "('mqtt', 'mongo', 'mysql', 'dashboard') "
        "or f.suffix == '.key'}))"
    )
    run = ["run", "--rm", "--entrypoint", "python", "credentials", "-c", script]
    return dict(json.loads(home.compose(*run).stdout))


def test_containers_have_no_rights_that_they_do_not_need(project: Callable[..., Project]):
    """No root, no capabilities, no new privileges, nothing writable but volumes, bounded."""
    home = project()
    profiles = ("demo", "mqtt", "sql", "monitoring")
    home.up(*(word for profile in profiles for word in ("--profile", profile)))
    home.wait_healthy(*SERVICES, "prometheus", "alertmanager")
    found = containers(home)
    for service in (*SERVICES, *MONITORS, "simulator", "credentials"):
        config, host = found[service]["Config"], found[service]["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert host["Init"], service
        assert not host["Privileged"], service
        assert host["Memory"] > 0, service
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}, service
        if service == "credentials":
            assert sorted(host["CapAdd"]) == ["CHOWN", "DAC_OVERRIDE"]
            assert host["NetworkMode"] == "none"
            continue
        assert not host["CapAdd"], service
        assert config["User"].split(":")[0].isdigit(), service
        status = home.all("exec", "-T", service, "sh", "-c", "cat /proc/self/status")
        lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        assert lines["Uid"].split()[1] != "0", service
        assert int(lines["CapEff"], 16) == int(lines["CapBnd"], 16) == 0, service
        assert lines["NoNewPrivs"].strip() == "1", service
        touched = home.compose("exec", "-T", service, "touch", "/etc/x", check=False)
        assert touched.returncode, service
    published = {s: one["HostConfig"]["PortBindings"] for s, one in found.items()}
    assert {service for service, ports in published.items() if ports} == {
        *("broker", "dashboard", "prometheus", "alertmanager")
    }
    say(f"  checked: {' '.join(sorted(found))}")

    secrets = secrets_of(home)
    assert len(secrets) >= 10
    assert len(set(secrets.values())) == len(secrets)
    inspected = json.dumps(found)
    logged = "".join(home.logs(service) for service in found)
    for name, secret in secrets.items():
        assert len(secret) >= 32, name
        assert secret not in inspected, name
        assert secret not in logged, name
    for service in (*SERVICES, *MONITORS):
        mounted = {
            m["Name"].removeprefix(home.name + "_") for m in found[service]["Mounts"] if "Name" in m
        }
        its = {f"for-{service}"} if service in SERVICES else set()
        assert {name for name in mounted if name.startswith("for-")} == its, service
        assert "credentials" not in mounted, service
    say(f"  {len(secrets)} secrets: in no environment, inspect or log; each service mounts its own")


def test_other_machines_reach_the_broker_only_where_they_are_to(project: Callable[..., Project]):
    """And the pages: without a word this machine alone does; a server that nobody could reach does not start."""

    def address(service: str, **env: str) -> str:
        home = project(**env)
        config = json.loads(home.compose("--profile", "*", "config", "--format", "json").stdout)
        (port,) = config["services"][service].get("ports", [{"host_ip": None, "published": None}])
        return f"{port.get('host_ip', '*')}:{port['published']}"

    assert address("broker", MQTTS_PUBLISH="") == "127.0.0.1:8883"
    assert address("broker", MQTTS_PUBLISH="8883") == "*:8883"
    assert address("dashboard", DASHBOARD_PUBLISH="") == "127.0.0.1:8080"
    assert address("dashboard", DASHBOARD_PUBLISH="8081") == "*:8081"
    assert address("prometheus", PROMETHEUS_PUBLISH="") == "127.0.0.1:9090"
    assert address("alertmanager", ALERTMANAGER_PUBLISH="") == "127.0.0.1:9093"
    for database in ("mysql", "mongo"):
        assert address(database) == "None:None"
        assert address(database, **{f"{database.upper()}_PUBLISH": "4000"}) == "*:4000"
    server = project(SERVER_NAME="raven.example.org", MQTTS_PUBLISH="")
    server.up("--profile", "server", options=["broker"], check=False)
    assert "MQTTS_PUBLISH=8883" in server.logs("credentials")


def test_the_broker_lets_nobody_in_without_an_account_of_its_own(project: Callable[..., Project]):
    """Anonymous and wrong passwords are refused; nobody writes what is another's, or commands it."""
    home = project(RAVEN_NODE="house")
    home.up("--profile", "mqtt", options=["broker", "mongo-recorder"])
    home.wait_healthy("broker", "mongo-recorder")
    secrets = secrets_of(home)

    def sub(topic: str, *who: str) -> str:
        words = ["exec", "-T", "broker", "mosquitto_sub", "-W", "20", "-t", topic, *who]
        return home.compose(*words, check=False).stderr

    assert "not authorised" in sub("#")
    assert "not authorised" in sub("#", "-u", "mongo-recorder", "-P", "wrong")
    for account, topic, kept in (
        ("house", "raven/v1/house/status", True),
        ("house", "raven/v1/other/status", False),
        ("home-assistant", "raven/v1/house/command", True),
        ("home-assistant", "raven/v1/other/command", False),
    ):
        who = ["-u", account, "-P", secrets[f"mqtt-{account}"], "-q", "1", "-r", "-m", "1"]
        home.compose("exec", "-T", "broker", "mosquitto_pub", "-t", topic, *who)
        words = [
            "-u",
            "watcher",
            "-P",
            secrets["mqtt-watcher"],
            "-t",
            topic,
            "-W",
            "20" if kept else "3",
            "-C",
            "1",
        ]
        seen = home.compose("exec", "-T", "broker", "mosquitto_sub", *words, check=False).stdout
        assert bool(seen) is kept, topic


def test_the_alarm_comes_before_the_certificate_ends(project: Callable[..., Project]):
    """The broker is unhealthy a while before, and says how to renew it; that ends the alarm."""
    home = project()
    home.up("--profile", "mqtt", options=["broker"])
    home.wait_healthy("broker")
    end = "/for/broker/server.end"
    script = f"expr $(date +%s) + 864000 >{end}"
    home.compose("run", "--rm", "--entrypoint", "sh", "credentials", "-c", script)
    wait_until(lambda: home.health("broker") == "unhealthy", "the broker is unhealthy")
    said = containers(home)["broker"]["State"]["Health"]["Log"][-1]["Output"]
    assert "the certificate ends in 9 days: docker compose run --rm credentials renew" in said
    before = ssl.get_server_certificate(("127.0.0.1", home.port()))
    home.compose("run", "--rm", "credentials", "renew", shown=True)
    home.wait_healthy("broker")
    wait_until(
        lambda: ssl.get_server_certificate(("127.0.0.1", home.port())) != before,
        "the broker shows the new certificate",
    )


def test_the_alarm_comes_before_a_queue_is_full(project: Callable[..., Project]):
    """A broker with many messages waiting is unhealthy, says how many, and recovers."""
    home = project(RAVEN_NODE="house")
    health = home.folder / "deploy/mosquitto/health"
    health.write_text(health.read_text().replace("ALARM=160000", "ALARM=300"))
    home.up("--profile", "mqtt", options=["broker", "mongo-recorder"])
    wait_until(lambda: "connected to the broker" in home.logs("mongo-recorder"), "it has a session")
    home.all("stop", "mongo-recorder")
    who = f"-u house -P {secrets_of(home)['mqtt-house']} -q 1"
    lines = f"seq 400 | mosquitto_pub {who} -t raven/v1/house/reading/warning -l"
    home.all("exec", "-T", "broker", "sh", "-c", lines)
    wait_until(lambda: home.health("broker") == "unhealthy", "the broker is unhealthy")
    say(
        f"  unhealthy: {containers(home)['broker']['State']['Health']['Log'][-1]['Output'].strip()}"
    )
    home.all("start", "mongo-recorder")
    home.wait_healthy("broker")
