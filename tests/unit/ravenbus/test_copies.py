"""A backup's files of rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from ravenbus import copies
from ravenbus.errors import FatalError


def test_every_table_has_a_file_in_the_folder(tmp_path: Path):
    """Whatever it is called."""
    names = ["", ".", "..", "../up", "/root", "100%", "a%2Fb", "a/b", "zähler"]
    for name in names:
        assert copies.write(tmp_path, name, ("a",), [(name,)]) == 1
    assert copies.names(tmp_path) == names
    for name in names:
        columns, pages = copies.read(tmp_path, name)
        assert (columns, list(pages)) == (("a",), [[(name,)]])
    assert {path.parent for path in tmp_path.parent.rglob("*.gz")} == {tmp_path}


def test_rows_come_by_pages_that_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Many small ones at once, few large ones."""
    monkeypatch.setattr(copies, "AT_ONCE", 3)
    monkeypatch.setattr(copies, "PAGE_MAX", 10)
    rows = [("a", None)] * 4 + [("b" * 8, "b" * 8), ("c", "c")]
    copies.write(tmp_path, "t", ("x", "y"), rows)
    _, pages = copies.read(tmp_path, "t")
    found = list(pages)
    assert [len(page) for page in found] == [3, 2, 1]
    assert [row for page in found for row in page] == rows


def test_a_row_that_could_not_be_read_again_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """At the backup, not at the restore."""
    monkeypatch.setattr(copies, "ROW_MAX", 10)
    with pytest.raises(FatalError, match="a row of t has more than 10 characters"):
        copies.write(tmp_path, "t", ("x",), [("a" * 10,), ("a" * 11,)])
