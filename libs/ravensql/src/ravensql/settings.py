"""Where the database is: one setting, which the writer and the relay share."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Annotated, Final
from urllib.parse import parse_qsl, unquote

from msgspec import Meta

from ravenbus.settings import SECRET, Url, UrlError


class MysqlUrl:
    """Where a database is; prints without its password.  A cluster's nodes are several addresses."""

    ALLOWED = (
        "mysql://user[:password]@host[:3306]/database[?ssl_ca=file.pem], "
        "a cluster's further hosts after commas"
    )

    def __init__(self, text: str) -> None:
        """Read a URL, user and password percent-encoded; raise UrlError if it is none."""
        url = Url.of(text, {"mysql": 3306}, self.ALLOWED)
        database = unquote(url.path[1:])
        options = dict(parse_qsl(url.query, keep_blank_values=True))
        ssl_ca = options.pop("ssl_ca", None)
        if not url.user:
            raise UrlError("it names no user", self.ALLOWED)
        if not database or "/" in database:
            raise UrlError("it names no database", self.ALLOWED)
        if options or ssl_ca == "":
            raise UrlError(
                "it has an option other than ssl_ca, or one without a value", self.ALLOWED
            )
        self.addresses: Final = url.addresses
        self.user: Final = url.user
        self.password: Final = url.password or ""
        self.database: Final = database
        self.ssl_ca: Final = ssl_ca

    def __str__(self) -> str:
        return f"mysql://{self.user}@{','.join(map(str, self.addresses))}/{self.database}"

    __repr__ = __str__


MysqlSetting = Annotated[
    MysqlUrl,
    Meta(
        description="the database; `ssl_ca` asks for TLS and names the certificates to trust",
        extra=SECRET,
    ),
]
DEFAULT_URL: Final = MysqlUrl("mysql://raven@localhost/raven")


def problems(url: MysqlUrl) -> Iterator[str]:
    """Yield what is wrong with the certificates that a URL names."""
    if url.ssl_ca:
        try:
            ssl.create_default_context(cafile=url.ssl_ca)
        except OSError as error:
            yield f"MYSQL_URL: the file that ssl_ca names cannot be used: {error}"
