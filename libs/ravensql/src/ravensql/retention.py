"""Which months leave the tables, and when: they are over, old enough, counted and relayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ravenbus.errors import FatalError, RetryableError
from ravenbus.months import Month, due
from ravensql import energy, partitions, rollups, rows
from ravensql.archiving import Archive, LastIds
from ravensql.database import Cursor

UNSENT: Final = "relayed IS NULL OR relayed IN (0, 3)"


@dataclass(frozen=True)
class Retention:
    """The rule by which months go to an archive; ``keep`` before this one stay, None for all.

    Raises what the archive does.
    """

    into: Archive
    keep: int | None

    def due(self) -> list[Month]:
        """Return the months in the tables that are older than those to keep."""
        if self.keep is None:
            return []
        with self.into.session() as cursor:
            found = {month for table in rows.COLUMNS for month in partitions.months(cursor, table)}
        return due(found, self.into.utc(), self.keep)

    def archive(self, month: Month) -> int:
        """Move a month from the tables to files; return the rows that are in files now.

        The first month of a table has what is older, too.
        """
        if month >= Month.of(self.into.utc()):
            raise FatalError(f"{month} is not over: only months before this one can be archived")
        with self.into.session() as cursor:
            last_ids = self.into.last_ids(cursor, month)
            relay = _relay(cursor)

            def require_same_relay() -> None:
                if _relay(cursor) != relay:
                    raise RetryableError("a relay came meanwhile")

            self._require_settled(cursor, month, last_ids, relay)
            return self.into.move(cursor, month, last_ids, require_same_relay)

    def _require_settled(
        self, cursor: Cursor, month: Month, last_ids: LastIds, relay: str | None
    ) -> None:
        """Raise RetryableError if rows are not rolled up, or not relayed where there is a relay."""
        rollups.count_foreign(cursor, self.into.go_on)
        if relay and (unsent := sum(_count(cursor, month, one, UNSENT) for one in last_ids)):
            raise RetryableError(
                f"{unsent} rows are not sent to {relay}; if nothing relays there any more, "
                "remove the row of the table relay"
            )
        energy.recount(cursor, self.into.go_on)
        if not energy.is_counted(cursor, month.span[1]):
            raise RetryableError("another writer is counting the energy of the month")
        last_id = last_ids.get("instantaneous_demand")
        condition = f"rolled_up IS NULL AND id <= {last_id}"
        if last_id and _count(cursor, month, "instantaneous_demand", condition):
            raise RetryableError("another program is changing rows that are not rolled up")


def _relay(cursor: Cursor) -> str | None:
    """Return where rows are relayed to, None if nothing relays."""
    cursor.execute("SELECT upstream FROM relay")
    found = cursor.fetchall()
    return found[0][0] if found else None


def _count(cursor: Cursor, month: Month, table: str, condition: str) -> int:
    cursor.execute(
        f"SELECT COUNT(*) FROM {table} PARTITION ({partitions.name(month)}) WHERE {condition}"  # noqa: S608 - our names
    )
    return int(cursor.fetchall()[0][0])
