"""What a person is asked, and what is not asked because it was said before."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from raven_reader.serial_port import Stick
from raven_setup.plan import Answers
from raven_setup.questions import AnswerError, Questions

RAVEN = Stick("/dev/ttyUSB0", "RAVEn", "Rainforest RAVEn", "/dev/serial/by-id/usb-Rainforest")
EMU = Stick("/dev/ttyACM0", "EMU-2", "", "")
NOTHING = Namespace(device=None, store=None, node=None, backup=None)


class Typist:
    """Types an answer to each question, the default where it is empty."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.seen: list[str] = []

    def say(self, text: str) -> None:
        self.seen.append(text)

    def ask(self, question: str, default: str) -> str:
        self.seen.append(f"{question} [{default}]")
        return self.answers.pop(0) or default


def ask(*typed: str, earlier: Answers | None = None, options=NOTHING, sticks=(), **environ: str):
    person = Typist(*typed)
    return Questions(options, environ, person, earlier).answers(sticks), person


def test_three_answers_are_enough():
    """The stick that is plugged in, to MariaDB here, without backups."""
    answers, _ = ask("", "", "")
    assert answers == Answers("auto", "mysql")


def test_a_stick_is_chosen_by_its_number_or_its_path():
    """By the name that stays, if it has one."""
    for typed, device in (("1", RAVEN.link), ("2", EMU.path), ("/dev/ttyS1", "/dev/ttyS1")):
        answers, person = ask(typed, "", "", sticks=(RAVEN, EMU))
        assert answers.device == device
    assert f"  1     RAVEn at {RAVEN.path}" in person.seen


def test_what_was_said_before_is_not_asked():
    """By options, or by the environment as the services read it."""
    options = Namespace(device="/dev/ttyACM0", store="mongo", node="house", backup="/srv/b")
    answers, person = ask(options=options, MONGO_URL="mongodb://db/raven")
    wanted = Answers("/dev/ttyACM0", "mongo", "house", mongo_url="mongodb://db/raven")
    assert answers == replace(wanted, backup="/srv/b")
    assert person.seen == []


def test_the_defaults_are_the_answers_of_before(tmp_path: Path):
    """A URL with its password is not shown again, and kept."""
    ca = tmp_path / "ca.pem"
    ca.touch()
    before = Answers("auto", "server", "house", "mqtts://house:secret@server", str(ca))
    answers, person = ask("", "", "", "", earlier=before)
    assert answers == before
    assert "secret" not in "".join(person.seen)


def test_a_folder_for_backups_is_kept_until_it_is_told_otherwise():
    """The earlier one is the default; none ends the backups, typed or as an option."""
    before = Answers("auto", "mysql", backup="/srv/b")
    assert ask("", "", "", earlier=before)[0] == before
    assert ask("", "", "none", earlier=before)[0].backup is None
    options = Namespace(**vars(NOTHING) | {"backup": "none"})
    assert ask("", "", earlier=before, options=options)[0].backup is None


def test_a_folder_for_backups_is_nobody_s_who_could_put_links_there(monkeypatch):
    """It is told before anything is changed, and as often as it is answered."""
    found = Namespace(st_uid=1000, st_mode=0o040755)
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "stat", lambda _: found)
    with pytest.raises(AnswerError, match="'/srv/b' is not root's: allowed is one of root's"):
        ask("", "", "/srv/b")


@pytest.mark.parametrize(
    ("typed", "environ", "said"),
    [
        (("ttyUSB0", "", ""), {}, "RAVEN_DEVICE: auto, a path"),
        (("", "oracle", ""), {}, "allowed is mysql, mongo, server"),
        (("", "mongo", ""), {}, "MONGO_URL is not set"),
        (("", "server", "http://x"), {}, "MQTT_URL: it does not begin with mqtt://"),
        (("", "", ""), {"RAVEN_NODE": "dashboard"}, "RAVEN_NODE"),
        *(
            (("", "", folder), {}, "folder for backups .*: allowed is a path from / on")
            for folder in ("backups", "/home/me/b", "/etc/raven", "/var/lib/raven-reader-b", "/a b")
        ),
    ],
)
def test_an_answer_that_cannot_be_used_is_said(typed, environ, said):
    """With its name and what is allowed."""
    with pytest.raises(AnswerError, match=said):
        ask(*typed, **environ)
