"""The add-on's start with real services, and a double of the Supervisor."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raven_harness import stack
from raven_harness.stack import wait_until

from .sql import Db
from .system import NODE, System


class Addon(stack.Process):
    """What the image runs, with options as the Supervisor writes them."""

    def __init__(self, folder: Path, **options: object) -> None:
        command = [sys.executable, str(stack.ROOT / "deploy" / "homeassistant" / "run.py")]
        super().__init__("addon", command, folder)
        self.env = {
            "PATH": f"{stack.BIN}:{os.environ['PATH']}",
            "ADDON_DATA": str(folder),
            "ADDON_SUPERVISOR": "http://127.0.0.1:1",
            "SUPERVISOR_TOKEN": "secret-token",
        }
        (folder / "options.json").write_text(json.dumps(options))


@pytest.fixture
def supervisor(system: System) -> Iterator[str]:
    """Answers where the broker is, to who has the token."""
    mqtt = {"host": "127.0.0.1", "port": system.broker.port, "username": NODE, "ssl": False}
    answer = {"result": "ok", "data": {**mqtt, "password": system.broker.passwords[NODE]}}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["Authorization"] == "Bearer secret-token"
            self.send_response(200 if known and self.path == "/services/mqtt" else 403)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_add_on_uses_the_broker_that_the_supervisor_knows(system: System, supervisor: str):
    """Without a database the values come, and nothing waits for one."""
    addon = Addon(system.folder, device=system.device, node=NODE)
    addon.env["ADDON_SUPERVISOR"] = supervisor
    system.start("--rate", "20", reader=False, recorder=False)
    watcher = system.watch(f"raven/v1/{NODE}/latest/+")
    system.run_process(addon)
    wait_until(lambda: list(watcher.messages()), "values come")
    assert "nobody subscribes" not in addon.text()
    assert addon.stop() == 0


def test_the_add_on_fills_a_database(system: System, db: Db):
    """With one it starts the writer and the dashboard too, and ends them together.

    The pages are there for the proxy alone: the port has no password that anybody knows.
    """
    port, proxy = stack.free_port(), "127.0.0.2"
    said = {"RAVEN_DASHBOARD_PORT": str(port), "RAVEN_DASHBOARD_TRUSTED_PROXY": proxy}
    addon = Addon(
        system.folder,
        device=system.device,
        node=NODE,
        mqtt_url=system.broker.url(NODE),
        mysql_url=db.url,
        settings=[{"name": name, "value": value} for name, value in said.items()],
    )
    # All of them share an account, as that of the Supervisor's broker.
    config = Path(system.broker.command[-1])
    lines = config.read_text().splitlines()
    config.write_text("\n".join(one for one in lines if not one.startswith("acl_file")) + "\n")
    system.start("--rate", "20", reader=False, recorder=False)
    system.run_process(addon)
    system.wait_for_log(addon, "raven-dashboard: started")
    system.wait_for_log(addon, "raven-sql-writer: connected to the broker")
    wait_until(lambda: db("SELECT count(*) FROM instantaneous_demand")[0][0] > 5, "rows come")
    for source, status in ((proxy, 200), ("127.0.0.1", 401)):
        asking = HTTPConnection("127.0.0.1", port, timeout=60, source_address=(source, 0))
        with closing(asking):
            asking.request("GET", "/api/v1/meters", headers={"X-Forwarded-For": proxy})
            assert asking.getresponse().status == status
    assert addon.stop() == 0
    for name in ("raven-reader", "raven-sql-writer", "raven-dashboard"):
        assert f"{name} has ended with status 0" in addon.text()


def test_an_add_on_without_a_broker_says_so(tmp_path: Path):
    """What is missing, and what to do, in one line."""
    addon = Addon(tmp_path, device="auto")
    addon.start()
    assert addon.wait() == 78
    assert "install the add-on Mosquitto broker, or set mqtt_url" in addon.text()
