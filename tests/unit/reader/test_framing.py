"""From bytes to whole fragments, whatever the line does to them."""

from __future__ import annotations

import random
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven_reader.decoding import decode
from raven_reader.framing import FRAGMENT_MAX, Parser
from raven_simulator import faults

from .examples import EXAMPLES, demand, fragment, price, summation
from .strategies import cut_into, damaged, lines, noise, reports, sizes, steady


def raws(found):
    return [whole.raw for whole in found]


def fed(data, sizes):
    """Return what a new parser finds in bytes that come in pieces."""
    parser = Parser()
    return [whole for piece in cut_into(data, sizes) for whole in parser.feed(piece)]


@steady
@given(lines(), sizes)
def test_pieces_do_not_matter(line, sizes):
    """The same readings come from a line whether it is read at once or in any pieces."""
    data = b"".join(report.xml for report in line)
    assert [decode(whole) for whole in fed(data, sizes)] == [report.meaning for report in line]


@steady
@given(st.data(), sizes)
def test_pieces_do_not_matter_to_a_damaged_line(data, sizes):
    """The same fragments and counts come from a damaged line, whatever its pieces."""
    line = data.draw(lines(5))
    noisy = b"".join(data.draw(damaged(report.xml)) for report in line)
    at_once, in_pieces = Parser(), Parser()
    expected = at_once.feed(noisy)
    found = [whole for piece in cut_into(noisy, sizes) for whole in in_pieces.feed(piece)]
    assert found == expected
    assert in_pieces.counts.whole == at_once.counts.whole
    assert in_pieces.counts.damaged == at_once.counts.damaged


@steady
@given(st.data(), sizes)
def test_damage_to_a_fragment_costs_no_other(data, sizes):
    """Every undamaged fragment is found; what else is found lies within damaged neighbours."""
    line = data.draw(lines())
    hit = data.draw(st.lists(st.booleans(), min_size=len(line), max_size=len(line)))
    pieces = [
        (is_hit, data.draw(damaged(report.xml)) if is_hit else report.xml)
        for report, is_hit in zip(line, hit, strict=True)
    ]
    intact = [piece.strip() for is_hit, piece in pieces if not is_hit]
    found = raws(fed(b"".join(piece for _, piece in pieces), sizes))
    assert [raw for raw in found if raw in intact] == intact
    control = bytes(c for c in range(32) if c not in b"\t\r\n")
    runs = [
        b"".join(piece for _, piece in run).translate(None, control)
        for is_hit, run in groupby(pieces, key=lambda piece: piece[0])
        if is_hit
    ]
    assert all(any(raw in run for run in runs) for raw in found if raw not in intact)


@pytest.mark.parametrize("kind", ["cut", "overwrite", "letters", "garbage", "nul", "midstart"])
def test_the_faults_of_real_lines_cost_what_they_hit(kind):
    """Exactly the reports that a fault left whole are found, in pieces as a port gives them."""
    rng = random.Random(20)
    reports = [demand(f"0x{raw:06x}") for raw in range(200)]
    sent = faults.play(reports, {kind: 0.3}, rng)
    pieces = faults.chunks(b"".join(item.payload for item in sent), rng)
    parser = Parser()
    found = [whole.raw for piece in pieces for whole in parser.feed(piece)]
    assert found == [item.fragment.strip() for item in sent if item.whole]


@steady
@given(noise, sizes)
def test_arbitrary_bytes_never_raise_and_never_pile_up(noise, sizes):
    """Whatever comes, the parser neither raises nor holds more than its bound."""
    parser = Parser()
    for piece in cut_into(noise, sizes):
        parser.feed(piece)
        assert parser.held <= FRAGMENT_MAX


