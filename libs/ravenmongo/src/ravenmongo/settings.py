"""Where MongoDB is: one setting, which its services share."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

from msgspec import Meta

from ravenbus.settings import SECRET, UrlError


class MongoUrl:
    """A MongoDB connection string; prints without its account."""

    ALLOWED = (
        "mongodb://[user:password@]host[:27017]/[database][?options] or mongodb+srv://…, "
        "user and password percent-encoded"
    )

    def __init__(self, text: str) -> None:
        """Read a connection string; raise UrlError if it is none."""
        # A program that uses another store does without the driver.
        from pymongo.errors import PyMongoError  # noqa: PLC0415
        from pymongo.uri_parser import parse_uri  # noqa: PLC0415

        is_looked_up = text.startswith("mongodb+srv://")
        if is_looked_up and not find_spec("dns"):
            raise UrlError("mongodb+srv:// needs the package dnspython", self.ALLOWED)
        if not is_looked_up and not text.startswith("mongodb://"):
            raise UrlError("it does not begin with mongodb:// or mongodb+srv://", self.ALLOWED)
        try:
            # Looking up mongodb+srv is left to the client: the resolver may be away now.
            nodes = () if is_looked_up else parse_uri(text)["nodelist"]
        except (PyMongoError, ValueError):
            reason = (
                "a host, a port, an option, or a character that is not percent-encoded is wrong"
            )
            raise UrlError(reason, self.ALLOWED) from None
        self.text = text
        self._shown = ",".join(f"{host}:{port}" for host, port in nodes) or "mongodb+srv"

    def __str__(self) -> str:
        return f"mongodb://{self._shown}"

    __repr__ = __str__


MongoSetting = Annotated[
    MongoUrl, Meta(description="the database, `raven` if it names none", extra=SECRET)
]
