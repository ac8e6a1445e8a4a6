"""The recorders of deploy/stack.yml, run by this engine in swarm mode."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compose.project import ROOT, Project, Stick, docker, in_mongo, say, wait_until

NETWORK = """
services: {mongo-recorder: {networks: [host]}}
networks: {host: {external: true, name: host}}
"""
"""One host's own network in place of an overlay, which needs modules of the kernel."""
PUBLISHED = """
services:
  mongo: {networks: [default, mongo], ports: ["%s::27017"]}
"""


@pytest.fixture
def swarm() -> None:
    """Have the engine be a swarm of its own.

    `engine.sh clear` knows the label and ends it after all tests: the names of all containers that
    run then are forgotten (moby/moby#45144).
    """
    docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1")
    docker("node", "update", "--label-add", "raven.test=yes", docker("node", "ls", "-q").strip())


@pytest.mark.usefixtures("swarm")
def test_recorders_are_a_service_of_a_swarm(
    project: Callable[..., Project], stick: Callable[..., Stick], tmp_path: Path
):
    """The same image and a stack file: scaled down and up and killed, nothing is lost or doubled."""
    host = docker(
        "network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"
    ).strip()
    server = project(SERVER_NAME=host, MQTTS_PUBLISH="0")
    server.override(PUBLISHED % host)
    server.up("--profile", "server")
    server.wait_healthy("broker", "mongo", "mongo-recorder")
    ca = server.compose("run", "--rm", "credentials", "ca").stdout
    url = server.compose("run", "--rm", "credentials", "account", "house-9").stdout.strip()
    secrets = {
        name: server.all("exec", "-T", "mongo-recorder", "cat", f"/credentials/{name}").strip()
        for name in ("mqtt_url", "mongo_url")
    }
    server.all("stop", "mongo-recorder")

    home = project(RAVEN_DEVICE=stick().path, MQTT_URL=url.replace(":8883", f":{server.port()}"))
    (home.folder / "deploy/secrets/mqtt_ca.pem").write_text(ca)
    home.up("--profile", "edge")
    home.wait_healthy("reader")

    port = server.all("port", "mongo", "27017").strip().rpartition(":")[2]
    account = secrets["mqtt_url"].partition("://")[2].rpartition("@")[0]
    mongo_url = (
        secrets["mongo_url"]
        .replace("@mongo", f"@{host}:{port}")
        .replace(f":{port}:27017", f":{port}")
    )
    given = {
        "raven_mqtt_url": f"mqtts://{account}@{host}:{server.port()}",
        "raven_mqtt_ca": ca,
        "raven_mongo_url": mongo_url,
    }
    name = f"raven-test-{uuid.uuid4().hex[:8]}"
    for secret, text in given.items():
        (tmp_path / secret).write_text(text)
        docker("secret", "create", secret, str(tmp_path / secret))
    (tmp_path / "network.yml").write_text(NETWORK)
    files = ["-c", str(ROOT / "deploy" / "stack.yml"), "-c", str(tmp_path / "network.yml")]
    say("\n$ docker stack deploy -c deploy/stack.yml raven")
    docker("stack", "deploy", "--resolve-image", "never", *files, name)
    service = f"{name}_mongo-recorder"

    def stored() -> dict[str, list[int]]:
        return in_mongo(mongo_url, "house-9")

    def wait_for_tasks(count: int) -> None:
        running = ("ps", "-q", "-f", f"name={service}", "-f", "health=healthy")
        try:
            wait_until(lambda: len(docker(*running).split()) == count, f"{count} recorders run")
        except RuntimeError as error:
            said = docker("service", "ps", service, "--no-trunc")
            logs = docker("service", "logs", "--tail", "5", service, check=False)
            raise AssertionError(f"{error}\n{said}\n{logs}") from None

    wait_for_tasks(4)
    count = home.wait_complete(stored, "the server, with a swarm's recorders", more_than=20)
    for replicas in (1, 4):
        say(f"\n$ docker service scale raven_mongo-recorder={replicas}")
        docker("service", "scale", "--detach", f"{service}={replicas}")
        wait_for_tasks(replicas)
        count = home.wait_complete(stored, f"the server, with {replicas}", more_than=count + 50)
    docker("kill", *docker("ps", "-q", "-f", f"name={service}").split()[:2])
    home.wait_complete(stored, "the server after docker kill of two", more_than=count + 50)
    docker("stack", "rm", name)
    wait_until(lambda: not docker("ps", "-q", "-f", f"name={service}").split(), "they are gone")
