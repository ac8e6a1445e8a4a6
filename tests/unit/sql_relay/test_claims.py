"""Which blocks of rows a relay has to itself; no database."""

from __future__ import annotations

import pytest

from raven_sql_relay.claims import SIZE, Block, Claims

BLOCK, OTHER = Block("notification", 3), Block("price_cluster", 3)


def connected(server, claims):
    """Return the cursor of a new connection, in which the relay begins."""
    connection = server.connect()
    claims.connected(connection)
    return connection


@pytest.fixture
def relays(server):
    """Two relays of one database, each with its connection."""
    one, two = Claims("energy"), Claims("energy")
    return one, connected(server, one), two, connected(server, two)


@pytest.mark.parametrize("row", [0, 1, SIZE - 1, SIZE, 10**15])
def test_every_row_is_within_its_own_block_alone(row):
    """The blocks of a table follow each other without gap or overlap."""
    block = Block.of("notification", row)
    assert block.first <= row <= block.last
    assert Block.of("notification", block.first - 1) != block
    assert Block.of("notification", block.last + 1).first == block.last + 1


def test_a_block_is_one_relays_until_it_is_given_back(relays):
    """Another relay passes it over and takes others, also of the same number."""
    one, cursor, two, others = relays
    assert one.claim(cursor, BLOCK)
    assert not two.claim(others, BLOCK)
    assert two.claim(others, OTHER)
    assert (BLOCK in one, BLOCK in two, list(two)) == (True, False, [OTHER])
    one.release(cursor, [BLOCK])
    assert list(one) == []
    assert two.claim(others, BLOCK)


def test_blocks_that_are_given_back_leave_the_others_claimed(relays):
    """Each is named to the server."""
    one, cursor, two, others = relays
    blocks = [Block("notification", number) for number in range(4)]
    assert all(one.claim(cursor, block) for block in blocks)
    one.release(cursor, blocks[:2])
    assert set(one) == set(blocks[2:])
    assert [two.claim(others, block) for block in blocks] == [True, True, False, False]


def test_a_relay_whose_connection_ended_holds_nothing(server, relays):
    """What it had is free for others, and after it connects again it does not believe to have it."""
    one, cursor, two, others = relays
    assert one.claim(cursor, BLOCK)
    assert one.leads(cursor)
    assert not two.leads(others)
    cursor._force_close()
    assert two.claim(others, BLOCK)
    assert two.leads(others)
    again = connected(server, one)
    assert BLOCK not in one
    assert not one.leads(again)
    assert not one.claim(again, BLOCK)


def test_whoever_leads_goes_on_leading(server, relays):
    """Until its connection ends, without asking the server each time."""
    one, cursor, _, _ = relays
    statements = []
    server.before = statements.append
    assert [one.leads(cursor) for _ in range(3)] == [True] * 3
    assert len(statements) == 1


def test_databases_of_one_server_do_not_share_claims(server):
    """Locks are the server's, not the database's."""
    for name in ("energy", "other"):
        claims = Claims(name)
        cursor = connected(server, claims)
        assert claims.claim(cursor, BLOCK)
        assert claims.leads(cursor)


def test_a_claim_has_a_name_that_the_server_takes(relays):
    """At most 64 characters, also for the longest table's millionth of a billion rows."""
    one, cursor, _, _ = relays
    assert one.claim(cursor, Block.of("current_summation_delivered", 10**15))
