"""Dead letters of the serial line, judged again by the rules and limits as they are now."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

import msgspec

from raven_reader.acceptance import Limits
from raven_reader.intake import Accepted, Intake, Rejected, Repeated, Waiting
from raven_reader.reader import SERVICE
from raven_reader.recording import opened
from raven_reader.settings import ReaderSettings
from raven_reader.spool import Spool, locked
from raven_reader.verdicts import Report
from ravenbus.messages import DeadLetter, decode, now
from ravenbus.notifications import Notification
from ravenbus.topics import Topics


class Judged(NamedTuple):
    """A letter and what it holds, or ``why`` that is no reading of this reader's."""

    letter: DeadLetter
    notification: Notification | None
    why: str = ""


def replay(settings: ReaderSettings, name: str, *, yes: bool) -> int:
    """Accept what letters in a file hold, or only show it; return the exit status, 1 if any stays.

    Raise RavenError where the file or the spool cannot be used.
    """
    stays = would = 0
    topics = Topics(settings.raven_topic_prefix)
    with opened(name) as file, locked(settings.raven_state):
        spool = Spool(settings.spool_file, topics, max_mb=settings.raven_spool_max_mb)
        with closing(spool):
            # The run under way, whatever RAVEN_RUN says in this shell: to look changes nothing.
            last = spool.last_run()
            spool.begin(settings.raven_node, last.run if last else settings.raven_run, now())
            latest = (reading.notification.meter for reading in spool.latest())
            meters = {meter for meter in latest if meter}
            for letter, notification, why in judged(file, spool.node, meters, settings.limits):
                if notification is None:
                    stays += 1
                    print(f"{letter.id}  stays: {why}")
                elif spool.was_replayed(letter.id):
                    print(f"{letter.id}  accepted before")
                elif yes:
                    (reading,) = spool.replay(letter.id, [(notification, letter.at)])
                    envelope = reading.envelope
                    print(f"{letter.id}  {reading.kind} {envelope.hash}/{envelope.seq}")
                else:
                    would += 1
                    text = msgspec.json.encode(notification).decode()
                    vouched = "" if letter.topic is None else ", its sender is not known"
                    print(f"{letter.id}  buried {letter.at:%Y-%m-%d %H:%M:%S}{vouched}: {text}")
            if would:
                print(f"\nNothing is accepted yet: --yes accepts {would} into {spool.run.run}")
        sys.stdout.flush()
    return 1 if stays else 0


def judged(
    lines: Iterable[bytes], node: str, meters: Iterable[str], limits: Limits
) -> Iterator[Judged]:
    """Judge what letters of a node hold, one JSON object a line, and yield what is to say of each.

    A letter was received when it was buried.  The device and its registers are judged among the
    letters alone: what came since says nothing.  ``meters`` are known.  Raises ContractError for a
    line that is no letter.
    """
    intake = Intake(limits)
    for meter in meters:
        intake.acceptance.knows_meter(meter)
    waiting: dict[Report | None, DeadLetter] = {}
    for line in filter(bytes.strip, lines):
        letter = decode(line, DeadLetter)
        if why := _not_ours(letter, node):
            yield Judged(letter, None, why)
            continue
        outcomes = intake.feed(letter.payload, letter.at)
        if not outcomes:
            yield Judged(letter, None, "it holds no whole fragment")
        for outcome in outcomes:
            if isinstance(outcome, Waiting):
                waiting[outcome.report] = letter
            else:
                # It came in a letter that waited, or in this one.
                yield _decided(outcome, waiting.pop(outcome.report, letter))
    for outcome in intake.finish():
        yield _decided(outcome, waiting.pop(outcome.report))


def _decided(outcome: Accepted | Repeated | Rejected, letter: DeadLetter) -> Judged:
    match outcome:
        case Rejected(error):
            return Judged(letter, None, str(error))
        case Repeated():
            return Judged(letter, None, "nothing in it that another letter has not")
    return Judged(letter, outcome.report.notification)


def _not_ours(letter: DeadLetter, node: str) -> str:
    if letter.service != SERVICE:
        return "it came over the bus: see `raven-dead-letters replay`"
    if letter.node != node:
        return f"it is of the node {letter.node} and this is {node}"
    if letter.size > len(letter.payload):
        return f"only {len(letter.payload)} of its {letter.size} bytes were kept"
    return ""
