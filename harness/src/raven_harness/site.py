"""What MkDocs asks while it makes a site of docs/: see `hooks` in mkdocs.yml."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\((\.\.?/[^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Name a file of the repository in place of a link to it, which a site does not have."""

    def named(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = posixpath.normpath(
            posixpath.join("docs", posixpath.dirname(page.file.src_uri), target)
        )
        if path.startswith("docs/"):
            return link[0]
        return text if text == f"`{path}`" else f"{text} (`{path}`)"

    return _LINK.sub(named, markdown)
