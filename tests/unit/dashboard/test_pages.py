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
        (path, other.capitalize()) for path, other in PAGES.items()
    ]
    assert re.findall(r'aria-current="page">(\w+)<', text) == [name.capitalize()]
    assert f'src="/static/{name}.js"' in text
    assert (STATIC / f"{name}.js").exists()
    assert ("dygraph" in text) == (name in WITH_CHART)
    assert "$" not in text
