"""Captures: what is written is what is read back, and a damaged file says where."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven_reader.main import main
from raven_reader.recording import line, pieces
from ravenbus.service import EXIT_SETTINGS

from .examples import demand
from .strategies import steady

NOON = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)


@steady
@given(st.lists(st.binary(max_size=80), min_size=1))
def test_a_capture_keeps_every_byte(data):
    """Any bytes come back from a capture in the pieces in which they came."""
    file = io.BytesIO(b"".join(line(NOON, piece) for piece in data))
    assert list(pieces(file)) == data


@steady
@given(st.binary(max_size=200).filter(lambda data: not data.startswith(b'{"at":')))
def test_raw_bytes_are_read_as_they_are(data):
    """A file that is no capture is taken for a line's own bytes, however short."""
    assert b"".join(pieces(io.BytesIO(data))) == data


def test_a_capture_can_be_read_by_eye():
    """A line of a capture is a time and a text."""
    assert line(NOON, b"<a>\xff\r\n") == (
        b'{"at":"2026-03-01T12:00:00.123000Z","data":"<a>' + "ÿ".encode() + b'\\r\\n"}\n'
    )


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b'{"at":"2026-03-01T12:00:00Z","data":"<De',
        b'{"at":"2026-03-01T12:00:00Z"}',
        b'{"at":"2026-03-01T12:00:00Z","data":"\xe2\x82\xac"}',
        b'{"at":"2026-03-01T12:00:00Z","data":"\xff"}',
    ],
)
def test_a_damaged_capture_is_refused_with_its_line(damaged):
    """What was read before the damage is kept, and the error names the line."""
    reading = pieces(io.BytesIO(line(NOON, demand()) + damaged + b"\n" + line(NOON, b"x")))
    assert next(reading) == demand()
    with pytest.raises(ValueError, match="line 2: "):
        next(reading)


@pytest.mark.parametrize(
    ("name", "says"), [("none", "none cannot be read: No such file"), ("cut", "end: line 2: ")]
)
def test_decode_says_why_a_file_is_not_read_to_its_end(tmp_path, monkeypatch, capsys, name, says):
    """It prints what it has read, names the file and the reason, and its exit status is 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cut").write_bytes(line(NOON, demand()) + b"{")
    monkeypatch.setattr(sys, "argv", ["raven-reader", "decode", name])
    assert main() == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == (name == "cut")
    assert says in err


def test_decode_says_that_a_file_has_nothing_of_a_stick(tmp_path, monkeypatch, capsys):
    """A script that looks at the status alone is told, too."""
    (tmp_path / "letter").write_text("Dear neighbour")
    monkeypatch.setattr(sys, "argv", ["raven-reader", "decode", str(tmp_path / "letter")])
    assert main() == 1
    assert "nothing in it is what a RAVEn or an EMU-2 says" in capsys.readouterr().err


def test_a_check_of_the_settings_may_stand_after_the_command(monkeypatch, capsys):
    """Whoever writes a unit puts it at the end of the line that is there."""
    monkeypatch.setattr(sys, "argv", ["raven-reader", "run", "--check-config"])
    monkeypatch.setenv("RAVEN_SILENCE_ASK_S", "x")
    assert main() == EXIT_SETTINGS
    assert "RAVEN_SILENCE_ASK_S" in capsys.readouterr().err
