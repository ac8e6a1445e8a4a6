"""The pages in the frame that all have."""

from __future__ import annotations

import re

import pytest

from raven_dashboard.pages import PAGES, WITH_CHART, page
from raven_dashboard.web import STATIC


@pytest.mark.parametrize("name", PAGES.values())
def test_a_page_links_to_all_and_says_which_it_is(name: str):
    """With its own script, the chart where there is one, and no place that is not filled."""
    text = page(name).decode()
    assert re.findall(r'<a href="(\S+)"[^>]*>(\w+)</a>\n', text)[:4] == [
        (f".{path}", other.capitalize()) for path, other in PAGES.items()
    ]
    assert re.findall(r'aria-current="page">(\w+)<', text) == [name.capitalize()]
    assert f'src="static/{name}.js"' in text
    assert (STATIC / f"{name}.js").exists()
    assert ("dygraph" in text) == (name in WITH_CHART)
    assert "$" not in text


@pytest.mark.parametrize("name", PAGES.values())
def test_no_address_of_a_page_begins_at_the_root(name: str):
    """So that a proxy may show it under any path."""
    addresses = re.findall(r'(?:href|src|action)="([^"]*)"', page(name).decode())
    assert len(addresses) > len(PAGES)
    assert not [one for one in addresses if one.startswith("/") or ":" in one]


def test_where_nobody_logs_in_nobody_can_log_out():
    """The page is the same otherwise."""
    with_it, without = page("now"), page("now", logout=False)
    assert b"Log out" in with_it
    assert b"Log out" not in without
    assert len(with_it.splitlines()) == len(without.splitlines()) + 1
