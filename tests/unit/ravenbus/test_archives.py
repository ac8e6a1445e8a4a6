"""The files of the archive; no database."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ravenbus import archives

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["", "\\N", "\\\\N", "N", "NULL", '"', '""', ",", "\r", "\n", "\r\n", "\0", "\x85\u2028", "\\n"]
)
ROWS = st.lists(st.tuples(TEXT | st.none(), TEXT | st.none(), st.none() | TEXT))


@given(ROWS)
@example([("1", "2026-03-01 12:00:00.123", "0.147640000000000000"), (None, "", "\\N")])
def test_what_is_read_is_what_was_written(rows):
    """Every character that a text can have; NULL is no empty text and no text is NULL."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        archives.write(path, rows)
        assert list(archives.read(path)) == rows
        assert archives.compare(path, rows) == len(rows) - 1


@given(ROWS)
def test_a_row_is_a_line_of_plain_csv(rows):
    """Whoever reads it with another program counts its lines, and finds each column."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        archives.write(path, rows)
        text = gzip.decompress(path.read_bytes()).decode()
    assert text.count("\n") == len(rows)
    assert [len(fields) for fields in csv.reader(io.StringIO(text, newline=""))] == [3] * len(rows)


def test_the_same_rows_make_the_same_file(tmp_path: Path):
    """No name and no time is in it, so that a checksum says whether two archives are equal."""
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        archives.write(path, iter([("id",), ("1",)]))
    assert one.read_bytes() == other.read_bytes()


def test_a_field_may_be_as_long_as_a_body(tmp_path: Path):
    """1 MiB, each character of which is escaped."""
    rows = [("body",), ("\n" * 2**20,)]
    archives.write(tmp_path / "file", rows)
    assert list(archives.read(tmp_path / "file")) == rows


@pytest.mark.parametrize("others", [[("a",)], [("a",), ("b",), ("c",)], [("a",), (None,)], []])
def test_a_file_with_other_rows_is_noticed(tmp_path: Path, others):
    """One less, one more, or one that differs."""
    archives.write(tmp_path / "file", [("a",), ("b",)])
    with pytest.raises(ValueError, match="not what is stored"):
        archives.compare(tmp_path / "file", others)


def test_a_file_that_was_cut_cannot_be_compared(tmp_path: Path):
    """An end that is missing is no end."""
    path = tmp_path / "file"
    archives.write(path, [("a",), ("b",)])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(archives.UNREADABLE):
        archives.compare(path, [("a",), ("b",)])


@given(ROWS.filter(bool), st.data())
def test_a_file_with_another_bit_is_never_taken_for_other_rows(rows, data):
    """Wherever the bit is, reading ends in one of the errors that are expected."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        archives.write(path, rows)
        content = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with suppress(*archives.UNREADABLE):  # a bit of the header may mean nothing
            assert archives.compare(path, rows) == len(rows) - 1


def test_a_published_file_has_its_checksum_beside_it(tmp_path: Path):
    """The same file may be published again; another one does not replace it."""
    path = tmp_path / "month.csv.gz"
    for text in ("a", "a", "b"):
        archives.write(tmp_path / "part", [(text,), ("1",)])
        digest = archives.publish(tmp_path / "part", path)
        assert (tmp_path / "month.csv.gz.sha256").read_text() == f"{digest}  month.csv.gz\n"
        assert archives.fault(path, digest, 1) is None
    assert archives.fault(path, digest, 2) == "it has 1 rows and not 2"
    (other,) = (one for one in tmp_path.glob("month.csv.gz.*") if one.suffix != ".sha256")
    assert list(archives.read(other)) == [("a",), ("1",)]
