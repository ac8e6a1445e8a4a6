"""What the writer and its commands can be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from raven_sql_writer.settings import ArchiveSettings, WriterSettings
from ravenbus.errors import SettingsError


def test_everything_is_kept_unless_it_is_said_for_how_long():
    """The default removes nothing, and needs no folder."""
    settings = WriterSettings.load({})
    assert (settings.raven_sql_keep_months, settings.raven_sql_archive) == (None, None)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"RAVEN_SQL_KEEP_MONTHS": "6"}, "RAVEN_SQL_KEEP_MONTHS is set without RAVEN_SQL_ARCHIVE"),
        ({"RAVEN_SQL_KEEP_MONTHS": "0"}, "'0' cannot be used: allowed is a whole number from 1"),
        ({"RAVEN_SQL_ARCHIVE": "/dev/null/x"}, "RAVEN_SQL_ARCHIVE: '/dev/null/x' cannot be used"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(environ: dict[str, str], said: str):
    """Each says what is missing or wrong."""
    with pytest.raises(SettingsError) as caught:
        WriterSettings.load(environ)
    assert said in caught.value.problems[0]


def test_the_commands_need_the_folder(tmp_path: Path):
    """Which months stay is only for the service to know."""
    with pytest.raises(SettingsError, match="RAVEN_SQL_ARCHIVE is not set"):
        ArchiveSettings.load({})
    assert ArchiveSettings.load({"RAVEN_SQL_ARCHIVE": str(tmp_path)}).raven_sql_archive == tmp_path
