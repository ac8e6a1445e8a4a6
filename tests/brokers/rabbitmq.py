"""RabbitMQ with its MQTT plugin, in the system that ``fetch.sh`` made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from raven_harness import stack

ROOT = stack.ROOT / ".brokers" / "rabbitmq"
CONFIG = """\
listeners.tcp = none
mqtt.listeners.tcp.1 = 127.0.0.1:{port}
anonymous_login_user = guest
anonymous_login_pass = guest
mqtt.max_session_expiry_interval_seconds = infinity
log.console = true
log.console.level = warning
"""


class RabbitMq(stack.Server):
    """The broker; its data stay while it is down, and go with ``close``."""

    def __init__(self, folder: Path) -> None:
        port = stack.free_port()
        self._data = f"/var/lib/rabbitmq/{port}"
        state = ROOT / self._data[1:]
        state.mkdir(parents=True)
        (state / "rabbitmq.conf").write_text(CONFIG.format(port=port))
        (state / "plugins").write_text("[rabbitmq_mqtt].")
        for path in (state, *state.iterdir()):
            shutil.chown(path, *self._owner())
        settings = {
            "HOME": self._data,
            "RABBITMQ_NODENAME": f"rabbit{port}@localhost",
            "RABBITMQ_CONFIG_FILE": f"{self._data}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self._data}/plugins",
            "RABBITMQ_MNESIA_BASE": self._data,
            "RABBITMQ_LOG_BASE": self._data,
            "RABBITMQ_PID_FILE": f"{self._data}/pid",
            "RABBITMQ_DIST_PORT": str(stack.free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(stack.free_port()),
        }
        self._inside = ["env", *(f"{name}={value}" for name, value in settings.items())]
        command = self._entered(*self._inside, "/usr/lib/rabbitmq/bin/rabbitmq-server")
        super().__init__("rabbitmq", command, folder, port)

    def url(self, _account: str) -> str:
        """Return its URL, which is the same for every account."""
        return f"mqtt://127.0.0.1:{self.port}"

    def kill(self) -> int:
        """End it with SIGKILL, the virtual machine and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait()

    def close(self) -> None:
        """End it and the name server that it started, and remove its data."""
        if self.running:
            self.kill()
        subprocess.run(self._entered(*self._inside, "epmd", "-kill"), check=False)
        shutil.rmtree(ROOT / self._data[1:])

    def _entered(self, *command: str) -> list[str]:
        uid, gid = self._owner()
        mounts = f"mount -t proc proc {ROOT}/proc; mount --bind /dev {ROOT}/dev; "
        enter = f'exec chroot --userspec={uid}:{gid} {ROOT} "$@"'
        return ["unshare", "--mount", "sh", "-c", mounts + enter, "sh", *command]

    @staticmethod
    def _owner() -> tuple[int, int]:
        owner = (ROOT / "var/lib/rabbitmq").stat()
        return owner.st_uid, owner.st_gid
