"""What the containers keep is backed up, lost with its volumes, and put back on another machine."""

from __future__ import annotations

from collections.abc import Callable

from tests.compose.project import Project, Stick, wait_until
from tests.compose.test_upgrade import BOTH, SERVICES, credentials

RUN = ("run", "--rm", "-T")


def test_a_home_moves_to_an_empty_machine(
    project: Callable[..., Project], stick: Callable[..., Stick]
):
    """Readings, node and passwords are there again, the broker's certificate is still trusted."""
    meter = stick()
    old = project(RAVEN_DEVICE=meter.path)
    backups = old.folder / "backups"
    old.up(*BOTH)
    old.wait_complete(old.in_mysql, "MySQL", more_than=50)
    old.wait_complete(old.in_mongo, "MongoDB", more_than=50)
    made = credentials(old)
    before = old.in_mysql(), old.in_mongo()
    done = old.compose(*BOTH, *RUN, "backup", shown=True)
    print(done.stdout)
    assert "backed up to /backups/" in done.stdout
    old.down()

    new = project(RAVEN_DEVICE=meter.path, BACKUP_FOLDER=str(backups))
    restore = ("raven-restore", "backup", "--credentials", "/backups")
    new.compose(*RUN, "--no-deps", "--entrypoint", *restore, shown=True)
    done = new.compose(*BOTH, *RUN, "backup", "raven-restore", "/backups", shown=True)
    print(done.stdout)
    assert made.items() <= credentials(new).items()
    new.up(*BOTH)
    new.wait_healthy(*(one for one in SERVICES if one != "sql-relay"))
    wait_until(lambda: sum(new.accepted().values()) > 50, "the reader goes on")
    (run,) = new.accepted()
    meter.unplug()
    for stored, was in zip((new.in_mysql, new.in_mongo), before, strict=True):
        new.wait_complete(stored, "a restored store", more_than=50)
        (old_run,) = was
        now = stored()
        assert now.keys() == {old_run, run}
        assert set(was[old_run]) <= set(now[old_run])
    done = new.compose(*BOTH, *RUN, "backup", "raven-restore", "/backups", check=False)
    assert (done.returncode, done.stderr.count("--replace removes everything")) == (1, 2), done
