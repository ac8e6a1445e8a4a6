"""What the recorder can be told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ravenbus import archiving
from ravenbus.archiving import KeepMonths
from ravenbus.settings import ClientId, ConsumerSettings
from ravenmongo.settings import MongoSetting, MongoUrl

ARCHIVE = "folder for the months that leave the collections; RAVEN_MONGO_KEEP_MONTHS needs it"


class RecorderSettings(ConsumerSettings, frozen=True, kw_only=True):
    """The recorder's environment variables."""

    mongo_url: MongoSetting = MongoUrl("mongodb://localhost:27017/raven")
    raven_client_id: Annotated[
        ClientId,
        Meta(description="name of the session at the broker; replicas share the name"),
    ] = "raven-mongo-recorder"
    raven_lease_s: Annotated[
        float,
        Meta(
            ge=1,
            le=300,
            description="how long a replica that says nothing keeps its slot, seconds",
        ),
    ] = 10.0
    raven_mongo_keep_months: Annotated[
        KeepMonths,
        Meta(
            description="whole months before this one whose readings stay in the collections, "
            "older ones are archived; default: all stay"
        ),
    ] = None
    raven_mongo_archive: Annotated[Path | None, Meta(description=ARCHIVE)] = None

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the certificates and the archive's folder."""
        yield from super().problems()
        yield from archiving.problems(
            "RAVEN_MONGO", self.raven_mongo_keep_months, self.raven_mongo_archive
        )


class ArchiveSettings(RecorderSettings, frozen=True, kw_only=True):
    """The same for the commands that cannot do without the archive's folder."""

    raven_mongo_archive: Annotated[Path, Meta(description=ARCHIVE)]