@pytest.mark.parametrize(
    ("first", "endless"),
    [
        (b"", b"<"),
        (b"", b"x"),
        (b"", b" "),
        (b"", b"<a>"),
        (b"<InstantaneousDemand>", b"x"),
        (b"<InstantaneousDemand>", b"<"),
        (b"<InstantaneousDemand>", b" "),
        (b"<InstantaneousDemand>", b"<a>b</a>"),
        (b"<InstantaneousDemand>", b"</InstantaneousDemand"),
        (b"<Foo><DeviceMacId>", b"0"),
        (b"<MessageCluster><Text><![CDATA[", b"<x>"),
    ],
)
@pytest.mark.parametrize("size", [1, 61, 20_100])
def test_what_never_ends_is_given_up(first, endless, size):
    """Memory is bounded for a fragment that never ends, and the next one is read."""
    parser = Parser()
    data = first + endless * (20_000 // len(endless))
    for start in range(0, len(data), size):
        assert parser.feed(data[start : start + size]) == []
        assert parser.held <= FRAGMENT_MAX
    assert raws(parser.feed(demand())) == [demand().strip()]


def test_the_memory_of_random_bytes_is_bounded():
    """A megabyte of random bytes leaves nothing behind."""
    parser, rng = Parser(), random.Random(8)
    for _ in range(256):
        assert parser.feed(rng.randbytes(4096)) == []
        assert parser.held <= FRAGMENT_MAX
    assert raws(parser.feed(demand())) == [demand().strip()]


def test_a_fragment_is_found_as_soon_as_its_last_byte_is_there():
    """Nothing waits for what comes after a fragment."""
    parser, xml = Parser(), demand().strip()
    assert parser.feed(xml[:-1]) == []
    assert raws(parser.feed(xml[-1:])) == [xml]
    assert parser.held == 0


def test_a_root_that_is_new_is_passed_on_by_name():
    """A notification that nobody knew is found if a device id comes first; a child is none."""
    xml = fragment("NwkTable", {"DeviceMacId": "0xd8d5b90000001234", "Entry": "1"})
    parser = Parser()
    (found,) = parser.feed(b"<Text>x</Text>" + xml + demand())[:1]
    assert (found.root, found.raw) == ("nwktable", xml.strip())
    assert (parser.counts.whole, parser.counts.damaged) == (2, 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda xml: xml.replace(b"</Demand>", b""),
        lambda xml: xml.replace(b"<Demand>", b""),
        lambda xml: xml.replace(b"</Demand>", b"</Deman>"),
        lambda xml: xml.replace(b"</Demand>", b"</Demand"),
        lambda xml: xml.replace(b"\r\n  <Demand>", b"7\r\n  <Demand>"),
        lambda xml: xml.replace(b"0x00059d", b"0x00<59d"),
        lambda xml: xml.replace(b"0x00059d", b"<a>0x00059d</a>"),
        lambda xml: xml.replace(b"<Demand>", b"<Demand unit='W'>"),
        lambda xml: xml.replace(b"<Demand>", b"<?xml version='1.0'?><Demand>"),
    ],
)
def test_a_fragment_with_a_flaw_is_damaged(damage):
    """A body that is anything but one child after another is counted, not read."""
    parser = Parser()
    assert raws(parser.feed(damage(demand()) + summation())) == [summation().strip()]
    assert (parser.counts.whole, parser.counts.damaged) == (1, 1)


SPACE = b" " * 200
MESSAGE_END = "</messageCluster>"


@pytest.mark.parametrize("size", [7, 100, 4096])
@pytest.mark.parametrize(
    "xml",
    [
        demand().replace(b"InstantaneousDemand>", b"InstantaneousDemand" + SPACE + b">", 1),
        demand().replace(b"</InstantaneousDemand>", b"</InstantaneousDemand" + SPACE + b">"),
        fragment("Foo", {"DeviceMacId": "0xd8d5b90000001234"}).replace(b"<Foo>", b"<Foo>" + SPACE),
        fragment("MessageCluster", {"Text": f"<![CDATA[{MESSAGE_END}]]>"}),
    ],
)
def test_a_tag_in_an_odd_place_or_form_means_the_same_in_any_pieces(xml, size):
    """Tags of endless spaces and end tags inside a text: damaged, however they come."""
    assert raws(fed(xml + demand(), [size])) == [demand().strip()]


def test_an_open_text_does_not_swallow_what_follows():
    """CDATA that was cut ends with its fragment, not with the CDATA of a later one."""
    message = fragment("MessageCluster", {"Text": "<![CDATA[a < b]]>"})
    parser = Parser()
    found = parser.feed(message[: message.index(b" b]]>")] + demand() + message)
    assert raws(found) == [demand().strip(), message.strip()]
    assert parser.counts.damaged == 1


@pytest.mark.parametrize("size", [7, 4096])
def test_a_root_inside_a_root_is_never_its_child(size):
    """A notification's name on a child is a new start that damages both, in pieces or at once."""
    end = b"</InstantaneousDemand>"
    data = demand().replace(end, b"<Warning>x</Warning>" + end) + summation()
    assert raws(fed(data, [size])) == [summation().strip()]


def test_skipped_bytes_are_counted():
    """Each byte is in a whole fragment or counted as skipped; white space is neither."""
    parser = Parser()
    parser.feed(b"1234</DeviceMacId>\r\n" + demand() + price()[:60] + demand() + b"xyz")
    skipped = b"1234</DeviceMacId>" + price()[:60] + b"xyz"
    assert parser.counts.skipped_bytes == len(b"".join(skipped.split()))


def test_a_restart_does_not_join_two_lines():
    """What comes after a port was opened again does not continue what came before."""
    parser, xml = Parser(), demand()
    parser.feed(xml[:100])
    parser.restart()
    assert parser.held == 0
    assert raws(parser.feed(xml[100:] + xml)) == [xml.strip()]
    assert parser.counts.damaged == 1


@steady
@given(reports())
def test_a_fragment_keeps_its_own_bytes(report):
    """A fragment's raw bytes are the ones that came, and mean the same again."""
    (whole,) = Parser().feed(report.xml)
    assert whole.raw == report.xml.strip()
    assert Parser().feed(whole.raw) == [whole]


def test_all_examples_on_one_line_without_a_break():
    """Fragments of every kind are told apart with nothing between them."""
    data = b"".join(example.xml.strip() for example in EXAMPLES)
    assert raws(Parser().feed(data)) == [example.xml.strip() for example in EXAMPLES]
