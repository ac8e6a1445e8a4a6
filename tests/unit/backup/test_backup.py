"""What a backup is and when one is believed; a store in memory."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raven_backup import backups, main, manifest
from raven_backup.manifest import FILE
from raven_backup.settings import BackupSettings
from ravenbus.copies import Copied, Counts
from ravenbus.errors import FatalError, RetryableError

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


class MemoryStore:
    """A store whose only table is a text."""

    name = "MySQL"

    def __init__(self) -> None:
        self.text = "one"
        self.faults: list[str] = []
        self.error: BaseException | None = None

    def save(self, folder: Path) -> Copied:
        (folder / "table").write_text(self.text)
        if self.error:
            raise self.error
        return Copied({"table": 1}, self.faults)

    def obstacle(self) -> str | None:
        return "it has rows" if self.text else None

    def load(self, folder: Path) -> Counts:
        self.text = (folder / "table").read_text()
        return {"table": 1}

    def close(self) -> None:
        pass


class Home:
    """A folder of backups, a store and a folder of credentials, one second at each command."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backups = folder / "backups"
        self.store = MemoryStore()
        self.made = folder / "made"
        self.made.mkdir()
        (self.made / "node").write_text("house")
        self.at = T0
        monkeypatch.setattr(BackupSettings, "stores", lambda _: iter([self.store]))
        monkeypatch.setattr(main, "now", lambda: self.at)
        monkeypatch.setenv("RAVEN_CREDENTIALS", str(self.made))
        self._set_arguments = lambda *words: monkeypatch.setattr("sys.argv", ["x", *words])

    def _run(self, command: Callable[[], int], *options: str) -> int:
        self._set_arguments(*options, str(self.backups))
        mask = os.umask(0o022)
        try:
            return command()
        finally:
            os.umask(mask)

    def backup(self, *options: str) -> int:
        self.at += timedelta(seconds=1)
        return self._run(main.main, *options)

    def restore(self, *options: str) -> int:
        return self._run(main.restore, *options)

    @property
    def whole(self) -> list[str]:
        return [one.name for one in backups.newest_last(self.backups)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path, monkeypatch)


def change_manifest(folder: Path, **fields: Any) -> None:
    file = folder / FILE
    file.write_bytes(msgspec.json.encode(msgspec.json.decode(file.read_bytes()) | fields))


# Making one


