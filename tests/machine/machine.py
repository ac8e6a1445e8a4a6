"""A virtual machine of QEMU, run by commands over SSH; sticks are plugged into it over USB/IP."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from raven_harness import stack

HOME = stack.ROOT / ".machine"
HOST = "10.0.2.2"
"""This host, as QEMU's network shows it to the machine."""
ANSWERS_S = 30.0
"""A machine that KVM runs has said something by then."""
BOOTS_S = 1500.0
"""A processor in software takes minutes, and more where the real one does other things meanwhile."""
RUN_S = 1800.0
# Without cmpxchg16b, which QEMU 7.2 does wrong in software when two processors do it at once.
PROCESSORS = {"kvm": "host", "tcg,thread=multi": "Nehalem,-cx16"}

wait_until = partial(stack.wait_until, timeout_s=900.0)


def say(text: str) -> None:
    """Print a line of the log that the tests leave."""
    print(text, flush=True)


class Machine:
    """A disk with .machine's kernel; what it writes there is forgotten when it ends.

    How its python-raven is asked is set by who installs it.
    """

    subscribe: str
    """The shell's words, to the URL of the broker, that print one message of a topic."""
    verify: str
    """The shell's words that call ``raven-verify --json``."""
    stores: set[str]
    """Those that it names."""

    def __init__(self, disk: Path, folder: Path) -> None:
        self._console = folder / "console"
        self._monitor = folder / "monitor"
        self._disk = disk
        self._port = stack.free_port()
        options = {
            "ControlMaster": "auto",
            "ControlPath": f"{folder}/ssh",
            "ControlPersist": "yes",
            "ConnectTimeout": "60",
            "IdentityFile": str(HOME / "key"),
            "LogLevel": "ERROR",
            "Port": str(self._port),
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        self._ssh = ["ssh", *(f"-o{name}={value}" for name, value in options.items())]
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Boot it, with KVM where that runs and in software elsewhere; return once it is up."""
        for accelerator, processor in PROCESSORS.items():
            self._start(accelerator, processor)
            with suppress(RuntimeError):
                stack.wait_until(self._lives, "the kernel says something", ANSWERS_S)
                say(f"machine: {accelerator}")
                self._wait_up()
                return
            self.end()
        raise AssertionError(f"no machine: {self._console.read_text(errors='replace')[-3000:]}")

    def reboot(self) -> None:
        """Have its own system go down and come up again."""
        before = self.run("cat /proc/sys/kernel/random/boot_id")
        self.run("systemctl reboot", check=False)
        self._wait_another(before)

    def cut_power(self) -> None:
        """Take its power away and give it back, without a word to it."""
        before = self.run("cat /proc/sys/kernel/random/boot_id")
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self._monitor))
            with monitor.makefile("rw") as lines:
                for command in ("qmp_capabilities", "system_reset"):
                    lines.write(json.dumps({"execute": command}) + "\n")
                    lines.flush()
                    while "return" not in json.loads(lines.readline()):
                        pass
        self._wait_another(before)

    def end(self) -> None:
        """Take it away."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def run(self, script: str, *, check: bool = True, given: bytes = b"") -> str:
        """Run a script of the shell in it as root; return what it printed."""
        done = subprocess.run(
            [*self._ssh, "root@127.0.0.1", f"sh -euc {shlex.quote(script)}"],
            input=given,
            capture_output=True,
            timeout=RUN_S,
            check=False,
        )
        said = done.stdout.decode(errors="replace").strip()
        if check and done.returncode:
            raise AssertionError(f"{script}\n{said}\n{done.stderr.decode(errors='replace')}")
        return said

    def attach(self, port: int) -> None:
        """Plug in the stick that is offered on a port of this host."""
        self.run(f"usbip --tcp-port {port} attach --remote {HOST} --busid 1-1")

    def detach(self) -> None:
        """Take all sticks from it."""
        self.run("for n in 0 1 2; do usbip detach --port $n; done", check=False)

    def hold(self, port: str) -> None:
        """Keep a port's file open until the unit ``hold`` is stopped: so long the kernel does not give its number again."""
        hold = f"exec 3<{port}; touch /run/held; exec nohup sleep infinity"
        self.run(
            f"rm -f /run/held; systemd-run --collect --unit hold sh -c '{hold}'; until [ -e /run/held ]; do sleep 1; done"
        )

    def status(self, node: str = "house") -> dict[str, Any]:
        """Return what a reader says of itself and its stick."""
        said = self.run(f"{self.subscribe}/raven/v1/{node}/status", check=False)
        return dict(json.loads(said or "{}"))

    def wait_device(self, state: str, words: str = "", node: str = "house") -> dict[str, Any]:
        """Wait until a reader says that its stick is so, and why; return what it says."""

        def so() -> dict[str, Any] | None:
            status = self.status(node)
            right = status.get("device") == state and words in (status.get("detail") or "")
            return status if right else None

        found: dict[str, Any] = wait_until(so, f"{node} says {state} {words}")
        say(f"  {node}: {found['device']} {found.get('port')} {found.get('detail') or ''}")
        return found

    def complete(self, more_than: int = 0) -> int:
        """Wait until each store has more than so many readings, and lacks none but what is under way; say how many."""

        def counted() -> int | None:
            report = json.loads(self.run(self.verify, check=False) or "{}")
            counts: dict[str, int] = {}
            for run in report.get("runs", []):
                for name, store in run["stores"].items():
                    if store["lacking"] or store["doubled"]:
                        return None
                    counts[name] = counts.get(name, 0) + store["count"]
            if counts.keys() == self.stores and min(counts.values()) > more_than:
                return min(counts.values())
            return None

        return int(wait_until(counted, f"the stores have all, and more than {more_than}"))

    def _lives(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("QEMU ended")
        return self._console.exists() and b"Linux version" in self._console.read_bytes()

    def _wait_another(self, boot: str) -> None:
        subprocess.run(
            [*self._ssh, "-O", "exit", "root@127.0.0.1"], capture_output=True, check=False
        )
        command = "cat /proc/sys/kernel/random/boot_id"

        def other() -> bool:
            return self.run(command, check=False) not in ("", boot)

        stack.wait_until(other, "another boot", BOOTS_S)
        self._wait_up()

    def _wait_up(self) -> None:
        stack.wait_until(lambda: self.run("echo up", check=False), "SSH answers", BOOTS_S)
        state = self.run("systemctl is-system-running --wait", check=False)
        say(f"machine: {state}; {self.run('systemd-analyze').splitlines()[0]}")

    def _start(self, accelerator: str, processor: str) -> None:
        net = f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{self._port}-:22"
        options = {
            "accel": accelerator,
            "cpu": processor,
            "smp": "2",
            "m": "3072",
            "display": "none",
            "kernel": str(HOME / "vmlinuz"),
            "initrd": str(HOME / "initrd"),
            "append": "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=1",
            "drive": f"file={self._disk},format=raw,if=virtio",
            "nic": net,
            "serial": f"file:{self._console}",
            "qmp": f"unix:{self._monitor},server=on,wait=off",
        }
        command = ["qemu-system-x86_64", "-nodefaults", "-snapshot"]
        command += [word for name, value in options.items() for word in (f"-{name}", value)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)


@contextmanager
def booted(disk: Path, folder: Path) -> Iterator[Machine]:
    """Lend a machine that is up."""
    machine = Machine(disk, folder)
    try:
        machine.boot()
        yield machine
    finally:
        machine.end()
