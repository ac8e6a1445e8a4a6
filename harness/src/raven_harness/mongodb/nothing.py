"""A store that costs nothing: ``python -m raven_harness.mongodb.nothing PORT``.

What is inserted is counted and acknowledged as by a majority, and not even decoded.  All else is
kept: a recorder has its slot in it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter

from raven_harness.mongodb.replica_set import Member, ReplicaSet
from raven_harness.mongodb.wire import Connection, Document, Message


class Nothing(ReplicaSet):
    """A primary alone, which counts what is inserted; ``count`` says how much that was."""

    def __init__(self, port: int) -> None:
        super().__init__([port])
        self._inserted: Counter[str] = Counter()

    def answer(self, member: Member, connection: Connection, message: Message) -> Document:
        """Return what a server answers; raise HangUp."""
        if message.command != "insert":
            return super().answer(member, connection, message)
        count = message.count
        self._inserted[f"{message.body['$db']}.{message.body['insert']}"] += count
        return {"n": count, "ok": 1.0}

    def _count(self, command: Document) -> Document:
        return {"n": self._inserted[f"{command['$db']}.{command['count']}"], "ok": 1.0}


if __name__ == "__main__":
    Nothing(int(sys.argv[1])).start()
    threading.Event().wait()