def test_a_backup_is_its_owner_s_alone(home: Home):
    """Every folder 0700, every file 0600, whatever the umask was."""
    assert home.backup() == 0
    for path in (home.backups, *home.backups.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        if "credentials" not in path.parts:  # of which others may read what they might
            assert stat.S_IMODE(path.stat().st_mode) == expected, path


@pytest.mark.parametrize(
    "error", [RetryableError("away"), FatalError("broken"), OSError(28, "full")]
)
def test_what_breaks_off_is_no_backup(home: Home, error: Exception):
    """It is gone at once; the ones before stay, whatever --keep says."""
    assert home.backup() == 0
    home.store.error = error
    assert home.backup("--keep", "1") != 0
    assert home.whole == ["2026-03-01T12-00-01Z"]
    assert [one.name for one in home.backups.iterdir() if one.name != ".lock"] == home.whole


def test_a_full_disk_is_told_with_its_folder(home: Home, capsys):
    """Of which the system says nothing."""
    home.store.error = OSError(28, "No space left on device")
    assert home.backup() == 1
    assert capsys.readouterr().err == f"raven-backup: {home.backups}: No space left on device\n"


def test_what_a_killed_one_left_is_never_restored_and_goes_with_the_next(home: Home):
    """It has the name of a part, whether its manifest is written or not."""
    assert home.backup() == 0
    left = home.backups / "2026-03-01T12-00-09Z.part"
    left.mkdir()
    (left / FILE).write_bytes((home.backups / home.whole[0] / FILE).read_bytes())
    assert home.whole == ["2026-03-01T12-00-01Z"]
    assert home.backup() == 0
    assert not left.exists()


def test_the_last_ones_are_kept(home: Home):
    """--keep counts whole backups, this one included."""
    for _ in range(4):
        assert home.backup() == 0
    assert home.backup("--keep", "2") == 0
    assert home.whole == ["2026-03-01T12-00-04Z", "2026-03-01T12-00-05Z"]


def test_a_file_of_the_archive_that_is_damaged_keeps_the_older_backups(home: Home, capsys):
    """One of them may have it: nothing is removed, and the status is 1."""
    assert home.backup() == 0
    home.store.faults = ["price_cluster-2026-03.csv.gz: its checksum is another one"]
    assert home.backup("--keep", "1") == 1
    assert len(home.whole) == 2
    assert "not kept: price_cluster-2026-03" in capsys.readouterr().err


def test_there_is_one_at_a_time(home: Home, capsys):
    """A second one says so and leaves the first alone."""
    with backups.alone(home.backups):
        assert home.backup() == 69
    assert "another backup" in capsys.readouterr().err


def test_what_others_have_in_the_folder_stays(home: Home):
    """Neither what an interrupted download left, nor what looks a little like a backup."""
    others = [home.backups / "film.part" / "1", home.backups / "1-Z" / FILE]
    for file in others:
        file.parent.mkdir(parents=True)
        file.touch()
    (home.backups / "book.part").touch()
    for _ in range(2):
        assert home.backup("--keep", "1") == 0
    assert home.whole == ["2026-03-01T12-00-02Z"]
    assert all(file.exists() for file in (*others, home.backups / "book.part"))


def test_a_link_that_others_put_there_is_not_followed(home: Home, tmp_path: Path):
    """What it names keeps what it holds."""
    (tmp_path / "precious").write_text("precious")
    home.backups.mkdir()
    (home.backups / ".lock").symlink_to(tmp_path / "precious")
    assert home.backup() == 1
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("back_by_s", [1, 3600])
def test_a_clock_that_went_back_loses_no_backup(home: Home, capsys, back_by_s: int):
    """The new one would be the first to be removed and the last to be restored: it is refused."""
    assert home.backup() == 0
    home.at -= timedelta(seconds=back_by_s)
    assert home.backup("--keep", "1") == 1
    assert home.whole == ["2026-03-01T12-00-01Z"]
    assert "set this machine's clock, or move that away" in capsys.readouterr().err


def test_a_backup_is_no_folder_of_backups(home: Home, capsys):
    """Another one in it would be damage."""
    assert home.backup() == 0
    folder, home.backups = home.backups, home.backups / home.whole[0]
    assert home.backup() == 1
    assert "is a backup itself" in capsys.readouterr().err
    home.backups = folder
    assert home.restore("--replace") == 0


def test_a_folder_of_credentials_that_is_not_there_is_told(home: Home, capsys):
    """A misspelt one would be missed on the day of the restore."""
    (home.made / "node").unlink()
    home.made.rmdir()
    assert home.backup() == 1
    assert "is no folder (see RAVEN_CREDENTIALS)" in capsys.readouterr().err
    assert home.whole == []


# Putting one back


def test_the_newest_is_put_back_or_the_one_that_is_named(home: Home):
    """A folder of backups stands for its newest."""
    assert home.backup() == 0
    home.store.text = "two"
    assert home.backup() == 0
    home.store.text = ""
    assert home.restore() == 0
    assert home.store.text == "two"
    home.backups /= "2026-03-01T12-00-01Z"
    assert home.restore("--replace") == 0
    assert home.store.text == "one"


def test_nothing_is_written_over_unless_told(home: Home, capsys):
    """A store with readings stays as it is without --replace."""
    assert home.backup() == 0
    home.store.text = "other"
    assert home.restore() == 1
    assert home.store.text == "other"
    assert "it has rows: --replace removes everything there first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda one: (one / "mysql" / "table").write_text("0ne"), "mysql/table is damaged"),
        (lambda one: (one / "mysql" / "table").unlink(), "mysql/table is missing"),
        (lambda one: (one / "mysql" / "more").touch(), "mysql/more does not belong to it"),
        (lambda one: (one / FILE).write_text("{"), "is no backup"),
        (lambda one: (one / FILE).unlink(), "has no backup that is whole"),
        (
            lambda one: change_manifest(one, version="10.0.0"),
            "it was made by 10.0.0 and this is 1.1.0: restore it with 10.0.0 or a newer one",
        ),
    ],
)
def test_a_backup_that_cannot_be_trusted_changes_nothing(home: Home, capsys, damage, said: str):
    """Every file is checked before the store is touched."""
    assert home.backup() == 0
    damage(home.backups / home.whole[0])
    home.store.text = ""
    assert home.restore("--replace") == 1
    assert home.store.text == ""
    assert said in capsys.readouterr().err


def test_credentials_come_back_alone_and_replace_none_unless_told(home: Home, capsys):
    """They are put back before the databases are made, which are left alone."""
    assert home.backup() == 0
    (home.made / "node").unlink()
    home.store.text = ""
    assert home.restore("--credentials") == 0
    assert (home.made / "node").read_text() == "house"
    assert home.restore("--credentials") == 0, "the same again changes nothing"
    (home.made / "node").write_text("other")
    assert home.restore("--credentials") == 1
    assert "has others in node" in capsys.readouterr().err
    assert (home.made / "node").read_text() == "other"
    assert home.restore("--credentials", "--replace") == 0
    assert (home.made / "node").read_text() == "house"
    assert home.store.text == ""


def test_a_folder_of_credentials_that_is_made_is_as_open_as_it_was(home: Home):
    """Services that are no users of the machine read the certificates in it."""
    home.made.chmod(0o755)
    (home.made / "node").chmod(0o644)
    assert home.backup() == 0
    shutil.rmtree(home.made)
    assert home.restore("--credentials") == 0
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (home.made, home.made / "node")]
    assert modes == [0o755, 0o644]


def test_settings_that_name_nothing_are_refused(monkeypatch: pytest.MonkeyPatch, capsys):
    """Status 78 and what is allowed."""
    monkeypatch.setattr("sys.argv", ["raven-backup", "somewhere"])
    assert main.main() == 78
    assert "allowed is one or more of them" in capsys.readouterr().err


def test_releases_are_compared_as_numbers(tmp_path: Path):
    """1.9.0 comes before 1.10.0."""
    made = manifest.Manifest("1.9.0", T0, T0, {}, {})
    assert manifest._release("1.9.0") < manifest._release("1.10.0")
    assert list(manifest.faults(tmp_path, msgspec.structs.replace(made, version="0.9.0"))) == []
