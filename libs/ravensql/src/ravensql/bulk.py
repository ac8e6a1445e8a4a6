"""The driver's cursor, with many rows quoted column by column.

The driver quotes each value for itself and looks up anew how; most columns of a batch repeat
a few values, or hold numbers and times.  What is sent is the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymysql.cursors import RE_INSERT_VALUES, Cursor  # type: ignore[import-untyped]


class BulkCursor(Cursor):  # type: ignore[misc] # the driver has no types
    """A cursor that runs an INSERT of many rows as few statements."""

    def executemany(self, query: str, args: Sequence[Sequence[Any]]) -> int | None:
        """Run a statement for each row, an INSERT of placeholders for as many as fit in one.

        Return the number of rows that it changed; raise the driver's errors and
        UnicodeEncodeError.
        """
        insert = RE_INSERT_VALUES.match(query)
        if not (args and insert):
            changed: int | None = super().executemany(query, args)
            return changed
        head, template, tail = insert[1] % (), insert[2].rstrip(), (insert[3] or "") % ()
        columns = [self._literals(column) for column in zip(*args, strict=True)]
        total: int = 0
        size, statement = 0, list[str]()
        room = self.max_stmt_length - len(head.encode()) - len(tail.encode())
        for row in zip(*columns, strict=True):
            values = template % row
            length = len(values.encode())
            if statement and size + length > room:
                total += self.execute(head + ",".join(statement) + tail)
                size, statement = 0, []
            statement.append(values)
            size += length + 1
        total += self.execute(head + ",".join(statement) + tail)
        self.rowcount = total
        return total

    def _literals(self, values: Sequence[Any]) -> list[str]:
        """Return what a column's values are in SQL; text and what is rare the driver quotes."""
        texts: dict[str, str] = {}
        found = []
        for value in values:
            kind = type(value)
            if value is None:
                literal = "NULL"
            elif kind is int:
                literal = str(value)
            elif kind is datetime and value.tzinfo is None:
                literal = f"'{value.isoformat(' ')}'"
            elif kind is not str:
                literal = self.mogrify("%s", (value,))
            elif (known := texts.get(value)) is None:
                literal = texts[value] = self.mogrify("%s", (value,))
            else:
                literal = known
            found.append(literal)
        return found
