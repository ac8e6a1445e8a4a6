"""Messages to people by way of Apprise: the only module that knows it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from raven_dashboard.troubles import Message
from ravenbus.errors import RetryableError
from ravenbus.settings import UrlError

if TYPE_CHECKING:
    from apprise import Apprise

SECRET_MIN: Final = 3
"""Letters from which on a part of a URL is kept out of what is said."""


class NotifyUrls:
    """Where messages go: URLs of Apprise, as ``mailto://…`` and ``json://…``; prints without them."""

    ALLOWED = "URLs of Apprise, as mailtos://user:password@example.org, divided by blanks or lines"

    def __init__(self, text: str) -> None:
        """Read the URLs; raise UrlError that says which one is none."""
        # 30 MB, of which who is told nothing needs none.
        import apprise  # noqa: PLC0415

        asset = apprise.AppriseAsset(app_id="python-raven", app_desc="", async_mode=False)
        self.targets: list[Target] = []
        with _said():
            for number, url in enumerate(text.split(), 1):
                target = apprise.Apprise(asset=asset)
                if not target.add(url):
                    raise UrlError(f"number {number} is no URL that Apprise knows", self.ALLOWED)
                self.targets.append(Target(url, target))

    def __repr__(self) -> str:
        return f"{len(self.targets)} URLs"


class Target:
    """One of those who are told."""

    def __init__(self, url: str, apprise: Apprise) -> None:
        self._url = url
        self._apprise = apprise

    def send(self, message: Message) -> None:
        """Send a message; raise RetryableError, without any part of the URL, if it is not taken."""
        with _said() as said:
            # Without the format a mail's lines run into one another.
            taken = self._apprise.notify(message.body, message.title, body_format="text")
        if not taken:
            scheme = self._url.partition("://")[0]
            why = _without(self._url, " ".join(said) or "it was not taken")
            raise RetryableError(f"{scheme}: {why}")


class _Collecting(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _said() -> Iterator[list[str]]:
    """Collect Apprise's warnings, which go nowhere else: they may quote a URL."""
    logger, collecting = logging.getLogger("apprise"), _Collecting()
    logger.addHandler(collecting)
    logger.propagate = False
    try:
        yield collecting.lines
    finally:
        logger.removeHandler(collecting)


def _without(url: str, text: str) -> str:
    """Return a text without any part of a URL: a host may be a token, too."""
    parts = re.split("[:/?&=@,]+", url)[1:]
    for part in sorted({*parts, *map(unquote, parts)}, key=len, reverse=True):
        if len(part) >= SECRET_MIN:
            text = text.replace(part, "…")
    return text
