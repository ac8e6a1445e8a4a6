"""The numbers that left the collections, and the digests of the readings that had them.

What is in ``archived_run`` is in a file that was read back, or in its collection as restored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from bson import Int64
from pymongo import ASCENDING, UpdateOne

from ravenbus import digests
from ravenbus.months import Month
from ravenbus.ranges import Range, merged
from ravenbus.readback import Known
from ravenmongo.database import Document

RUNS: Final = "archived_run"
DIGESTS: Final = "archived_digest"

Identity = tuple[str, int]
"""Hash and seq."""


def prepare(db: Any) -> None:
    """Create the indexes."""
    for name in (RUNS, DIGESTS):
        db[name].create_index([("hash", ASCENDING), ("last_seq", ASCENDING)])


def covered(db: Any, identities: Collection[Identity]) -> set[Identity]:
    """Return those of the readings that left the collections."""
    if not identities:
        return set()
    seqs = [seq for _, seq in identities]
    query = {
        "hash": {"$in": sorted({hash_ for hash_, _ in identities})},
        "last_seq": {"$gte": min(seqs)},
        "first_seq": {"$lte": max(seqs)},
    }
    found: dict[str, list[Range]] = defaultdict(list)
    for one in db[RUNS].find(query):
        found[one["hash"]].append((one["first_seq"], one["last_seq"]))
    return {
        (hash_, seq)
        for hash_, seq in identities
        if any(first <= seq <= last for first, last in found.get(hash_, ()))
    }


def conflicts(db: Any, identity: Identity, received: datetime) -> bool:
    """Say whether another reading left under the number of one that was received then."""
    hash_, seq = identity
    query = {"hash": hash_, "last_seq": {"$gte": seq}, "first_seq": {"$lte": seq}}
    packed = [(one["first_seq"], one["digests"]) for one in db[DIGESTS].find(query)]
    known = digests.of_number(seq, packed)
    return bool(known) and digests.digest_of(received) not in known


def ranges(db: Any, hash_: str) -> list[Range]:
    """Return the numbers of a run that left the collections."""
    found = db[RUNS].find({"hash": hash_}, {"first_seq": 1, "last_seq": 1})
    return merged((int(one["first_seq"]), int(one["last_seq"])) for one in found)


def runs(db: Any) -> dict[str, Known]:
    """Return the runs of which readings left."""
    found = db[RUNS].find({}, {"hash": 1, "run": 1, "node": 1})
    return {one["hash"]: Known(one["run"], one["node"]) for one in found}


def record(db: Any, month: Month, hash_: str, of: Known, numbers: Iterable[Range]) -> None:
    """Put down which numbers of a run leave with a month; the same again changes nothing."""
    about = {"run": of.name, "node": of.node}
    puts = [
        _put(f"{month}/{hash_}/{first}", month, hash_, first, last, about)
        for first, last in numbers
    ]
    _write(db[RUNS], puts)


def record_digests(
    db: Any, month: Month, kind: str, hash_: str, seen: Mapping[int, datetime]
) -> None:
    """Put down when readings of a kind that leave with a month were received."""
    puts = [
        _put(f"{month}/{kind}/{hash_}/{first}", month, hash_, first, last, {"digests": packed})
        for first, last, packed in digests.pack(seen)
    ]
    _write(db[DIGESTS], puts)


def forget(db: Any, month: Month) -> None:
    """Remove what is put down of a month, whose documents are in their collections."""
    for name in (DIGESTS, RUNS):
        db[name].delete_many({"month": str(month)})


def _put(id_: str, month: Month, hash_: str, first: int, last: int, more: Document) -> UpdateOne:
    fields = {"hash": hash_, "first_seq": Int64(first), "last_seq": Int64(last)}
    return UpdateOne({"_id": id_}, {"$set": fields | {"month": str(month)} | more}, upsert=True)


def _write(documents: Any, puts: list[UpdateOne]) -> None:
    if puts:
        documents.bulk_write(puts, ordered=False)
