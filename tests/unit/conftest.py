"""What unit tests of several packages share: a MySQL server in memory."""

from __future__ import annotations

import pymysql
import pytest

from tests.mysql import Server


@pytest.fixture
def server(monkeypatch):
    found = Server()
    monkeypatch.setattr(pymysql, "connect", found.connect)
    yield found
    found.db.close()
