"""What is done about a device that says nothing."""

from __future__ import annotations

from raven_reader.silence import Silence, Step


def steps(silence, *times):
    return [silence.step(now) for now in times]


def test_a_silence_is_asked_about_once_then_ended():
    """Nothing is asked before its time, once in a silence, and a long one reopens the port."""
    silence = Silence(120, 300, heard_at=1000)
    assert steps(silence, 1000, 1119.9) == [Step.LISTEN] * 2
    assert steps(silence, 1120, 1121, 1299.9) == [Step.ASK, Step.LISTEN, Step.LISTEN]
    assert steps(silence, 1300, 1301) == [Step.REOPEN] * 2


def test_an_answer_begins_a_new_silence():
    """After anything whole was heard both times count anew, and the next silence is asked about."""
    silence = Silence(120, 300, heard_at=0)
    assert silence.step(120) is Step.ASK
    silence.heard(125)
    assert steps(silence, 244.9, 245, 424.9, 425) == [
        Step.LISTEN,
        Step.ASK,
        Step.LISTEN,
        Step.REOPEN,
    ]


def test_a_suspended_host_reopens_at_once():
    """A clock that jumped over both times, as after a suspend, does not ask a port that is stale."""
    assert Silence(120, 300, heard_at=0).step(100_000) is Step.REOPEN
