"""Tables as Parquet: the only module that knows pyarrow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from raven_export.columns import TIME, Column, Row, Type
from raven_export.notes import Notes, decoded, encoded
from ravenbus.optional import hidden

# What it takes ahead of need makes it 10 MB larger.
os.environ.setdefault("MIMALLOC_ARENA_EAGER_COMMIT", "0")
# It imports these where they are installed, some 20 MB and more, and here it needs none of them.
_FILE_SYSTEMS: Final = [f"pyarrow._{name}" for name in ("azurefs", "gcsfs", "hdfs", "s3fs")]
with hidden("numpy", "pandas", *_FILE_SYSTEMS):
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    pa.array([None])  # looks for pandas, once

CHUNK: Final = 1024
"""Rows that are made columns at once."""
GROUP: Final = 64 * CHUNK
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
    """A file whose metadata has the notes."""

    has_notes = True

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
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
        self._rows: list[Row] = []
        self._chunks: list[pa.Table] = []

    def __del__(self) -> None:
        # pyarrow would write an end to a file that is not whole and is gone.
        self._writer.is_open = False

    def write(self, row: Row) -> None:
        """Take a row, and write those that make a group."""
        self._rows.append(row)
        if len(self._rows) == CHUNK:
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

    def _turn(self) -> None:
        # Most columns are empty most of the time: those share their memory.
        columns = [
            pa.array(values, type_)
            if any(value is not None for value in values)
            else self._nulls[type_][: len(values)]
            for values, type_ in zip(zip(*self._rows, strict=True), self._schema.types, strict=True)
        ]
        self._chunks.append(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows = []

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
