"""Which dead letters of the line are taken in, and which stay; no sockets."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from raven_reader import main as command
from raven_reader.acceptance import Limits
from raven_reader.replay import judged
from raven_reader.spool import Spool
from ravenbus.errors import ContractError
from ravenbus.messages import DeadLetter, encode
from ravenbus.topics import Topics

from .examples import (
    DEVICE,
    EPOCH,
    METER,
    NOON,
    OTHER_METER,
    RAVEN,
    demand,
    fragment,
    price,
    stamped,
    summation,
)


def letter(number, payload, **changes):
    """Return a letter as `raven-dead-letters list --json` prints it."""
    fields = {
        "id": f"{number:032x}",
        "service": "reader",
        "node": "home",
        "at": NOON + timedelta(seconds=number),
        "reason": "demand-too-large",
        "detail": "d",
        "payload": payload,
        "size": len(payload),
    }
    return encode(DeadLetter(**fields | changes))


def letters_of(*payloads):
    return [letter(number, payload) for number, payload in enumerate(payloads)]


def judge(lines, meters=(), **limits):
    return list(judged(lines, "home", meters, Limits(**limits)))


def whys(found):
    """Return which letters stay, and the beginning of why; those taken in have no reason."""
    return [(int(one.letter.id, 16), one.why.partition(":")[0]) for one in found]


# What a letter holds


def test_a_letter_is_taken_in_once_the_limits_let_it():
    """A demand that was too large is a reading by larger limits, and stays by the same."""
    lines = letters_of(demand("0x0249f0"))
    (stays,) = judge(lines)
    assert stays.notification is None
    assert stays.why.startswith("demand-too-large: 150.0 kW")
    (taken,) = judge(lines, max_demand_kw=200)
    assert (taken.notification.demand_kw, taken.why) == (150.0, "")


def test_dead_letters_of_an_older_reader_are_taken_in():
    """A demand that 1.0 buried for its clock is a reading, once, with what the clock claimed."""
    long_ago = NOON - timedelta(days=60)
    found = judge(letters_of(stamped(long_ago), demand(TimeStamp="0x00000e10")))
    assert [one.why for one in found] == ["", ""]
    claimed = [one.notification.claimed_time for one in found]
    assert claimed == [long_ago, EPOCH + timedelta(hours=1)]


def test_letters_of_a_new_meter_are_taken_in_once_they_show_it():
    """Three letters show a meter as three reports do; fewer stay where they are."""
    xml = [demand(f"0x00000{number}", MeterMacId=OTHER_METER) for number in (2, 3, 4)]
    found = judge(letters_of(*xml[:2]), [METER[2:]])
    assert whys(found) == [(0, "unknown-meter"), (1, "unknown-meter")]
    found = judge(letters_of(*xml), [METER[2:]])
    assert whys(found) == [(0, ""), (1, ""), (2, "")]
    assert [one.notification.demand for one in found] == [2, 3, 4]


def test_a_letter_that_waits_is_said_with_its_own_id():
    """Others are decided on meanwhile, and it comes before the one that decides on it."""
    other = [demand(f"0x00000{number}", DeviceMacId=RAVEN) for number in (1, 2, 3)]
    mine = demand("0x000009", DeviceMacId=DEVICE)
    found = judge(letters_of(mine, other[0], price(DeviceMacId=None), *other[1:]))
    assert whys(found) == [(0, ""), (2, ""), (1, ""), (3, ""), (4, "")]
    assert [one.notification.demand for one in found if one.letter.id[-1] in "134"] == [1, 2, 3]
    found = judge(letters_of(mine, other[0], other[1], mine.replace(b"0x000009", b"0x000008")))
    assert whys(found) == [(0, ""), (1, "other-device"), (2, "other-device"), (3, "")]


def test_registers_are_judged_among_the_letters():
    """One that fell waits for what follows it; at the end it stays."""
    lines = letters_of(summation("0x0000000009586914"), summation("0x0000000000000001"))
    found = judge(lines)
    assert whys(found) == [(0, ""), (1, "summation-down")]


def test_a_letter_that_says_what_another_says_stays():
    """The same report buried twice is one reading."""
    found = judge(letters_of(price(), price(), price(Price="0x0000025c")))
    assert whys(found) == [(0, ""), (1, "nothing in it that another letter has not"), (2, "")]


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "it holds no whole fragment"),
        (demand()[:-30], "it holds no whole fragment"),
        (fragment("NwkTable", {"DeviceMacId": DEVICE}), "unknown-kind"),
        (demand(Multiplier="x"), "bad-value"),
    ],
)
def test_a_letter_that_holds_no_reading_stays(payload, why):
    """It says why, and the letter after it is taken in."""
    found = judge(letters_of(payload, demand()))
    assert whys(found) == [(0, why), (1, "")]


# Whose it is


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"service": "sql-writer", "topic": "raven/v1/home/reading/warning"},
            "it came over the bus",
        ),
        ({"node": "barn"}, "it is of the node barn and this is home"),
        ({"node": None}, "it is of the node None and this is home"),
        ({"size": 10**6}, f"only {len(demand())} of its 1000000 bytes were kept"),
    ],
)
def test_a_letter_that_is_not_this_readers_or_not_whole_stays(changes, why):
    """Nothing of it is judged, so it shows no meter and hides no other letter."""
    found = judge([letter(1, demand(), **changes), letter(2, demand())])
    assert whys(found) == [(1, why), (2, "")]


def test_lines_without_anything_are_passed_over():
    """As those between what was printed at two times."""
    lines = [b"\n", letter(1, demand()) + b"\n", b"  \r\n"]
    assert whys(judge(lines)) == [(1, "")]


@pytest.mark.parametrize("line", [b"{}", b"no letter", b"\xff", letter(1, demand())[:-9]])
def test_a_line_that_is_no_letter_is_an_error(line):
    """What comes before it was said by then."""
    found = judged([letter(1, demand()), line, letter(3, demand())], "home", [], Limits())
    assert next(found).letter.id[-1] == "1"
    with pytest.raises(ContractError):
        next(found)


# The command


@pytest.fixture
def replay(tmp_path, monkeypatch, capsys):
    """Return a call of the command that reads lines; it returns the status and what was printed."""
    for name, value in {
        "RAVEN_STATE": str(tmp_path),
        "RAVEN_NODE": "home",
        "RAVEN_RUN": "winter",
        "MQTT_URL": "mqtt://broker",
    }.items():
        monkeypatch.setenv(name, value)

    def call(lines, *arguments, **settings):
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        text = io.BytesIO(b"".join(line + b"\n" for line in lines))
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=text))
        monkeypatch.setattr(sys, "argv", ["raven-reader", "replay", *arguments])
        status = command.main()
        said = capsys.readouterr()
        return status, [line for line in (said.out + said.err).splitlines() if line]

    call.folder = tmp_path
    return call


def in_outbox(folder):
    """Return the kinds and numbers that are to be sent, and the name of their run."""
    with closing(Spool(folder / "spool.sqlite", Topics(), max_mb=16)) as spool:
        query = "SELECT topic, seq FROM outbox ORDER BY key"
        found = [(topic.rpartition("/")[2], seq) for topic, seq in spool._db.execute(query)]
        return found, spool.begin("home", "winter", NOON).run, spool.latest()


def test_nothing_is_taken_in_until_it_is_asked_for(replay):
    """What would be is shown, with whether its sender is known; then it is, in the order of lines."""
    lines = [letter(1, demand()), letter(2, price(), topic="raven/v1/dead")]
    status, said = replay(lines)
    assert status == 0
    assert said[0].startswith(f"{1:032x}  buried 2026-03-01 12:00:01: ")
    assert said[1].startswith(f"{2:032x}  buried 2026-03-01 12:00:02, its sender is not known: ")
    assert said[2] == "Nothing is accepted yet: --yes accepts 2 into winter"
    assert in_outbox(replay.folder) == ([], "winter", [])
    status, said = replay(lines, "--yes")
    assert status == 0
    assert [line.split()[1] for line in said] == ["instantaneous_demand", "price_cluster"]
    expected = [("instantaneous_demand", 1), ("price_cluster", 2)]
    assert in_outbox(replay.folder) == (expected, "winter", []), "no last reading comes of them"


def test_a_letter_is_taken_in_once(replay):
    """Again, with more letters: the new ones alone are numbered on."""
    lines = [letter(1, demand())]
    replay(lines, "--yes")
    status, said = replay([*lines, letter(2, price())], "--yes")
    assert (status, said[0]) == (0, f"{1:032x}  accepted before")
    assert [seq for _, seq in in_outbox(replay.folder)[0]] == [1, 2]
    status, said = replay(lines)
    assert (status, said) == (0, [f"{1:032x}  accepted before"])


def test_it_goes_into_the_run_under_way_whatever_the_shell_says(replay):
    """To look begins no run, and neither does taking in: that is the reader's to do."""
    replay([letter(1, demand())])
    assert replay([letter(1, demand())], RAVEN_RUN="spring")[1][-1].endswith("into winter")
    replay([letter(1, demand())], "--yes", RAVEN_RUN="spring")
    assert in_outbox(replay.folder)[:2] == ([("instantaneous_demand", 1)], "winter")


