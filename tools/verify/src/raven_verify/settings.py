"""What the operator's tools can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from raventools.settings import StoresSettings


class VerifySettings(StoresSettings, frozen=True, kw_only=True):
    """The tools' environment variables."""

    raven_state: Annotated[
        Path | None,
        Meta(
            description="folder with the reader's spool, which says what was accepted and what is "
            "under way; not set: the highest number in any store counts as accepted"
        ),
    ] = None
