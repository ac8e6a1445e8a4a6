"""The publisher's side of the spool: what is to be sent, and what stores have yet to confirm."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from raven_reader.spool import REQUIRED, disk_errors, open_file, transaction
from ravenbus.confirming import AUTO, RESEND_S, STORES_MAX, Stores
from ravenbus.errors import PoisonError
from ravenbus.messages import Confirmation
from ravenbus.metrics import PublisherMetrics
from ravenbus.publisher import Entry

log = logging.getLogger(__name__)

TURN_S: Final = 5.0
"""Waiting is counted in turns, which go on over a restart and follow no clock that is set."""
KEEP_TURNS: Final = int(600 / TURN_S)
"""What was taken stays for so long in any case: a store that is switched on late gets it too."""
RESEND_TURNS: Final = int(RESEND_S / TURN_S)
ASK_TURNS: Final = int(300 / TURN_S)
SENT_AGAIN_AT_ONCE: Final = 500


class SpoolOutbox:
    """The outbox in the spool's file; used by one thread, not that of ``Spool``.

    What was taken and not confirmed is sent again as a new entry.  Of what a store lacks that has
    confirmed anything since the last turn, many entries at once; otherwise a single one now and
    then, because a store that is away has them in its session.
    """

    def __init__(
        self,
        path: Path,
        *,
        metrics: PublisherMetrics,
        stores: Stores = AUTO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A removal that a power cut undoes only means that the entry is published again.
        self._db = open_file(path, synchronous="NORMAL")
        self._learns = stores.names is None
        self._metrics = metrics
        self._clock = clock
        self._bits: dict[str, int] = dict(self._db.execute("SELECT name, bit FROM store"))
        for name in (stores.names or frozenset()) - self._bits.keys():
            self._learn(name)
        for name in self._bits:
            self._db.execute(
                "UPDATE store SET required = ? WHERE name = ?",
                (stores.names is None or name in stores.names, name),
            )
        (self._required,) = self._db.execute(REQUIRED).fetchone()
        (last,) = self._db.execute("SELECT max(sent) FROM outbox").fetchone()
        self._turn: int = (last or 0) + 1
        self._turn_at = clock() + TURN_S
        self._ask_turn = self._turn + ASK_TURNS
        self._heard = 0

    def take(self, after: int, limit: int) -> list[Entry]:
        """Return the next entries in order; raise RetryableError when the disk fails."""
        if self._clock() >= self._turn_at:
            self._turn += 1
            self._turn_at = self._clock() + TURN_S
            self._tidy()
        query = (
            "SELECT key, topic, payload FROM outbox INDEXED BY unsent "
            "WHERE sent IS NULL AND key > ? ORDER BY key LIMIT ?"
        )
        with disk_errors():
            return [Entry(*row) for row in self._db.execute(query, (after, limit))]

    def taken(self, keys: list[int]) -> None:
        """Keep entries for their confirmation; raise RetryableError when the disk is full or busy."""
        with transaction(self._db):
            self._db.executemany(
                "UPDATE outbox SET sent = ? WHERE key = ?", [(self._turn, key) for key in keys]
            )

    def confirm(self, said: Confirmation) -> None:
        """Note what a store has; raise RetryableError, and PoisonError for one store too many."""
        bit = self._bits.get(said.store) or self._learn(said.store)
        with transaction(self._db):
            note = "UPDATE outbox SET confirmed = confirmed | :bit WHERE confirmed & :bit = 0 AND "
            found: list[tuple[int]] = []
            for hash_, ranges in said.runs.items():
                run = self._db.execute("SELECT number FROM run WHERE hash = ?", (hash_,)).fetchone()
                for first, last in ranges if run else ():
                    found += self._db.execute(
                        f"{note} run = :run AND seq BETWEEN :first AND :last RETURNING confirmed",
                        {"bit": bit, "run": run[0], "first": first, "last": last},
                    ).fetchall()
            for letter in said.letters:
                found += self._db.execute(
                    f"{note} letter = :letter RETURNING confirmed",
                    {"bit": bit, "letter": letter},
                ).fetchall()
        self._heard |= bit
        if bit & self._required:
            everywhere = [1 for (confirmed,) in found if not self._required & ~confirmed]
            self._metrics.confirmed.inc(len(everywhere))

    def depth(self) -> tuple[int, float | None]:
        """Return how many entries were not taken yet and since when the oldest waits, Unix time."""
        unsent = "FROM outbox INDEXED BY unsent WHERE sent IS NULL"
        (count,) = self._db.execute(f"SELECT count(*) {unsent}").fetchone()
        oldest = self._db.execute(f"SELECT at {unsent} ORDER BY key LIMIT 1").fetchone()
        return count, oldest[0] if oldest else None

    def unconfirmed(self) -> int:
        """Return how many entries were taken that a required store has not confirmed."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM outbox INDEXED BY sent "
            "WHERE sent IS NOT NULL AND confirmed & ? != ?",
            (self._required, self._required),
        ).fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _learn(self, name: str) -> int:
        """Enter a store, required if whoever confirms is, and return its bit."""
        if len(self._bits) == STORES_MAX:
            raise PoisonError("too-many-stores", f"{name!r} is one more than {STORES_MAX} stores")
        bit = 1 << len(self._bits)
        with transaction(self._db):
            self._db.execute("INSERT INTO store VALUES (?, ?, ?)", (name, bit, self._learns))
        self._bits[name] = bit
        if self._learns:
            log.info("readings are kept until this store confirms them", extra={"store": name})
            self._required |= bit
        return bit

    def _tidy(self) -> None:
        """Forget what is confirmed and old, and send again what was lost."""
        with transaction(self._db):
            self._db.execute(
                "DELETE FROM outbox WHERE key IN (SELECT key FROM outbox INDEXED BY sent "
                "WHERE sent < ? AND confirmed & ? = ?)",
                (self._turn - KEEP_TURNS, self._required, self._required),
            )
            lost = self._lost()
            self._db.executemany(
                "INSERT INTO outbox (topic, payload, at, run, seq, letter, confirmed) "
                "SELECT topic, payload, at, run, seq, letter, confirmed FROM outbox WHERE key = ?",
                lost,
            )
            self._db.executemany("DELETE FROM outbox WHERE key = ?", lost)
        self._metrics.sent_again.inc(len(lost))

    def _lost(self) -> list[tuple[int]]:
        """Return the keys of what is to be sent again now."""
        heard, self._heard = self._heard & self._required, 0
        found = self._owed(heard, SENT_AGAIN_AT_ONCE)
        if not found and self._turn >= self._ask_turn:
            self._ask_turn = self._turn + ASK_TURNS
            found = self._owed(self._required, 1)
        return found

    def _owed(self, stores: int, most: int) -> list[tuple[int]]:
        """Return the keys of what one of the stores should have confirmed by now."""
        return self._db.execute(
            "SELECT key FROM outbox INDEXED BY sent "
            "WHERE sent <= ? AND confirmed & ? != ? ORDER BY sent LIMIT ?",
            (self._turn - RESEND_TURNS, stores, stores, most),
        ).fetchall()
