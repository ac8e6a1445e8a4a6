"""What the recorder can be told."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from ravenbus.settings import SECRET, ClientId, ConsumerSettings


class MongoUrl:
    """A MongoDB connection string; prints without its account."""

    ALLOWED = (
        "mongodb://[user:password@]host[:27017]/[database][?options] or mongodb+srv://…, "
        "user and password percent-encoded"
    )

    def __init__(self, text: str) -> None:
        """Read a connection string; raise ValueError if it is none."""
        try:
            # Looking up mongodb+srv is left to the client: the resolver may be away now.
            nodes = () if text.startswith("mongodb+srv://") else parse_uri(text)["nodelist"]
        except (PyMongoError, ValueError):
            raise ValueError(self.ALLOWED) from None
        self.text = text
        self._shown = ",".join(f"{host}:{port}" for host, port in nodes) or "mongodb+srv"

    def __str__(self) -> str:
        return f"mongodb://{self._shown}"

    __repr__ = __str__


class RecorderSettings(ConsumerSettings, frozen=True, kw_only=True):
    """The recorder's environment variables."""

    mongo_url: Annotated[
        MongoUrl,
        Meta(
            description="the database, `raven` if it names none",
            extra=SECRET,
        ),
    ] = MongoUrl("mongodb://localhost:27017/raven")
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
