"""Where MongoDB is: what is wrong with a URL is said, and no password."""

from __future__ import annotations

import pytest

from ravenmongo import settings
from ravenmongo.settings import MongoUrl


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mongo://u:hunter2@db/raven", "it does not begin with mongodb://"),
        ("mongodb://u:hunter2@db:x/raven", "a host, a port"),
        ("mongodb://u:hunter2@x@db/raven", "is not percent-encoded"),
    ],
)
def test_a_wrong_url_is_refused_by_its_part(url: str, reason: str):
    """It may hold a password, which is not shown."""
    with pytest.raises(ValueError, match=reason) as caught:
        MongoUrl(url)
    assert "hunter2" not in str(caught.value)


def test_a_name_that_is_looked_up_needs_a_resolver(monkeypatch: pytest.MonkeyPatch):
    """Without it the driver would say so at each try, and nobody would know what to install."""
    monkeypatch.setattr(settings, "find_spec", lambda _name: None)
    with pytest.raises(ValueError, match="needs the package dnspython"):
        MongoUrl("mongodb+srv://u:p@cluster.example/raven")
    monkeypatch.setattr(settings, "find_spec", lambda name: name)
    assert str(MongoUrl("mongodb+srv://u:p@cluster.example/raven")) == "mongodb://mongodb+srv"
