"""What the relay can be told."""

from __future__ import annotations

import pytest

from raven_sql_relay.settings import RelaySettings
from ravenbus.errors import SettingsError


def test_a_relay_takes_one_server():
    """Its claims are locks of that server, so another node of a cluster knows nothing of them."""
    assert len(RelaySettings.load({"MYSQL_URL": "mysql://u:p@a/d"}).mysql_url.addresses) == 1
    with pytest.raises(SettingsError) as caught:
        RelaySettings.load({"MYSQL_URL": "mysql://u:hunter2@a,b/d"})
    (problem,) = caught.value.problems
    assert "allowed is one address" in problem
    assert "hunter2" not in problem
