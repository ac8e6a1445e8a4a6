"""The publisher's side of the spool: what is to be sent, and what stores have yet to confirm."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from raven_reader.spool import REQUIRED, disk_errors, open_file, transaction
from ravenbus.confirming import AUTO, STORES_MAX, Stores
from ravenbus.errors import PoisonError
from ravenbus.health import Health
from ravenbus.messages import Confirmation
from ravenbus.metrics import PublisherMetrics
from ravenbus.publisher import Entry
from ravenbus.resending import FORGOTTEN, TURN_S, Resending, Sent

log = logging.getLogger(__name__)

KEEP_TURNS: Final = int(600 / TURN_S)
"""Fewest turns that taken entries stay: a store that is switched on late gets them too."""

BACKLOG_TURNS: Final = int(60 / TURN_S)
SEND_AGAIN: Final = (
    "INSERT INTO outbox (topic, payload, at, run, seq, letter, confirmed, first) "
    "SELECT topic, payload, at, run, seq, letter, confirmed, coalesce(first, sent) "
    "FROM outbox WHERE key = ?"
)


class Backlog(NamedTuple):
    """What has yet to reach the stores: entries that nobody took, and that each has not confirmed."""

    waiting: int | None
    behind: dict[str, int] | None


class SpoolOutbox:
    """The outbox in the spool's file; used by one thread, not that of ``Spool``.

    What a store has passed over is sent again as a new entry, so much at once as it keeps up with.
    """

    def __init__(
        self,
        path: Path,
        *,
        metrics: PublisherMetrics,
        stores: Stores = AUTO,
        health: Health | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A removal that a power cut undoes only means that the entry is published again.
        self._db = open_file(path, synchronous="NORMAL")
        self._learns = stores.names is None
        self._metrics = metrics
        self.on_backlog: Callable[[Backlog], None] = lambda _: None
        """Told each minute what has yet to reach the stores."""
        self._clock = clock
        (last,) = self._db.execute(
            "SELECT max((SELECT coalesce(max(sent), 0) FROM outbox), "
            "(SELECT coalesce(max(heard), 0) FROM store))"
        ).fetchone()
        self._turn: int = last + 1
        self._backlog_turn = self._turn
        self._spoke = 0
        self._bits: dict[str, int] = dict(self._db.execute("SELECT name, bit FROM store"))
        self._db.execute("UPDATE store SET heard = ? WHERE heard IS NULL", (self._turn,))
        for name in self._bits:
            self._db.execute(
                "UPDATE store SET required = CASE WHEN :all THEN heard != :forgotten ELSE :named END "
                "WHERE name = :name",
                {
                    "all": stores.names is None,
                    "forgotten": FORGOTTEN,
                    "named": name in (stores.names or ()),
                    "name": name,
                },
            )
        for name in sorted((stores.names or frozenset()) - self._bits.keys()):
            bit = self._learn(name)
            self._db.execute("UPDATE store SET required = TRUE WHERE bit = ?", (bit,))
        self._resending: Resending[int] = Resending(self, health or Health())
        (self._resending.required,) = self._db.execute(REQUIRED).fetchone()
        self._turn_at = clock() + TURN_S

    def begin(self) -> None:
        """Begin a connection: what nobody took is among the next entries."""

    def tend(self) -> None:
        """Let a turn pass when it is time; raise RetryableError when the disk fails."""
        if self._clock() >= self._turn_at:
            self._turn += 1
            self._turn_at = self._clock() + TURN_S
            self._tidy()
            if self._turn >= self._backlog_turn:
                self._backlog_turn = self._turn + BACKLOG_TURNS
                self.on_backlog(self.backlog())

    def entries(self, after: int, limit: int) -> list[Entry]:
        """Return the next entries in order; raise RetryableError when the disk fails."""
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
                "UPDATE outbox SET sent = :turn, first = coalesce(first, :turn) WHERE key = :key",
                [{"turn": self._turn, "key": key} for key in keys],
            )

    def kept(self, keys: list[int]) -> None:
        """Keep entries that nobody took, as they are."""

    def forbidden(self, topics: frozenset[str]) -> None:
        """Try them all again with each connection: a reader has topics of its own alone."""

    def confirmed(self, said: Confirmation) -> None:
        """Note what a store has; raise RetryableError, and PoisonError for one store too many."""
        bit = self._bits.get(said.store) or self._learn(said.store)
        self._spoke |= bit
        if self._learns and not bit & self._required:
            self._require(said.store, bit)
        with transaction(self._db):
            note = "UPDATE outbox SET confirmed = confirmed | :bit WHERE confirmed & :bit = 0 AND "
            found: list[tuple[int, int | None]] = []
            returning = "RETURNING confirmed, coalesce(first, sent)"
            for hash_, ranges in said.runs.items():
                run = self._db.execute("SELECT number FROM run WHERE hash = ?", (hash_,)).fetchone()
                for first, last in ranges if run else ():
                    found += self._db.execute(
                        f"{note} run = :run AND seq BETWEEN :first AND :last {returning}",
                        {"bit": bit, "run": run[0], "first": first, "last": last},
                    ).fetchall()
            for letter in said.letters:
                found += self._db.execute(
                    f"{note} letter = :letter {returning}",
                    {"bit": bit, "letter": letter},
                ).fetchall()
        for _, first_sent in found:
            if first_sent is not None:
                self._resending.confirmed(bit, first_sent, self._turn)
        if bit & self._required:
            everywhere = [1 for confirmed, _ in found if not self._required & ~confirmed]
            self._metrics.confirmed.inc(len(everywhere))

    def gone(self, stores: frozenset[str]) -> None:
        """Wait no more for these stores, once they were silent for a day."""
        self._resending.gone = stores

    @property
    def _required(self) -> int:
        return self._resending.required

    def depth(self) -> tuple[int, float | None]:
        """Return how many entries were not taken yet and since when the oldest waits, Unix time."""
        unsent = "FROM outbox INDEXED BY unsent WHERE sent IS NULL"
        (count,) = self._db.execute(f"SELECT count(*) {unsent}").fetchone()
        oldest = self._db.execute(f"SELECT at {unsent} ORDER BY key LIMIT 1").fetchone()
        return count, oldest[0] if oldest else None

    def prefixes(self) -> dict[str, int]:
        """Return the prefixes of all entries' topics, and how many of each were not taken yet."""
        return dict(
            self._db.execute(
                "SELECT substr(topic, 1, instr(topic, '/v1/') - 1) AS prefix, "
                "count(*) FILTER (WHERE sent IS NULL) FROM outbox GROUP BY prefix"
            )
        )

    def unconfirmed(self) -> int:
        """Return how many entries were taken that a required store has not confirmed."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM outbox INDEXED BY sent "
            "WHERE sent IS NOT NULL AND confirmed & ? != ?",
            (self._required, self._required),
        ).fetchone()
        return int(count)

    def backlog(self) -> Backlog:
        """Return what nobody took, and what each required store has not confirmed in a minute."""
        query = (
            "SELECT count(*) FROM outbox INDEXED BY sent "
            "WHERE sent IS NOT NULL AND sent <= ? AND confirmed & ? = 0"
        )
        late = self._turn - BACKLOG_TURNS
        required = {name: bit for name, bit in self._bits.items() if bit & self._required}
        behind = {
            name: int(self._db.execute(query, (late, bit)).fetchone()[0])
            for name, bit in sorted(required.items())
        }
        return Backlog(self.depth()[0], behind)

    def left_node(self, node: str) -> None:
        """Note that nothing is retained under a former name any more."""
        with transaction(self._db):
            self._db.execute("UPDATE node SET retained = FALSE WHERE name = ?", (node,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _learn(self, name: str) -> int:
        """Enter a store, required if whoever confirms is, and return its bit."""
        bit = 1 << len(self._bits)
        with transaction(self._db):
            if len(self._bits) == STORES_MAX:
                bit = self._replaced(name)
            self._db.execute(
                "INSERT INTO store (name, bit, required, heard) VALUES (?, ?, FALSE, ?)",
                (name, bit, self._turn),
            )
        self._bits[name] = bit
        return bit

    def _replaced(self, name: str) -> int:
        """Take the bit of a store that nothing is kept for; raise PoisonError if there is none."""
        found = self._db.execute(
            "SELECT name, bit FROM store WHERE heard = :forgotten OR (:named AND NOT required) "
            "ORDER BY bit LIMIT 1",
            {"forgotten": FORGOTTEN, "named": not self._learns},
        ).fetchone()
        if not found:
            raise PoisonError("too-many-stores", f"{name!r} is one more than {STORES_MAX} stores")
        other, bit = found
        self._db.execute(
            "UPDATE outbox SET confirmed = confirmed & ~? WHERE confirmed & ?", (bit, bit)
        )
        self._db.execute("DELETE FROM store WHERE name = ?", (other,))
        del self._bits[other]
        return int(bit)

    def _require(self, name: str, bit: int) -> None:
        """Keep entries until a store has confirmed them."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE store SET required = TRUE, heard = ? WHERE bit = ?", (self._turn, bit)
            )
        self._resending.required |= bit
        log.info("readings are kept until this store confirms them", extra={"store": name})

    def _tidy(self) -> None:
        """Forget what is confirmed and old, and send again what was lost."""
        with transaction(self._db):
            self._db.execute(
                "DELETE FROM outbox WHERE key IN (SELECT key FROM outbox INDEXED BY sent "
                "WHERE sent < ? AND confirmed & ? = ?)",
                (self._turn - KEEP_TURNS, self._required, self._required),
            )
            lost = self._resending.lost(self._turn)
            old = [(key,) for key in lost.keys]
            keys = [int(self._db.execute(SEND_AGAIN, key).lastrowid or 0) for key in old]
            self._db.executemany("DELETE FROM outbox WHERE key = ?", old)
            spoke, self._spoke = self._spoke, 0
            if spoke:
                self._db.execute("UPDATE store SET heard = ? WHERE bit & ?", (self._turn, spoke))
            self._forget_silent()
        # Not before it is committed: what was found would otherwise never be looked for again.
        self._resending.sent_again(lost, keys)
        self._metrics.sent_again.inc(len(keys))

    def _forget_silent(self) -> None:
        """Keep nothing any longer for a store that was silent for too long."""
        heard = self._db.execute("SELECT name, bit, heard FROM store WHERE required").fetchall()
        for name in self._resending.silent(heard, self._turn, forgets=self._learns):
            self._db.execute(
                "UPDATE store SET required = FALSE, heard = ? WHERE name = ?", (FORGOTTEN, name)
            )
            self._resending.required &= ~self._bits[name]

    # What waits for stores, as Resending asks for it

    def under_way(self, keys: Sequence[int]) -> list[Sent[int]]:
        """Return those of some entries, sent again or to be so, that still wait."""
        required = self._required
        found = self._db.execute(
            "SELECT key, sent, confirmed FROM outbox "
            "WHERE key IN (SELECT value FROM json_each(?)) AND confirmed & ? != ?",
            (json.dumps(keys), required, required),
        )
        return [Sent(*one) for one in found]

    def last(self) -> Sent[int] | None:
        """Return what was sent last."""
        found = self._db.execute(
            "SELECT key, sent, confirmed FROM outbox INDEXED BY sent "
            "WHERE sent IS NOT NULL AND confirmed & :all != :all ORDER BY sent DESC LIMIT 1",
            {"all": self._required},
        ).fetchone()
        return Sent(*found) if found else None

    def owed(self, bit: int, since: float, until: float, most: int) -> list[int]:
        """Return the oldest of what a store has not confirmed and was sent until a turn."""
        found = self._db.execute(
            "SELECT key FROM outbox INDEXED BY sent "
            "WHERE sent > ? AND sent <= ? AND confirmed & ? = 0 ORDER BY sent LIMIT ?",
            (since, until, bit, most),
        )
        return [key for (key,) in found]

    def oldest(self, bit: int) -> int | None:
        """Return when the oldest of what a store has not confirmed was sent first."""
        found = self._db.execute(
            "SELECT coalesce(first, sent) FROM outbox INDEXED BY sent "
            "WHERE sent IS NOT NULL AND confirmed & ? = 0 ORDER BY sent LIMIT 1",
            (bit,),
        ).fetchone()
        return int(found[0]) if found else None
