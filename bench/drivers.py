"""A process that has imported the drivers of a service and nothing of ours."""

from __future__ import annotations

import sys
from typing import Final

_COMMON: Final = "paho.mqtt.client, msgspec, prometheus_client, tenacity"
_MODULES: Final = {
    "reader": f"{_COMMON}, serial, sqlite3",
    "recorder": f"{_COMMON}, pymongo",
    "writer": f"{_COMMON}, pymysql",
    "relay": f"{_COMMON}, pymysql",
}
# What the drivers would import beside them is no need of a service.
_HIDDEN: Final = "import sys\nsys.modules['cryptography'] = None\n"


def command(service: str, then: str = "") -> list[str]:
    """Return the command that imports what a service needs, and then does something else."""
    return [sys.executable, "-c", f"{_HIDDEN}import {_MODULES[service]}\n{then}"]
