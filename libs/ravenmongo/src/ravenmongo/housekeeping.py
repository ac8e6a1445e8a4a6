"""Work that the collections need besides readings, on connections and in a thread of its own.

Nothing of it is needed for storing, so nothing that stands in its way keeps readings from being
stored.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from ravenbus.archiving import Retention, archive_due
from ravenbus.errors import PoisonError, RetryableError
from ravenmongo.rollups import RollUps
from ravenmongo.settings import MongoUrl

log = logging.getLogger(__name__)

EVERY_S: Final = 30.0
FIRST_ARCHIVE_S: Final = 3600.0
ARCHIVE_EVERY_S: Final = 24 * 3600.0


def run(
    url: MongoUrl,
    retention: Retention | None,
    stop: threading.Event,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Count what is due, first what was there before, and archive, until ``stop`` is set.

    It is set at the end.  What stands in the way is logged.
    """
    rollups = RollUps(url, stop)
    postponed, pause_s = False, EVERY_S
    archive_at = clock() + FIRST_ARCHIVE_S
    try:
        while not stop.wait(pause_s):
            pause_s = EVERY_S
            try:
                rollups.count_due()
                if rollups.count_before(EVERY_S):
                    pause_s = 0.0
            except (RetryableError, PoisonError) as error:
                if not postponed:
                    log.warning("roll-ups postponed", extra={"reason": str(error)})
                postponed = True
            else:
                if postponed:
                    log.info("roll-ups go on")
                postponed = False
            if retention and clock() >= archive_at:
                archive_at = clock() + ARCHIVE_EVERY_S
                archive_due(retention)
    finally:
        stop.set()
        rollups.close()
