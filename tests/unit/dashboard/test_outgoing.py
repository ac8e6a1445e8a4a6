"""Which URLs are taken, and what is said of them; nothing is sent."""

from __future__ import annotations

import logging

import pytest
from apprise import Apprise

from raven_dashboard.notifier import Memory, Told
from raven_dashboard.outgoing import NotifyUrls
from raven_dashboard.troubles import TRIAL
from ravenbus.errors import RetryableError
from tests.kinds import T0


def test_a_url_that_is_none_is_said_by_its_number(capfd: pytest.CaptureFixture[str]):
    """What it holds may be a token."""
    with pytest.raises(ValueError, match=r"number 2 is no URL that Apprise knows: allowed is URLs"):
        NotifyUrls("json://localhost/a bogus://secret-token/x")
    assert capfd.readouterr() == ("", "")
    assert repr(NotifyUrls("json://localhost/a\n  jsons://u:secret@localhost")) == "2 URLs"


def test_nothing_of_a_url_is_in_what_is_said_of_it(monkeypatch: pytest.MonkeyPatch):
    """Whatever Apprise quotes, decoded or not: a host, an account and a path may all be secret."""

    def notify(*_: object, **__: object) -> bool:
        logging.getLogger("apprise").warning("POST http://me:p%40ss@token.example/way?x=deep p@ss")
        return False

    monkeypatch.setattr(Apprise, "notify", notify)
    (target,) = NotifyUrls("json://me:p%40ss@token.example/way?x=deep").targets
    with pytest.raises(RetryableError) as caught:
        target.send(TRIAL)
    said = str(caught.value)
    assert said.startswith("json: POST http")
    assert not [part for part in ("40", "@s", "token", "example", "way", "deep") if part in said]


def test_what_was_told_is_kept_over_a_restart(tmp_path, caplog: pytest.LogCaptureFixture):
    """A file that somebody broke is as none, and said."""
    told = Told({"home house": T0}, {"house": ["raven-sql-writer"]})
    folder = tmp_path / "state"
    assert Memory(folder).read() == Told()
    Memory(folder).keep(told)
    assert Memory(folder).read() == told
    (folder / "notified.json").write_text("{")
    assert Memory(folder).read() == Told()
    assert "told again" in caplog.text
