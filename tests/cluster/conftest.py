"""The databases of the other system tests."""

from __future__ import annotations

from tests.system.conftest import db, new_db

__all__ = ["db", "new_db"]
