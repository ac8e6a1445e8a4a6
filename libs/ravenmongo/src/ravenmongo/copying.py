"""The whole database as files, and back.

MongoDB shows one time of several collections to a replica set's clients alone, so what is counted of
the readings is not kept as counted: the recorder counts again, from the readings and from what those
in archived months came to, which nobody changes meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pymongo.errors import BulkWriteError

from ravenbus import archives, copies
from ravenbus.copies import Copied, Counts, Recorded
from ravenbus.readback import ANSWER_TIMEOUT_S
from ravenmongo import database, documents, schema
from ravenmongo.archiving import COLUMNS, LEASE
from ravenmongo.database import duplicates, sorted_errors
from ravenmongo.documents import ARCHIVE, DUE, PROGRESS, ROLLUPS, SCHEMA, SLOTS
from ravenmongo.lease import Lease
from ravenmongo.settings import MongoUrl

PASSING: Final = frozenset({LEASE, SLOTS, DUE, PROGRESS})
"""Collections of what is under way, which is begun anew."""


class MongoCopying:
    """The collections of a database, and the folder with the months that left them."""

    name = "MongoDB"

    def __init__(self, url: MongoUrl, archive: Path | None = None) -> None:
        self._url = url
        self._archive = archive

    def save(self, folder: Path) -> Copied:
        """Put everything into a folder; nobody moves months meanwhile."""
        lease = Lease(self._db[LEASE], "archive", threading.Event().wait)
        with lease.held(), sorted_errors():
            schema.require_known(self._db)
            counts = {
                name: copies.write(folder, name, COLUMNS, self._rows(name, lease))
                for name in self._names()
            }
            recorded = [
                Recorded(file["file"], file["sha256"])
                for record in self._db[ARCHIVE].find().sort("_id", 1)
                for file in record["files"]
            ]
            return Copied(counts, copies.save_archive(recorded, self._archive, folder))

    def obstacle(self) -> str | None:
        """Name a collection that has documents, unless a load of it was interrupted."""
        with sorted_errors():
            if schema.found(self._db)[0] == schema.RESTORING:
                return None
            for name in self._names():
                if name != SCHEMA and self._db[name].find_one({}, {"_id": 1}):
                    return f"{self._url} has documents in its collection {name}"
        return None

    def load(self, folder: Path) -> Counts:
        """Replace everything; until that is done, every recorder that starts refuses the database."""
        copies.load_archive(folder, self._archive)
        counts = {}
        with sorted_errors():
            schema.put(self._db, schema.RESTORING)
            for name in {*self._names(), *PASSING} - {SCHEMA}:
                self._db[name].drop()
            for name in copies.names(folder):
                if name != SCHEMA:
                    counts[name] = self._filled(folder, name)
            # A recorder that was not stopped may have counted what was there by then.
            self._db[PROGRESS].drop()
            self._db[SCHEMA].delete_many({})
            if SCHEMA in copies.names(folder):
                counts[SCHEMA] = self._filled(folder, SCHEMA)
        return counts

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "_client" in self.__dict__:
            self._client.close()

    @cached_property
    def _client(self) -> Any:
        return database.client(self._url.text, 1000 * ANSWER_TIMEOUT_S)

    @cached_property
    def _db(self) -> Any:
        return database.database(self._client, 1000 * ANSWER_TIMEOUT_S)

    def _names(self) -> list[str]:
        """Return the collections to keep, roll-ups first: they have no reading that comes later."""
        names = self._db.list_collection_names(filter={"type": "collection"})
        kept = (name for name in names if name not in PASSING and name[:7] != "system.")
        return sorted(kept, key=lambda name: (name not in ROLLUPS.values(), name))

    def _rows(self, name: str, lease: Lease) -> Iterator[archives.Row]:
        # In the order of an index that no update changes, each comes once.
        for document in self._db[name].find().sort("_id", 1):
            lease.keep()
            yield (documents.text(document),)

    def _filled(self, folder: Path, name: str) -> int:
        count = 0
        _, pages = copies.read(folder, name)
        for page in pages:
            found = [documents.parsed(text or "") for (text,) in page]
            try:
                self._db[name].insert_many(found, ordered=False)
            except BulkWriteError as error:
                duplicates(error)
            count += len(page)
        return count
