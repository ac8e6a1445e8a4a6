"""What is imported, and what is not."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ravenbus.optional import hidden


def test_a_hidden_module_looks_as_if_it_were_not_installed(monkeypatch: pytest.MonkeyPatch):
    """Until the block ends, with an error too; one that is imported already stays."""
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with pytest.raises(ModuleNotFoundError), hidden("this", "sys"):
        importlib.import_module("this")
    assert "this" not in sys.modules
    assert sys.modules["sys"] is sys


@pytest.mark.parametrize("program", ["raven_dashboard.main", "raven_export.main"])
def test_no_driver_is_imported_before_its_store_is_set(program: str):
    """Nor what drivers would import because it is installed."""
    unwanted = "{'pymongo', 'pymysql', 'cryptography', 'dns', 'numpy', 'pandas'}"
    script = f"import sys, {program}; sys.exit(bool({unwanted} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("program", ["raven_mongo_recorder", "raven_sql_writer", "raven_sql_relay"])
def test_a_store_does_without_what_its_driver_would_import(program: str):
    """One driver never needs cryptography, the other for a way to log in that is rare."""
    script = f"import sys, {program}.main; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_parquet_is_written_without_numpy_and_pandas():
    """They are there for whoever wants them afterwards."""
    script = (
        "import sys, raven_export.parquet, pyarrow; pyarrow.array([1]); "
        "assert not {'numpy', 'pandas'} & sys.modules.keys(); import numpy"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
