"""What the prose files of the repository hold: their links, their headings and their blocks of code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from raven_harness.stack import ROOT

COMPOSE = ("household.md", "laboratory.md")
"""Pages of docs/ whose blocks tests/compose types, but those that `make bare-test` does."""
SYSTEM = ("developer.md",)
"""Pages whose blocks tests/system types."""
BARE = "sudo apt-get "
"""How a block begins that tests/bare types."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the heading of level 2 that it stands under."""

    language: str
    text: str
    heading: str
    line: int


def prose() -> list[Path]:
    """Return every Markdown file of ours."""
    folders = ("*.md", "docs/**/*.md", "deploy/**/*.md", "tools/*/*.md", "tests/**/*.md")
    return sorted(path for folder in folders for path in ROOT.glob(folder))


@cache
def _tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    found, heading = [], ""
    for before, token in zip([None, *_tokens(page)], _tokens(page), strict=False):
        if before and before.type == "heading_open" and before.tag == "h2":
            heading = token.content
        if token.type == "fence":
            line = token.map[0] + 1 if token.map else 0
            found.append(Block(token.info.strip(), token.content, heading, line))
    return found


def typed(name: str) -> list[Block]:
    """Return the blocks of a page of docs/ that its reader types into a terminal."""
    return [block for block in blocks(ROOT / "docs" / name) if block.language == "sh"]


def anchors(page: Path) -> set[str]:
    """Return what a link to a part of a page may name, as code hosts make it of a heading."""
    found: set[str] = set()
    for before, token in zip(_tokens(page), _tokens(page)[1:], strict=False):
        if before.type == "heading_open":
            text = "".join(one.content for one in token.children or ())
            found.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return found


def links(page: Path) -> list[str]:
    """Return where a page's links and pictures lead."""
    inline = [one for token in _tokens(page) for one in token.children or ()]
    found = [str(one.attrs.get("href") or one.attrs.get("src") or "") for one in inline]
    html = "".join(t.content for t in [*_tokens(page), *inline] if t.type.startswith("html"))
    return [one for one in [*found, *re.findall(r'(?:href|src)="([^"]+)"', html)] if one]
