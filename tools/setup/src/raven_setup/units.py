"""The services as units of systemd (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from raven_setup.files import FILES

HIDDEN: Final = ("/root", "/home", "/tmp", "/var/tmp", "/run/user")  # noqa: S108 - not used
"""What a hardened service does not see."""
AWAY_FROM_DEVICES: Final = """\
PrivateDevices=yes
PrivateUsers=yes
ProtectClock=yes
"""
AT_THE_STICK: Final = """\
# ttyUSB and ttyACM by their numbers: their names are known to the kernel once a stick was there.
DevicePolicy=closed
DeviceAllow=char-188 rw
DeviceAllow=char-166 rw
SupplementaryGroups=dialout
# The reader asks the kernel whether somebody has set the clock.
SystemCallFilter=adjtimex clock_adjtime
"""


@dataclass(frozen=True)
class Service:
    """A program that runs all the time."""

    name: str
    """As in ``sql-writer``, whose command is ``raven-sql-writer``."""
    description: str
    arguments: str = ""
    more: str = AWAY_FROM_DEVICES
    instance: str = ""
    """How the unit's name goes on if it is for several of a kind."""

    @property
    def unit(self) -> str:
        """The name of its unit."""
        return f"raven-{self.name}{'@' if self.instance else ''}.service"

    def text(self, commands: Path) -> str:
        """Return the unit of the command that lies in a folder."""
        return _unit(
            "service.unit",
            name=f"raven-{self.name}{'@…' if self.instance else ''}",
            description=self.description,
            command=f"{commands}/raven-{self.name}{self.arguments}",
            settings=self.name + self.instance,
            state=f"raven-{self.name}{self.instance}",
            more=self.more,
        )


READER: Final = Service("reader", "the stick's readings to the broker", " run", AT_THE_STICK)
FURTHER_READER: Final = Service(
    "reader",
    "the readings of stick %i to the broker",
    " run",
    f"Environment=RAVEN_STATE=%S/raven-reader-%i\n{AT_THE_STICK}",
    "-%i",
)
SQL_WRITER: Final = Service(
    "sql-writer",
    "the broker's readings to MariaDB",
    more=f"Environment=RAVEN_SQL_ARCHIVE=%S/raven-sql-writer\n{AWAY_FROM_DEVICES}",
)
MONGO_RECORDER: Final = Service(
    "mongo-recorder",
    "the broker's readings to MongoDB",
    more=f"Environment=RAVEN_MONGO_ARCHIVE=%S/raven-mongo-recorder\n{AWAY_FROM_DEVICES}",
)
SQL_RELAY: Final = Service("sql-relay", "MariaDB's rows to an upstream broker")
DASHBOARD: Final = Service("dashboard", "readings in a browser")
SERVICES: Final = (READER, SQL_WRITER, MONGO_RECORDER, SQL_RELAY, DASHBOARD)

BACKUP: Final = "backup"
BACKUP_UNIT: Final = f"raven-{BACKUP}.service"
BACKUP_TIMER: Final = f"raven-{BACKUP}.timer"


def backup_unit(commands: Path, folder: str) -> str:
    """Return the unit of the backup to a folder, by the command that lies in another."""
    return _unit("backup.unit", command=f"{commands}/raven-{BACKUP}", folder=folder)


def _unit(file: str, **values: str) -> str:
    hardening = (FILES / "hardening.unit").read_text("utf-8")
    template = Template((FILES / file).read_text("utf-8"))
    return template.substitute(values, hardening=hardening.rstrip())
