"""What the containers of 1.0.0 made is taken over by this version's, over the same volumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests import released
from tests.compose.project import COUNT_MYSQL, ROOT, Project, Stick, docker, wait_until

BOTH = ("--profile", "sql", "--profile", "mqtt")
SERVICES = (
    "broker",
    "mysql",
    "mongo",
    "sql-writer",
    "sql-relay",
    "mongo-recorder",
    "reader",
    "dashboard",
)
MADE = """
import json, pathlib
files = [file for file in pathlib.Path("/made").rglob("*") if file.is_file()]
print(json.dumps({file.name: file.read_text() for file in files}))
"""
RELAYED = """
import json
with db.cursor() as cursor:
    cursor.execute("SELECT relayed, COUNT(*) FROM instantaneous_demand GROUP BY relayed")
    print(json.dumps(dict(cursor.fetchall())))
"""


def test_what_1_0_made_is_taken_over(
    project: Callable[..., Project], stick: Callable[..., Stick], tmp_path: Path
):
    """Readings, what waits for them and credentials are kept, over an upgrade of all at once."""
    old = released.unpack(tmp_path / "released")
    build_images(old)
    meter = stick()
    # What the relay sends comes back, and is stored already.
    upstream = "mqtt://house:secret@broker:1883"
    home = project(RAVEN_DEVICE=meter.path, RAVEN_NODE="house", UPSTREAM_MQTT_URL=upstream)
    home.take(old)
    (home.folder / "deploy" / "secrets" / "mqtt-house").write_text("secret")
    home.up(*BOTH)
    home.wait_complete(home.in_mysql, "MySQL", more_than=50)
    home.wait_complete(home.in_mongo, "MongoDB", more_than=50)
    wait_until(lambda: relayed(home).get("1"), "rows are relayed")
    made = credentials(home)
    home.all("kill", "sql-writer", "mongo-recorder", "sql-relay")
    before = sum(home.accepted().values())
    wait_until(lambda: sum(home.accepted().values()) > before + 50, "readings wait in the broker")
    home.all("kill", "reader")

    home.take(ROOT)
    home.up(*BOTH)
    home.wait_healthy(*SERVICES)
    for store in ("sql-writer", "mongo-recorder"):
        wait_until(lambda s=store: "session drained and ended" in home.logs(s), f"{store} is done")
    wait_until(lambda: sum(home.accepted().values()) > before + 100, "the reader goes on")
    meter.unplug()
    home.wait_complete(home.in_mysql, "MySQL, upgraded", more_than=before + 100)
    home.wait_complete(home.in_mongo, "MongoDB, upgraded", more_than=before + 100)
    wait_until(lambda: relayed(home).keys() == {"1"}, "every row is relayed")
    assert len(home.accepted()) == 1, "the run goes on"
    assert made.items() <= credentials(home).items()
    done = home.compose(*BOTH, "run", "--rm", "-T", "verify", check=False, shown=True)
    assert (done.returncode, "complete in MySQL and MongoDB" in done.stdout) == (0, True), done


def build_images(version: Path) -> None:
    """Build the images of a released version beside those of this one."""
    compose = version / "docker-compose.yml"
    compose.write_text(compose.read_text().replace(f":{released.VERSION}", ":released"))
    files = ["-f", str(compose), "-f", str(version / "tests" / "compose" / "build.yml")]
    docker("compose", *files, *BOTH, "build", "--quiet")


def credentials(home: Project) -> dict[str, str]:
    """Return what was made at the first start, but for the broker's certificate."""
    volume = f"{home.name}_credentials:/made:ro"
    made = docker("run", "--rm", "-v", volume, "python:3.13-slim-trixie", "python", "-c", MADE)
    return {name: text for name, text in json.loads(made).items() if "server" not in name}


def relayed(home: Project) -> dict[str, int]:
    """Count the demands in MySQL by the relay's mark."""
    return dict(home.python("sql-writer", COUNT_MYSQL.partition("seqs =")[0] + RELAYED))
