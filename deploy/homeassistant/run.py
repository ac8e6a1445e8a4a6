"""Start the services of the add-on, as its options say, and end them together.

The options are those of config.yaml; without ``mqtt_url`` the Supervisor says where the broker is.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from urllib.request import Request, urlopen

DATA: Final = Path(os.environ.get("ADDON_DATA", "/data"))
SUPERVISOR: Final = os.environ.get("ADDON_SUPERVISOR", "http://supervisor")
EXIT_SETTINGS: Final = 78
PAGES: Final = {
    "RAVEN_DASHBOARD_HOST": "0.0.0.0",  # noqa: S104 - of its container
    # The Supervisor's address, which no other container has.
    "RAVEN_DASHBOARD_TRUSTED_PROXY": "172.30.32.2",
}
SETTINGS: Final = {
    "device": "RAVEN_DEVICE",
    "name": "RAVEN_NAME",
    "node": "RAVEN_NODE",
    "mqtt_url": "MQTT_URL",
    "time_zone": "RAVEN_TIME_ZONE",
}


def broker() -> str:
    """Return the URL of the broker that the Supervisor knows; raise OSError if it knows none."""
    token = os.environ.get("SUPERVISOR_TOKEN", "")
    request = Request(f"{SUPERVISOR}/services/mqtt", headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - the Supervisor's own
    with urlopen(request, timeout=30) as answer:  # noqa: S310 - the Supervisor's own
        said = json.load(answer)["data"]
    scheme = "mqtts" if said.get("ssl") else "mqtt"
    account = f"{quote(said['username'], safe='')}:{quote(said['password'], safe='')}"
    return f"{scheme}://{account}@{said['host']}:{said['port']}"


def programs(options: Mapping[str, Any], base: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the programs to run, each with its environment."""
    shared = {**base, "RAVEN_STATE": str(DATA / "reader")}
    shared |= {setting: options[name] for name, setting in SETTINGS.items() if options.get(name)}
    stores = {
        setting: options[name]
        for name, setting in (("mysql_url", "MYSQL_URL"), ("mongo_url", "MONGO_URL"))
        if options.get(name)
    }
    if not stores:
        shared["RAVEN_STORES"] = "none"
    shared |= {one["name"]: one["value"] for one in options.get("settings", ())}
    found = {"raven-reader": shared}
    if "MYSQL_URL" in stores:
        found["raven-sql-writer"] = {**shared, "MYSQL_URL": stores["MYSQL_URL"]}
    if "MONGO_URL" in stores:
        found["raven-mongo-recorder"] = {**shared, "MONGO_URL": stores["MONGO_URL"]}
    if stores:
        # Without a password for the port there is one that nobody knows.
        password = options.get("dashboard_password") or secrets.token_hex()
        found["raven-dashboard"] = {
            **PAGES,
            **shared,
            **stores,
            "RAVEN_DASHBOARD_PASSWORD": password,
        }
    return found


def main() -> int:
    """Run until one of them ends, or a signal comes; return the first one's exit status."""
    options = json.loads((DATA / "options.json").read_text(encoding="utf-8"))
    if not options.get("mqtt_url"):
        try:
            options["mqtt_url"] = broker()
        except (OSError, KeyError, ValueError) as error:
            print(
                f"there is no broker ({error}): install the add-on Mosquitto broker, "
                "or set mqtt_url, as mqtt://user:password@host",
                file=sys.stderr,
            )
            return EXIT_SETTINGS
    running = {
        subprocess.Popen([name, *(["run"] if name == "raven-reader" else [])], env=env).pid: name
        for name, env in programs(options, os.environ).items()
    }

    told: set[int] = set()

    def end(*_: object) -> None:
        # Once: a second signal would end them in the middle of what they have to finish.
        for pid in running.keys() - told:
            told.add(pid)
            os.kill(pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    first: int | None = None
    while running:
        pid, status = os.wait()
        if name := running.pop(pid, None):
            code = os.waitstatus_to_exitcode(status)
            print(f"{name} has ended with status {code}", file=sys.stderr)
            if first is None:
                first = code
                end()
    return first or 0


if __name__ == "__main__":
    sys.exit(main())
