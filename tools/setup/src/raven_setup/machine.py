"""This machine: its files, packages, services and database, changed as root."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

SETTINGS: Final = Path("/etc/raven")
RECORD: Final = SETTINGS / "made.json"
"""What was put into place here, so that it can be told from what the user changed, and removed."""
PIPX: Final = "sudo PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin \\\n    pipx"
"""How the programs are installed for the whole machine, and removed."""
ERROR_LINES: Final = 5


class SetupError(Exception):
    """Something that cannot be done: says what, and what can be done about it."""


class Record:
    """Which files were written, what they held then, and what else was made."""

    def __init__(self, say: Callable[[str], None], file: Path = RECORD) -> None:
        self._say = say
        self._file = file
        found = json.loads(file.read_text("utf-8")) if file.exists() else {}
        self._digests: dict[str, str] = found.get("files", {})
        self.packages: list[str] = found.get("packages", [])
        """Packages of Debian's that were installed."""
        self.has_database: bool = found.get("database", False)
        """Whether the database and its accounts are here."""

    @property
    def files(self) -> list[Path]:
        """Every file that was written and is still there."""
        return [Path(file) for file in self._digests if Path(file).exists()]

    def note_packages(self, packages: Iterable[str]) -> None:
        """Note that packages were installed."""
        # A record that came with a backup of another machine names them already.
        self.packages = [*dict.fromkeys([*self.packages, *packages])]
        self._save()

    def note_database(self) -> None:
        """Note that the database was made."""
        self.has_database = True
        self._save()

    def put(self, file: Path, text: str, mode: int = 0o644, group: str | None = None) -> bool:
        """Write a file, unless its owner changed it: then it stays.  Say if it was written."""
        held = file.read_text("utf-8") if file.exists() else None
        if held is not None and held != text and _digest(held) != self._digests.get(str(file)):
            self._say(f"  kept as it is: {file}, which was changed")
            return False
        return self.write(file, text, mode, group)

    def write(self, file: Path, text: str, mode: int, group: str | None = None) -> bool:
        """Write a file whole, or not at all; say if it held anything else before."""
        if file.exists() and file.read_text("utf-8") == text:
            return False
        _put(file, text, mode, group)
        self._digests[str(file)] = _digest(text)
        self._save()
        return True

    def remove(self, file: Path) -> None:
        """Take a file away."""
        file.unlink(missing_ok=True)
        self._digests.pop(str(file), None)
        self._save()

    def clear(self) -> None:
        """Take the record itself away, and its folder if nothing else is there."""
        self._file.unlink(missing_ok=True)
        if self._file.parent.is_dir() and not any(self._file.parent.iterdir()):
            self._file.parent.rmdir()

    def _save(self) -> None:
        made = {"packages": self.packages, "database": self.has_database}
        _put(self._file, json.dumps({"files": self._digests, **made}), 0o600)


def run(
    command: Sequence[str], text: str | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """Return what a command prints; raise SetupError with its last lines if it fails."""
    done = subprocess.run(
        command,
        input=text,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()[-ERROR_LINES:]
        raise SetupError("\n".join([f"`{' '.join(command)}` failed:", *lines]))
    return done.stdout


def works(command: Sequence[str]) -> bool:
    """Say whether a command ends well."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def install(packages: Sequence[str]) -> None:
    """Install packages of Debian's."""
    run(["apt-get", "update", "-qq"])
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    run(command, environ={"DEBIAN_FRONTEND": "noninteractive"})


def sql(statements: Iterable[str]) -> None:
    """Have MariaDB, or MySQL, carry out statements as its root, who is this machine's."""
    client = shutil.which("mariadb") or shutil.which("mysql") or "mariadb"
    try:
        run([client, "--batch"], "\n".join(statements))
    except SetupError as error:
        # What failed may repeat a statement, and so a password.
        said = [line for line in str(error).splitlines() if "IDENTIFIED" not in line]
        raise SetupError("\n".join([*said, "MYSQL_URL=… names a database of your own"])) from None


def has(*services: str) -> bool:
    """Say whether one of these services is installed: a program alone, as demos use, is none."""
    return any(works(["systemctl", "cat", f"{service}.service"]) for service in services)


def reload_units() -> None:
    """Have systemd read its units again."""
    run(["systemctl", "daemon-reload"])


def reload_rules() -> None:
    """Have udev apply its rules to what is plugged in; where no udev runs there is nothing to do."""
    if works(["udevadm", "control", "--reload"]):
        for subsystem in ("usb", "tty"):
            works(["udevadm", "trigger", f"--subsystem-match={subsystem}"])


def last_words(unit: str) -> str:
    """Return the last line that a service logged."""
    return run(["journalctl", "-u", unit, "-n", "1", "-o", "cat", "--no-pager"]).strip()


def _put(file: Path, text: str, mode: int, group: str | None = None) -> None:
    """Write a file whole, or not at all, and for good."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    new.touch(0o600)
    with new.open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    if group:
        shutil.chown(new, group=group)
    new.chmod(mode)
    new.replace(file)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
