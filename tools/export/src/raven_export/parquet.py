"""Tables as Parquet: the only module that knows pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import csv, parquet

from raven_export.columns import TIME, Column, Row, Type
from raven_export.formats import CsvWriter
from raven_export.notes import Notes, decoded, encoded

CHUNK: Final = 4096
"""Rows that are made columns at once."""
GROUP: Final = 32 * CHUNK
"""Rows of a row group.

Its columns are in memory together, and what the file says of it is there until the end: some 1 kB
for each column.
"""
NOTES: Final = "raven_export"
"""Key of the notes in the file's metadata."""

# In memory a text that comes again and again is a number; in the file it is a text.
_TEXT: Final = pa.dictionary(pa.int32(), pa.string())
_TYPES: Final = {
    Type.TEXT: _TEXT,
    Type.JSON: _TEXT,
    Type.INTEGER: pa.int64(),
    Type.REAL: pa.float64(),
    Type.BOOLEAN: pa.bool_(),
    Type.TIME: pa.timestamp("us", tz="UTC"),
}


class ParquetWriter:
    """A file whose metadata has the notes.

    Rows become columns by way of CSV: pyarrow would import the whole of pandas, where that is
    installed, to find out that a list is none of its own.
    """

    has_notes = True

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._schema = pa.schema([(column.name, _TYPES[column.type]) for column in columns])
        self._writer = parquet.ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            # A dictionary of what is never the same is the largest thing in memory.
            use_dictionary=[name for name, type_ in columns if _TYPES[type_] == _TEXT],
            column_encoding={
                name: "DELTA_BINARY_PACKED"
                for name, type_ in columns
                if type_ in (Type.INTEGER, Type.TIME)
            },
            write_statistics=[TIME, "node", "kind"],
            store_schema=False,
        )
        self._nulls = {type_: pa.nulls(CHUNK, type_) for type_ in _TYPES.values()}
        self._chunks: list[pa.Table] = []
        self._begin()

    def __del__(self) -> None:
        # pyarrow would write an end to a file that is not whole and is gone.
        self._writer.is_open = False

    def write(self, row: Row) -> None:
        """Take a row, and write those that make a group."""
        self._csv.write(row)
        self._rows += 1
        if self._rows == CHUNK:
            self._turn()
            if len(self._chunks) == GROUP // CHUNK:
                self._flush()

    def close(self, notes: Notes) -> None:
        """Write the rows that are left, and the notes."""
        if self._rows:
            self._turn()
        self._flush()
        self._writer.add_key_value_metadata({NOTES: encoded(notes)})
        self._writer.close()

    def _begin(self) -> None:
        self._rows = 0
        self._text = BytesIO()
        self._csv = CsvWriter(self._text, self._columns)

    def _turn(self) -> None:
        text = self._text.getvalue()
        table = csv.read_csv(
            pa.BufferReader(text),
            csv.ReadOptions(use_threads=False, block_size=len(text)),
            csv.ParseOptions(newlines_in_values=True),
            csv.ConvertOptions(
                column_types=self._schema,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        # Most columns are empty most of the time: those share their memory.
        columns = [
            self._nulls[column.type][: self._rows] if column.null_count == self._rows else column
            for column in table.columns
        ]
        self._chunks.append(pa.Table.from_arrays(columns, schema=self._schema))
        self._begin()

    def _flush(self) -> None:
        if self._chunks:
            table = pa.concat_tables(self._chunks).unify_dictionaries()
            self._writer.write_table(table, row_group_size=GROUP)
            self._chunks = []


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; raise ValueError if it is none."""
    with _opened(path) as file:
        for batch in file.iter_batches(batch_size=1000):
            yield from batch.to_pylist()


def notes(path: Path) -> Notes | None:
    """Return the notes in a file; raise ValueError if it is none."""
    with _opened(path) as file:
        text = (file.metadata.metadata or {}).get(NOTES.encode())
    return decoded(text) if text else None


def _opened(path: Path) -> Any:
    return parquet.ParquetFile(path)
