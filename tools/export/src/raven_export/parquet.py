"""Tables as Parquet: the only module that knows pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import parquet

from raven_export.columns import Column, Row, Type
from raven_export.notes import Notes, decoded, encoded

CHUNK: Final = 1024
"""Rows that are made columns at once."""
GROUP: Final = 64 * CHUNK
"""Rows of a row group, whose columns are in memory together; each adds to the file's metadata."""
NOTES: Final = "raven_export"
"""Key of the notes in the file's metadata."""

_TYPES: Final = {
    Type.TEXT: pa.string(),
    Type.JSON: pa.string(),
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
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Row] = []
        self._chunks: list[pa.RecordBatch] = []

    def write(self, row: Row) -> None:
        """Take a row, and write those that make a group."""
        self._rows.append(row)
        if len(self._rows) == CHUNK:
            self._turn()
            if len(self._chunks) == GROUP // CHUNK:
                self._flush()

    def close(self, notes: Notes) -> None:
        """Write the rows that are left, and the notes."""
        self._turn()
        self._flush()
        self._writer.add_key_value_metadata({NOTES: encoded(notes)})
        self._writer.close()

    def _turn(self) -> None:
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(self._schema)
        pairs = zip(columns, self._schema, strict=True)
        arrays = [pa.array(values, field.type) for values, field in pairs]
        self._chunks.append(pa.record_batch(arrays, schema=self._schema))
        self._rows = []

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._chunks, self._schema)
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
