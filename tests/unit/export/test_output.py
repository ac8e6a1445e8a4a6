"""Where an export goes, and what is seen while it goes; no store."""

from __future__ import annotations

import gc
import io
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raven_export import files, main
from raven_export.columns import Column, Type
from raven_export.formats import FORMATS
from raven_export.output import whole
from raven_export.progress import LOOK_AT_CLOCK, Progress

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_a_file_is_whole_or_not_there(tmp_path: Path, error: type[BaseException]):
    """What has the name already stays until then."""
    path = tmp_path / "file"
    for before in (None, b"before"):
        if before:
            path.write_bytes(before)
        with pytest.raises(error), whole(path) as file:  # noqa: PT012 - it ends in the block
            file.write(b"half")
            raise error
        assert [one.read_bytes() for one in tmp_path.iterdir()] == ([before] if before else [])
    with whole(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"after"]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_export_that_breaks_off_is_silent_and_gone(format_, error, tmp_path: Path, monkeypatch):
    """Whatever the format has in memory."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    columns = [Column("time_utc", Type.TIME)]
    with pytest.raises(type(error)), files.opened(str(tmp_path / "x")) as file:  # noqa: PT012
        writer = files.writer(format_, file, columns)
        writer.write([START])
        raise error
    del writer
    gc.collect()
    assert unraisable == []
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_a_link(tmp_path: Path):
    """What it names is written."""
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    with files.opened(str(link)) as file:
        file.write(b"whole")
    assert link.is_symlink()
    assert target.read_bytes() == b"whole"


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_for_a_terminal_alone(terminal: bool):
    """A bar that fills with the time, and is gone at the end."""
    screen = Screen(terminal)
    progress = Progress(screen, START, START + timedelta(days=2), iter(range(99)).__next__)
    progress.at(START + timedelta(days=1), 12 * LOOK_AT_CLOCK)
    shown = screen.getvalue()
    progress.close()
    if terminal:
        assert "[###############               ]  50%  2026-03-02 00:00  1,200 readings" in shown
        assert screen.getvalue().endswith("\r\x1b[K")
    else:
        assert screen.getvalue() == ""


def test_without_pyarrow_it_says_how_to_get_it(tmp_path: Path, monkeypatch, capsys):
    """And leaves nothing behind."""
    monkeypatch.delattr("raven_export.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "raven_export.parquet", None)
    monkeypatch.setenv("MONGO_URL", "mongodb://127.0.0.1:9/raven")
    target = str(tmp_path / "x.parquet")
    monkeypatch.setattr(sys, "argv", ["x", "--from", "2026-03", "--to", "2026-03", target])
    assert main.main() == 2
    assert "the extra parquet brings it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say --from, --to and FILE"),
        (["--from", "2026-03", "--to", "2026-02", "-"], "--to 2026-02 is not after --from 2026-03"),
        (["--from", "soon", "--to", "2026-02", "-"], "'soon' is no time"),
        (["--from", "2026-03", "--to", "2026-03", "--store", "mysql", "-"], "say --store MongoDB"),
        (["--from", "2026-03", "--to", "2026-03", "/nowhere/x.csv"], "cannot be written"),
        (["--from", "2026-03", "--to", "2026-03", "/dev/null"], "cannot be written"),
        (
            ["--from", "2026-03", "--to", "2026-03", "--step", "day", "--kind", "warning", "-"],
            "--step day is of demand and energy: leave --kind out",
        ),
    ],
)
def test_what_cannot_be_done_is_said(arguments, said, monkeypatch, capsys):
    """With status 2."""
    monkeypatch.setenv("MONGO_URL", "mongodb://127.0.0.1:9/raven")
    monkeypatch.setattr(sys, "argv", ["raven-export", *arguments])
    assert main.main() == 2
    assert said in capsys.readouterr().err


def test_settings_that_cannot_be_used_end_with_status_78(monkeypatch, capsys):
    """A sentence for each, whatever else was said."""
    for name in ("MONGO_URL", "MYSQL_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAVEN_TIME_ZONE", "Mars")
    for command in (main.main, main.import_):
        monkeypatch.setattr(sys, "argv", ["x", "--check-config"])
        assert command() == 78
        said = capsys.readouterr().err
        assert "RAVEN_TIME_ZONE: 'Mars' cannot be used: allowed is the name of a time zone" in said
    assert files.format_of("a.PARQUET", None) == "csv"
    assert files.format_of("a.jsonl", None) == "jsonl"
