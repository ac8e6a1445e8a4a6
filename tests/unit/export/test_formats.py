"""A reading as a row, in each format and back; no store."""

from __future__ import annotations

import io
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven_export import files, formats
from raven_export.columns import Table, reading_of
from raven_export.formats import FORMATS
from raven_export.notes import Notes, lacking
from ravenbus.errors import ContractError
from ravenbus.messages import Envelope, Reading
from ravenbus.notifications import KINDS, MessageCluster
from tests.kinds import every_kind

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
HASH = "5f0c4b1e-8a4d-4c1b-9d3e-2b7a60c3f1d9"
NOTES = Notes(
    step="raw",
    empty=0,
    start=AT,
    end=AT,
    kinds=[],
    nodes=None,
    columns={},
    rows=0,
    complete=True,
    runs=[],
)


def readings(*notifications: Any) -> list[Reading]:
    envelope = Envelope(node="home", run="ü,#", hash=HASH, seq=1, received=AT)
    return [
        Reading(msgspec.structs.replace(envelope, seq=seq), one)
        for seq, one in enumerate(notifications, 1)
    ]


def write(path: Path, format_: str, table: Table, written: list[Reading]) -> None:
    with path.open("wb") as file:
        writer = files.writer(format_, file, table.columns)
        for one in written:
            writer.write(table.row(one))
        writer.close(NOTES)


def read(path: Path, format_: str) -> list[Any]:
    with files.items(str(path), format_, None) as items:
        return list(items)


@pytest.mark.parametrize("format_", FORMATS)
def test_every_kind_comes_back_as_it_was(format_: str, tmp_path: Path):
    """Of all kinds in one table, and of each alone; null, empty text, lists and fine times."""
    written = readings(*every_kind())
    for kinds in (list(KINDS), *([kind] for kind in KINDS)):
        some = [one for one in written if one.kind in kinds]
        write(tmp_path / "file", format_, Table(kinds), some)
        assert read(tmp_path / "file", format_) == some
    write(tmp_path / "file", format_, Table(list(KINDS)), [])
    assert read(tmp_path / "file", format_) == []


@pytest.mark.parametrize("format_", FORMATS)
def test_standard_output_is_the_same_as_a_file(format_: str, tmp_path: Path, monkeypatch):
    """A pipe cannot be asked where it is, and stays open for the next."""
    table, written = Table(list(KINDS)), readings(*every_kind())
    write(tmp_path / "file", format_, table, written)
    output = tmp_path / "output"
    with output.open("wb", buffering=0) as file:
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BufferedWriter(file)))
        with files.opened("-") as stdout:
            writer = files.writer(format_, stdout, table.columns)
            for one in written:
                writer.write(table.row(one))
            writer.close(NOTES)
        sys.stdout.flush()
    assert output.read_bytes() == (tmp_path / "file").read_bytes()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.none()))
def test_any_text_comes_back_as_it_was(texts):
    """Quotes, line ends, NUL, commas; an empty text is no null."""
    written = readings(
        *(MessageCluster(device=None, meter=None, time=AT, text=text) for text in texts)
    )
    with tempfile.TemporaryDirectory() as folder:
        for format_ in FORMATS:
            path = Path(folder) / "file"
            write(path, format_, Table(["message_cluster"]), written)
            assert read(path, format_) == written


@pytest.mark.parametrize("format_", FORMATS)
def test_pandas_polars_and_duckdb_read_the_same(format_: str, tmp_path: Path):
    """Without an option but for times in pandas' text; typed, times in UTC."""
    path = tmp_path / f"all.{format_}"
    written = [one for one in readings(*every_kind()) if one.notification.time]
    write(path, format_, Table(list(KINDS)), written)
    demand = [getattr(one.notification, "demand_kw", None) for one in written]
    times = [one.notification.time for one in written]
    as_pandas = {
        "csv": lambda: pd.read_csv(path, parse_dates=["time_utc"]),
        "jsonl": lambda: pd.read_json(path, lines=True).assign(
            time_utc=lambda table: pd.to_datetime(table["time_utc"])
        ),
        "parquet": lambda: pd.read_parquet(path),
    }[format_]()
    as_polars = {
        "csv": lambda: pl.read_csv(path, try_parse_dates=True),
        "jsonl": lambda: pl.read_ndjson(path).with_columns(
            pl.col("time_utc").str.to_datetime(time_zone="UTC")
        ),
        "parquet": lambda: pl.read_parquet(path),
    }[format_]()
    assert [one.to_pydatetime() for one in as_pandas["time_utc"]] == times
    assert as_pandas["demand_kw"].sum() == pytest.approx(sum(filter(None, demand)))
    assert as_polars["time_utc"].to_list() == times
    assert as_polars["demand_kw"].to_list() == demand
    with duckdb.connect() as db:
        table = db.from_parquet(str(path)) if format_ == "parquet" else None
        query = f"SELECT epoch_us(time_utc::TIMESTAMPTZ), demand_kw FROM '{path}' ORDER BY seq"  # noqa: S608 - the test's own
        if format_ == "jsonl":
            query = query.replace(f"'{path}'", f"read_json('{path}')")
        found = db.sql(query).fetchall()
        assert table is None or "TIMESTAMP WITH TIME ZONE" in map(str, table.types)
    assert [one[1] for one in found] == demand
    assert [one[0] for one in found] == [int(time.timestamp() * 1_000_000) for time in times]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('a,b\n"1', "not whole"),
        ("a,b\n1\n", "row 2 has 1 fields and not 2"),
        ('a,b\n1,x"y"\n', "a quote stands"),
    ],
)
def test_a_table_that_is_damaged_is_refused(text, said):
    """It says where."""
    with pytest.raises(ValueError, match=said):
        list(formats.csv_rows(io.StringIO(text)))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"seq": "0"}, "seq"), ({"kind": "x"}, "no kind"), ({"demand": "1.5"}, "demand"),
     ({"received_utc": "noon"}, "noon"), ({"hash": None}, "hash")],
)  # fmt: skip
def test_a_row_that_is_no_reading_is_refused(change, said):
    """Of the contract, as it would be on the bus."""
    (one,) = (one for one in every_kind() if "demand_kw" in one.__struct_fields__ and one.meter)
    table = Table(["instantaneous_demand"])
    names = [column.name for column in table.columns]
    row = dict(zip(names, table.row(readings(one)[0]), strict=True))
    assert reading_of(row) == readings(one)[0]
    with pytest.raises(ContractError, match=said):
        reading_of(row | change)
    del row["multiplier"]
    with pytest.raises(ContractError, match="no column 'multiplier'"):
        reading_of(row)


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ([(1, 30)], []),
        ([(1, 9), (13, 14), (16, 20), (25, 30)], [(10, 12), (15, 15), (21, 24)]),
        ([(1, 5), (8, 20), (22, 22), (25, 30)], [(21, 21)]),
        ([(10, 20)], [(1, 9)]),
    ],
)
def test_what_is_missing_lies_between_or_beside_what_was_exported(present, missing):
    """Of the numbers 10 to 20; a gap that does not touch them belongs to another time."""
    expected = [(1, 9), *missing] if present == [] else missing
    assert lacking(present, 10, 20) == expected
