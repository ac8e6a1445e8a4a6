"""The migrations' files; no database."""

from __future__ import annotations

import pytest

from ravensql import rows, schema


def test_the_migrations_are_numbered_from_one_without_a_gap():
    """A number that is missing or there twice would leave databases of different shapes."""
    numbers = [step.number for step in schema.migrations()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert all(step.statements for step in schema.migrations())


def test_every_statement_can_be_repeated():
    """A crash between two statements runs the first again: it has to say what makes it harmless."""
    harmless = (
        *("CREATE TABLE IF NOT EXISTS", "CREATE OR REPLACE"),
        *("DROP TABLE IF EXISTS", "INSERT IGNORE"),
    )
    for step in schema.migrations():
        for sql, unless in step.statements:
            assert unless or sql.startswith(harmless), sql


def test_statements_and_their_conditions_are_read():
    """A statement ends with a semicolon at a line's end; comments are left out."""
    text = (
        "-- first\nCREATE TABLE a (b INT);\n\n-- unless column a.c\nALTER TABLE a\n  ADD c INT;\n"
        "-- unless option a.d\nALTER TABLE a d = 1;\n"
    )
    step = schema.read("0007_some_name.sql", text)
    assert (step.number, step.name) == (7, "some_name")
    assert step.statements == (
        ("CREATE TABLE a (b INT)", None),
        ("ALTER TABLE a\n  ADD c INT", ("column", "a", "c")),
        ("ALTER TABLE a d = 1", ("option", "a", "d")),
    )


def test_a_file_that_is_no_migration_is_an_error():
    """A misnamed file must not be passed over."""
    with pytest.raises(ValueError, match="NNNN_name"):
        schema.read("7_x.sql", "")


def test_every_table_of_readings_is_made():
    """What the sink writes into is what the migrations make."""
    made = " ".join(s.sql for step in schema.migrations() for s in step.statements)
    for table, columns in rows.COLUMNS.items():
        assert f"CREATE TABLE IF NOT EXISTS {table} (" in made
        assert all(column in made for column in rows.IDENTITY + columns)
