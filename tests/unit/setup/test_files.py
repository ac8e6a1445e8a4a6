"""Files of settings and of the broker's accounts: what is ours is put in, the rest stays."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raven_backup.main import _backup_parser
from raven_backup.settings import BackupSettings
from raven_setup import broker, machine, removing, setting_up
from raven_setup.files import FILES
from raven_setup.machine import Record
from raven_setup.plan import Answers, plan
from raven_setup.settings import merged, parse
from raven_setup.units import FURTHER_READER, READER, SERVICES, backup_unit
from ravenbus.settings import settings_of


def test_settings_are_read_as_systemd_and_a_shell_read_them():
    """Quotes, comments, blanks; systemd takes blanks without quotes too."""
    text = "# A=0\nB=1\n\nC='two words'\nD=\"mysql://a:b@c/d?e=f\"\n ; E=5\nF= so  # it is \n"
    text += "G='it'\"'\"'s 100% $1'\n"
    found = {"B": "1", "C": "two words", "D": "mysql://a:b@c/d?e=f", "F": "so  # it is"}
    assert parse(text) == found | {"G": "it's 100% $1"}


def test_only_what_differs_is_written():
    """In its place; comments and other variables stay, and what has to go goes."""
    text = "# mine\nA='1'\nB=2\nC=3\nD=4\n"
    wanted = {"A": "1", "B": "2 and more", "C": None, "E": "5"}
    assert merged(text, wanted) == "# mine\nA='1'\nB='2 and more'\nD=4\nE=5\n"
    assert merged(merged(text, wanted), wanted) == merged(text, wanted)


def test_accounts_of_the_broker_come_beside_others():
    """A line whose password is right stays to the letter: its salt is not made anew."""
    first = broker.passwords("", {"house": "one", "dashboard": "two"})
    mine = f"{first}watcher:$7$101$c2FsdA==$ZGlnZXN0\n"
    assert broker.passwords(mine, {"house": "one", "dashboard": "two"}) == mine
    changed = broker.passwords(mine, {"house": "three"}).splitlines()
    assert changed[1:] == mine.splitlines()[1:]
    assert changed[0] != mine.splitlines()[0]


def test_a_broker_that_lets_others_in_is_seen():
    """By each setting that says who is let in; comments say nothing."""
    texts = {"a.conf": "# acl_file x\nlistener 1883\n", "b.conf": "allow_anonymous true\n"}
    assert list(broker.rivals(texts)) == ["allow_anonymous in b.conf"]


def test_a_file_of_the_broker_s_in_another_character_set_is_read(tmp_path: Path, monkeypatch):
    """Its comments may be as old as the machine."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "mosquitto.conf").write_bytes(
        "# für alle\nallow_anonymous true\n".encode("latin-1")
    )
    monkeypatch.setattr(setting_up, "MOSQUITTO", tmp_path)
    made = plan(Answers("auto", "mysql"), {}, "UTC")
    assert list(setting_up.obstacles(made)) == [f"allow_anonymous in {tmp_path}/mosquitto.conf"]


def test_a_setup_that_failed_goes_on_with_the_same_names_and_passwords(tmp_path: Path, monkeypatch):
    """What it had made by then, an account or a database, is not left behind."""

    def fails(*_: object) -> None:
        raise machine.SetupError("no package")

    monkeypatch.setattr(setting_up, "SETTINGS", tmp_path / "etc")
    monkeypatch.setattr(setting_up, "missing_packages", lambda _: ["mosquitto"])
    monkeypatch.setattr(machine, "install", fails)
    made = plan(Answers("auto", "mysql"), {}, "UTC")
    with pytest.raises(machine.SetupError, match="no package"):
        setting_up.set_up(made, tmp_path, Record(print, tmp_path / "record"), print)
    again = plan(Answers("auto", "mysql"), setting_up.found_settings(), "UTC")
    assert (again.node, again.broker, again.database) == (made.node, made.broker, made.database)


def test_a_program_without_its_service_is_installed_whole(monkeypatch):
    """A demo brings MariaDB's program alone, which nobody starts."""
    monkeypatch.setattr(machine, "works", lambda command: command[-1] == "mosquitto.service")
    made = plan(Answers("auto", "mysql"), {}, "UTC")
    assert setting_up.missing_packages(made) == ["mariadb-server"]


def test_data_is_that_of_our_services_and_not_what_is_called_like_it(tmp_path: Path, monkeypatch):
    """A copy that somebody made is theirs; further readers are ours."""
    for name in ("raven-reader", "raven-reader-attic", "raven-sql-writer", "raven-sql-writer-old"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(removing, "STATE", tmp_path)
    found = [folder.name for folder in removing._states()]
    assert found == ["raven-reader", "raven-reader-attic", "raven-sql-writer"]


def test_the_record_is_whole_whatever_interrupts_it(tmp_path: Path, monkeypatch):
    """With half of one neither command could run again."""
    record = Record(print, tmp_path / "made.json")
    record.note_database()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        record.note_packages(["mosquitto"])
    again = Record(print, tmp_path / "made.json")
    assert (again.has_database, again.packages) == (True, [])


def test_a_file_that_its_owner_changed_stays(tmp_path: Path):
    """One of ours gets what a newer version has; one that was there before is not ours."""
    said: list[str] = []
    record = Record(said.append, tmp_path / "made.json")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    theirs.write_text("mine")
    assert record.put(ours, "1")
    assert record.put(ours, "2")
    assert not record.put(ours, "2")
    ours.write_text("2, and mine")
    again = Record(said.append, tmp_path / "made.json")
    assert not again.put(ours, "3")
    assert not again.put(theirs, "3")
    assert (ours.read_text(), theirs.read_text()) == ("2, and mine", "mine")
    assert said == [f"  kept as it is: {path}, which was changed" for path in (ours, theirs)]
    assert again.files == [ours]


def test_a_unit_runs_its_command_with_its_settings():
    """Each of its own; the one for further readers by their names."""
    units = {service.unit: service.text(Path("/opt/bin")) for service in SERVICES}
    for service in SERVICES:
        text = units[service.unit]
        assert f"ExecStart=/opt/bin/raven-{service.name}" in text
        assert f"EnvironmentFile=/etc/raven/{service.name}.env\n" in text
        assert "$" not in text
    assert "EnvironmentFile=/etc/raven/reader-%i.env\n" in FURTHER_READER.text(Path("/opt/bin"))
    assert FURTHER_READER.unit == "raven-reader@.service"


def test_the_unit_of_the_backup_calls_the_command_as_it_is():
    """Its words are taken, its folder is the one that it may write to, its settings are settings."""
    unit = backup_unit(Path("/opt/bin"), "/srv/b")
    (words,) = re.findall(r"^ExecStart=/opt/bin/raven-backup (.*)$", unit, re.MULTILINE)
    assert words == "--keep 7 ${BACKUP_FOLDER}"
    assert _backup_parser().parse_args(words.split()).keep == 7
    assert "ReadWritePaths=/srv/b\n" in unit
    answers = Answers("auto", "mysql", backup="/srv/b")
    names = plan(answers, {}, "UTC").settings["backup"].keys()
    assert names - {setting.name for setting in settings_of(BackupSettings)} == {"BACKUP_FOLDER"}


def test_the_rule_starts_the_unit_of_the_reader():
    """For each stick that the other rules know."""
    rules = [(FILES / name).read_text() for name in ("99-raven.rules", "99-raven-reader.rules")]
    for vendor in ("0403", "04b4"):
        assert all(f'ATTRS{{idVendor}}=="{vendor}"' in text for text in rules)
    assert rules[1].count(READER.unit) == 2
