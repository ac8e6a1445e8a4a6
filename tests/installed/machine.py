"""A Debian that boots systemd in a container, with a network of its own and no other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.system import wait_until

BOOT_S = 120.0
REBOOT = 133
"""Exit status of systemd-nspawn when the machine wants to be booted again."""


class Machine:
    """A copy of an empty system, booted when asked."""

    def __init__(self, base: Path, root: Path) -> None:
        self.root = root
        self.log = root.with_suffix(".log")
        subprocess.run(["cp", "-a", base, root], check=True)
        self._nspawn: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Start it and wait until systemd has started all that it is to start."""
        command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network"]
        # The reader asks the kernel for its clock, which a container otherwise may not.
        command += ["--system-call-filter=@clock", "--resolv-conf=off", "--console=pipe", "--boot"]
        command += [f"--directory={self.root}", f"--machine={self.root.name}"]
        # systemd 256 and newer want the unified hierarchy of control groups, which a host may lack.
        environ = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with self.log.open("ab") as log:
            self._nspawn = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self._is_up, BOOT_S)

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, self.log.read_text("utf-8", "replace")[-2000:]
        state = self.run("systemctl", "is-system-running", check=False)
        return state.stdout.strip() in {"running", "degraded"}

    @property
    def leader(self) -> int:
        """The machine's process 1, as the host counts."""
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        return int((children.read_text().split() or ["0"])[0])

    def run(
        self, *command: str, text: str | None = None, check: bool = True, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, as its root, with nothing of the host's environment."""
        enter = ["nsenter", "--target", str(self.leader), "--all", "env", "-i"]
        enter += ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        enter += ["HOME=/root", "LANG=C.UTF-8", *(f"{k}={v}" for k, v in environ.items())]
        done = subprocess.run(
            [*enter, *command], input=text, capture_output=True, text=True, check=False, timeout=900
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def reboot(self) -> None:
        """Have it boot again, as `reboot` does."""
        assert self._nspawn is not None
        self.run("systemctl", "reboot", check=False)
        assert self._nspawn.wait(BOOT_S) == REBOOT
        self.boot()

    def stop(self) -> None:
        """Switch it off."""
        if self._nspawn and self._nspawn.poll() is None:
            os.kill(self.leader, signal.SIGRTMIN + 4)
            try:
                self._nspawn.wait(60)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()


@contextmanager
def machine(base: Path, root: Path) -> Iterator[Machine]:
    """Lend a machine, which is gone afterwards."""
    made = Machine(base, root)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(root)
        made.log.unlink()
