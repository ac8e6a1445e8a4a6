"""What the recorder can be told."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ravenbus.settings import ClientId, ConsumerSettings
from ravenmongo import settings as database
from ravenmongo.settings import MongoSetting


class RecorderSettings(ConsumerSettings, frozen=True, kw_only=True):
    """The recorder's environment variables."""

    mongo_url: MongoSetting = database.DEFAULT_URL
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
