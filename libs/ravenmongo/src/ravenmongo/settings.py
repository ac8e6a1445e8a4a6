"""Where MongoDB is: one setting, which its services share."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ravenbus.settings import SECRET


class MongoUrl:
    """A MongoDB connection string; prints without its account."""

    ALLOWED = (
        "mongodb://[user:password@]host[:27017]/[database][?options] or mongodb+srv://…, "
        "user and password percent-encoded"
    )

    def __init__(self, text: str) -> None:
        """Read a connection string; raise ValueError if it is none."""
        # A program that uses another store does without the driver.
        from pymongo.errors import PyMongoError  # noqa: PLC0415
        from pymongo.uri_parser import parse_uri  # noqa: PLC0415

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


MongoSetting = Annotated[
    MongoUrl, Meta(description="the database, `raven` if it names none", extra=SECRET)
]
