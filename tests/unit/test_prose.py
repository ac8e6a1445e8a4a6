"""What is written for people holds together: links, blocks of code, the table of contents."""

from __future__ import annotations

import ast
import configparser
import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from raven_harness import site
from raven_harness.stack import ROOT
from tests.pages import BARE, COMPOSE, SYSTEM, anchors, blocks, links, prose, typed

DOCS = ROOT / "docs"
CONTENTS = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def shell(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


PARSERS: dict[str, Callable[[str], Any]] = {
    "sh": shell,
    "json": lambda text: [json.loads(one) for one in re.split(r"\n(?=\{)", text)],
    "yaml": yaml.safe_load,
    "ini": lambda text: configparser.ConfigParser().read_string("[any]\n" + text),
    "toml": tomllib.loads,
    "python": ast.parse,
    "sql": str,
    "console": str,
    "text": str,
}


def named(nav: Any) -> list[str]:
    """Return the pages that a table of contents names."""
    if isinstance(nav, str):
        return [nav]
    return [page for one in (nav.values() if isinstance(nav, dict) else nav) for page in named(one)]


@pytest.mark.parametrize("page", prose(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path):
    """To a file of ours, and to a heading in it where it names one."""
    for link in links(page):
        url = urlsplit(link)
        if url.scheme:
            continue
        target = (page.parent / url.path).resolve() if url.path else page
        assert target.exists(), link
        assert not url.fragment or url.fragment in anchors(target), link


@pytest.mark.parametrize("page", prose(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_code_can_be_parsed(page: Path):
    """Each says of what language it is."""
    for block in blocks(page):
        assert block.language in PARSERS, f"line {block.line}: {block.language!r}"
        if block.language == "yaml":  # Compose's own tags are not YAML's
            PARSERS["yaml"](re.sub(r"!(reset|override) ", "", block.text))
        else:
            PARSERS[block.language](block.text)


def test_the_contents_name_every_page():
    """Once each; decisions have a table of contents of their own."""
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    decisions = {page for page in pages if re.match(r"adr/\d", page)}
    assert sorted(named(CONTENTS["nav"])) == sorted(pages - decisions)
    listed = [f"adr/{link}" for link in links(DOCS / "adr" / "README.md")]
    assert sorted(listed) == sorted(decisions)


def test_every_page_for_a_start_is_typed_by_a_test():
    """Of each, every block of commands; a block that installs is typed on a bare Debian."""
    (start,) = (one["Start"] for one in CONTENTS["nav"] if "Start" in one)
    assert set(named(start)) == {*COMPOSE, *SYSTEM}
    for name in named(start):
        found = blocks(DOCS / name)
        assert typed(name)
        assert {block.language for block in found} <= {"sh", "text"}
    bare = [block for name in COMPOSE for block in typed(name) if block.text.startswith(BARE)]
    assert len(bare) == 1
    assert not any(BARE in block.text for name in SYSTEM for block in typed(name))


def test_a_site_names_the_files_that_it_does_not_have():
    """A link out of docs/ is words there; others stay."""
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri="contract/README.md"))
    text = "[the rule](../../deploy/x.rules), [`deploy/x`](../../deploy/x), [a](../a.md#b)"
    told = "the rule (`deploy/x.rules`), `deploy/x`, [a](../a.md#b)"
    assert site.on_page_markdown(text, page=page) == told
