"""The pages as they are sent: what is each one's own, in the frame that all have."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Final

FOLDER: Final = Path(__file__).parent / "templates"
PAGES: Final = {"/": "now", "/history": "history", "/homes": "homes", "/health": "health"}
"""The pages' names by their paths, in the order of the links."""
WITH_CHART: Final = ("now", "history")
_CHART: Final = '<script src="static/vendor/dygraph-combined.js" defer></script>\n'
_LOGOUT: Final = '<form method="post" action="logout"><button>Log out</button></form>\n'


def page(name: str, *, logout: bool = True) -> bytes:
    """Return one of the pages; nothing in it comes from a reading or a request.

    Its addresses are relative, so that it may stand under any path of a proxy.
    """
    links = (_link(path, other, current=other == name) for path, other in PAGES.items())
    main = _template(name).substitute(empty=_template("empty").substitute())
    text = _template("frame").substitute(
        name=name,
        title=name.capitalize(),
        chart=_CHART if name in WITH_CHART else "",
        links="\n".join(links),
        logout=_LOGOUT if logout else "",
        main=main,
    )
    return text.encode()


def _template(name: str) -> Template:
    return Template((FOLDER / f"{name}.html").read_text(encoding="utf-8"))


def _link(path: str, name: str, *, current: bool) -> str:
    here = ' aria-current="page"' if current else ""
    return f'<a href=".{path}"{here}>{name.capitalize()}</a>'
