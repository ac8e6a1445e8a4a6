"""Work that the tables need besides readings, on a connection and in a thread of its own.

Nothing of it is needed for storing, so nothing that stands in its way, as a lock or a right that
the account lacks, keeps readings from being stored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from itertools import count
from typing import Final

from ravenbus.archiving import Retention, archive_due
from ravenbus.errors import PoisonError, RetryableError
from ravenbus.messages import now
from ravensql import energy, partitions, rollups, schema
from ravensql.settings import MysqlUrl

log = logging.getLogger(__name__)

EVERY_S: Final = 5 * 60.0
FIRST_ARCHIVE: Final = 12
"""Rounds: a relay that was started together with the writer has entered itself within the hour."""
ARCHIVE_EVERY: Final = 24 * 12


def run(
    url: MysqlUrl,
    retention: Retention | None,
    stop: threading.Event,
    utc: Callable[[], datetime] = now,
) -> None:
    """Do every five minutes what is to be done until ``stop`` is set; it is set at the end.

    Raises FatalError if a newer program has changed the database.
    """
    try:
        for number in count(1):
            if stop.wait(EVERY_S):
                return
            look_after(url, utc=utc)
            if retention and number % ARCHIVE_EVERY == FIRST_ARCHIVE:
                archive_due(retention)
    finally:
        stop.set()


def look_after(
    url: MysqlUrl, beat: Callable[[], None] = lambda: None, utc: Callable[[], datetime] = now
) -> None:
    """Make the partitions of the months ahead and roll up what other programs inserted.

    What stands in the way is logged; FatalError is raised as above.
    """
    try:
        with schema.maintenance(url) as cursor:
            schema.lock(cursor, url.database, try_s=0)
            partitions.keep_ahead(cursor, utc(), beat)
            rollups.count_foreign(cursor, beat)
            if meters := energy.recount(cursor, beat):
                log.info("energy counted again", extra={"meters": meters})
    except (RetryableError, PoisonError) as error:
        log.warning("table maintenance postponed", extra={"reason": str(error)})