def test_what_stays_is_said_with_its_status(replay):
    """By the settings as they are now; what is good beside it is taken in."""
    lines = letters_of(demand("0x0249f0"), demand())
    status, said = replay(lines, "--yes")
    assert status == 1
    assert said[0].startswith(f"{0:032x}  stays: demand-too-large")
    assert [seq for _, seq in in_outbox(replay.folder)[0]] == [1]
    status, said = replay(lines, "--yes", RAVEN_MAX_DEMAND_KW="200")
    assert (status, said[1]) == (0, f"{1:032x}  accepted before")
    assert [seq for _, seq in in_outbox(replay.folder)[0]] == [1, 2]


@pytest.mark.usefixtures("replay")
@pytest.mark.parametrize("name", ["replay", "decode"])
def test_whoever_reads_what_is_printed_may_stop(tmp_path, name):
    """As with `| head`: the command ends without a word of it, and not as if all were done."""
    file = tmp_path / "letters"
    file.write_bytes(letter(1, demand()) + b"\n" if name == "replay" else demand())
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        ended = subprocess.run(
            [Path(sys.executable).with_name("raven-reader"), name, file],
            check=False,
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 1
    assert "cannot be read" not in ended.stderr
    assert "pipe" not in ended.stderr


def test_a_meter_that_the_reader_knows_is_known_to_its_letters(replay):
    """It is one of its last readings'; another one has to come three times."""
    with closing(Spool(replay.folder / "spool.sqlite", Topics(), max_mb=16)) as spool:
        spool.begin("home", "winter", NOON)
        found = judge(letters_of(demand(MeterMacId=OTHER_METER)))[0].notification
        spool.accept([(found, NOON)], [])
    lines = letters_of(stamped(NOON), demand("0x000009", MeterMacId=OTHER_METER))
    status, said = replay(lines)
    assert status == 1
    assert sorted(line.split()[1] for line in said[:2]) == ["buried", "stays:"]
    assert any(line.startswith(f"{0:032x}  stays: unknown-meter") for line in said)


def test_what_is_damaged_keeps_what_was_taken_in_before(replay):
    """A line that is no letter ends it with a sentence; the file may be mended and read again."""
    good = letter(1, demand())
    status, said = replay([good, b"{", letter(2, price())], "--yes")
    assert status == 1
    assert said[-1].startswith("raven-reader: ")
    assert [seq for _, seq in in_outbox(replay.folder)[0]] == [1]
    assert replay([good, letter(2, price())], "--yes")[0] == 0
    assert [seq for _, seq in in_outbox(replay.folder)[0]] == [1, 2]


def test_a_file_that_is_not_there_is_named(replay):
    """With the status of a wrong argument, and no state is made for it."""
    status, said = replay([], str(replay.folder / "nothing"))
    assert (status, said[0].endswith("nothing cannot be read: No such file or directory")) == (
        2,
        True,
    )
    assert list(replay.folder.iterdir()) == []
