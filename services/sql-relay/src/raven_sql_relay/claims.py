"""Sharing of a database by several relays: a block of rows belongs to one of them at a time.

A claim is a named lock of the server's, which it gives back when the session that holds it ends:
a relay that was killed leaves nothing to clean up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ravensql.database import Cursor

SIZE: Final = 500
"""Rows, by their ids."""
DEAD_AFTER_S: Final = 60
"""A relay whose host vanished holds its claims for so long."""


class Block(NamedTuple):
    """The rows of a table whose ids begin with the same digits."""

    table: str
    number: int

    @classmethod
    def of(cls, table: str, row: int) -> Block:
        """Return the block that a row is in."""
        return cls(table, row // SIZE)

    @property
    def first(self) -> int:
        """The lowest id that may be in it."""
        return self.number * SIZE

    @property
    def last(self) -> int:
        """The highest id that may be in it."""
        return self.first + SIZE - 1


class Claims:
    """The blocks that this relay has to itself."""

    def __init__(self, database: str) -> None:
        self._prefix = "raven-" + hashlib.sha256(database.encode()).hexdigest()[:16]
        self._held: set[Block] = set()
        self._leads = False

    def __contains__(self, block: Block) -> bool:
        return block in self._held

    def __iter__(self) -> Iterator[Block]:
        return iter(self._held)

    def connected(self, cursor: Cursor) -> None:
        """Begin on a new connection, which holds nothing."""
        self._held.clear()
        self._leads = False
        cursor.execute("SET SESSION wait_timeout = %s", (DEAD_AFTER_S,))

    def leads(self, cursor: Cursor) -> bool:
        """Return whether this relay is the first of those of the database, from now on."""
        self._leads = self._leads or self._locked(cursor, f"{self._prefix}-first")
        return self._leads

    def claim(self, cursor: Cursor, block: Block) -> bool:
        """Say whether the block is ours from now on; another relay may have it."""
        if not self._locked(cursor, self._name(block)):
            return False
        self._held.add(block)
        return True

    def release(self, cursor: Cursor, blocks: Sequence[Block]) -> None:
        """Give blocks back, what became of their rows being committed."""
        names = [self._name(block) for block in blocks]
        cursor.execute(f"DO {', '.join(['RELEASE_LOCK(%s)'] * len(names))}", names)
        self._held.difference_update(blocks)

    def _locked(self, cursor: Cursor, name: str) -> bool:
        cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))
        return cursor.fetchall() == ((1,),)

    def _name(self, block: Block) -> str:
        return f"{self._prefix}-{block.table}-{block.number}"
