"""The brokers that the delivery tests run on, and what each of them has and keeps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from raven_harness import stack
from raven_harness.crash.system import BOUNDS, PERSISTENCE, mosquitto

SID = stack.ROOT / ".brokers" / "sid"
"""The Debian that ``fetch.sh`` made."""
ACCOUNTS = ["home", "mongo-recorder", "sql-writer", "watcher"]


class Mosquitto20(stack.Broker):
    """Debian's Mosquitto, which saves what it has when it is stopped."""

    shares = True
    """Several recorders work, each for a part of the readings."""
    survives_kill = False
    """Sessions are there again after a kill."""
    retained_for_all = True
    """Who subscribes to a topic with a wildcard gets what is retained there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ACCOUNTS)

    def close(self) -> None:
        """End it."""
        if self.running:
            self.kill()


class Mosquitto21(Mosquitto20):
    """Mosquitto with the persistence that saves each message as it comes."""

    survives_kill = True

    def __init__(self, folder: Path) -> None:
        program, plugin = mosquitto()
        persistence = (f"global_plugin {plugin}", *PERSISTENCE, *BOUNDS)
        stack.Broker.__init__(self, folder, ACCOUNTS, program=program, persistence=persistence)


class Inside(stack.Server):
    """A broker of that Debian: it runs in there (chroot), as its own user, with data of its own."""

    shares = False
    survives_kill = False
    retained_for_all = True
    account: str
    program: tuple[str, ...]

    def __init__(
        self, folder: Path, port: int, files: Mapping[str, str], env: Mapping[str, str]
    ) -> None:
        self._state = SID / self.data(port)[1:]
        self._state.mkdir(parents=True)
        for name, text in files.items():
            (self._state / name).write_text(text)
        for path in (self._state, *self._state.iterdir()):
            path.chmod(0o700)  # what is secret among them is refused otherwise
            shutil.chown(path, *self._owner())
        self._env = [f"{name}={value}" for name, value in {"HOME": self.data(port), **env}.items()]
        super().__init__(self.account, self.entered(*self.program), folder, port)

    def data(self, port: int) -> str:
        """Return the path that its data have inside."""
        return f"/var/lib/{self.account}/{port}"

    def url(self, account: str) -> str:
        """Return the URL with an account, which any password opens."""
        return f"mqtt://{account}:secret@127.0.0.1:{self.port}"

    def entered(self, *command: str) -> list[str]:
        """Return how to run a command inside."""
        uid, gid = self._owner()
        mounts = f"mount -t proc proc {SID}/proc; mount --bind /dev {SID}/dev; "
        enter = f'exec chroot --userspec={uid}:{gid} {SID} "$@"'
        return ["unshare", "--mount", "sh", "-c", mounts + enter, "sh", "env", *self._env, *command]

    def kill(self) -> int:
        """End it with SIGKILL, the virtual machine and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait()

    def close(self) -> None:
        """End it and remove its data."""
        if self.running:
            self.kill()
        shutil.rmtree(self._state)

    def _owner(self) -> tuple[int, int]:
        owner = (SID / "var/lib" / self.account).stat()
        return owner.st_uid, owner.st_gid


RABBITMQ = """\
listeners.tcp = none
mqtt.listeners.tcp.1 = {host}:{port}
mqtt.max_session_expiry_interval_seconds = infinity
log.console = true
log.console.level = warning
"""


class RabbitMq(Inside):
    """RabbitMQ with its MQTT plugin, at an address; ``config`` is what else it is told."""

    survives_kill = True
    retained_for_all = False
    account = "rabbitmq"
    program = ("/usr/lib/rabbitmq/bin/rabbitmq-server",)

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        config: str = "",
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        port = stack.free_port()
        data = self.data(port)
        files = {
            "rabbitmq.conf": RABBITMQ.format(host=host, port=port) + config,
            "plugins": "[rabbitmq_mqtt].",
            ".erlang.cookie": "raven",
        }
        use = f"inet_dist_use_interface {{{host.replace('.', ',')}}}"
        env = {
            "RABBITMQ_NODENAME": f"rabbit{port}@localhost",
            "RABBITMQ_CONFIG_FILE": f"{data}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{data}/plugins",
            "RABBITMQ_MNESIA_BASE": data,
            "RABBITMQ_LOG_BASE": data,
            "RABBITMQ_PID_FILE": f"{data}/pid",
            "RABBITMQ_DIST_PORT": str(stack.free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel {use}",
            # It is what a signal ends then, and no script before it.
            "RUNNING_UNDER_SYSTEMD": "true",
            "ERL_EPMD_ADDRESS": host,
            "ERL_EPMD_PORT": str(stack.free_port()),
            # Whoever knows no more of its end than the kernel may end the name server all the same.
            "ERL_EPMD_RELAXED_COMMAND_CHECK": "true",
            **env,
        }
        super().__init__(folder, port, files, env)

    def url(self, _account: str) -> str:
        """Return the URL with the account that there is."""
        return f"mqtt://guest:guest@127.0.0.1:{self.port}"

    def tool(self, name: str, *arguments: str) -> list[str]:
        """Return how to run one of its own tools."""
        return self.entered(f"/usr/lib/rabbitmq/bin/{name}", *arguments)

    def close(self) -> None:
        """End it and the name server that it started, and remove its data."""
        if self.running:
            self.kill()
        subprocess.run(self.entered("epmd", "-kill"), check=False)
        super().close()


EJABBERD = """\
hosts: [localhost]
loglevel: warning
auth_method: [anonymous]
anonymous_protocol: login_anon
listen: [{{port: {port}, ip: 127.0.0.1, module: mod_mqtt}}]
modules: {{mod_mqtt: {{session_expiry: 30 days, max_queue: unlimited}}}}
"""


class Ejabberd(Inside):
    """ejabberd with its module mod_mqtt: its sessions are in memory alone."""

    account = "ejabberd"

    def __init__(self, folder: Path) -> None:
        port = stack.free_port()
        data = self.data(port)
        self.program = ("erl", "-noinput", "-mnesia", "dir", f'"{data}"', "-s", "ejabberd")
        (libraries,) = SID.glob("usr/lib/*/ejabberd-*")
        env = {
            "ERL_LIBS": f"/{libraries.parent.relative_to(SID)}",
            "EJABBERD_CONFIG_PATH": f"{data}/ejabberd.yml",
            "EJABBERD_LOG_PATH": f"{data}/ejabberd.log",
        }
        super().__init__(folder, port, {"ejabberd.yml": EJABBERD.format(port=port)}, env)


BROKERS = (Mosquitto20, Mosquitto21, RabbitMq, Ejabberd)
