"""Dead letters of the serial line, judged again by the rules and limits as they are now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from raven_reader.acceptance import Limits
from raven_reader.intake import Accepted, Intake, Rejected, Repeated, Waiting
from raven_reader.service import SERVICE
from raven_reader.spool import Spool
from raven_reader.verdicts import Report
from ravenbus.messages import DeadLetter, Reading, decode


class Outcome(NamedTuple):
    """What became of a letter: the readings that it held, or ``why`` it is none."""

    letter: DeadLetter
    readings: list[Reading]
    why: str | None


def replayed(lines: Iterable[bytes], spool: Spool, limits: Limits) -> Iterator[Outcome]:
    """Accept what letters hold, one JSON object a line, and yield what became of each.

    A letter was received when it was buried, and is accepted once however often it comes.  The
    device and its registers are judged among the letters alone: what came since says nothing.
    Raises ContractError for a line that is no letter, RetryableError if the disk is full.
    """
    intake = Intake(limits)
    for reading in spool.latest():
        if reading.notification.meter:
            intake.acceptance.knows_meter(reading.notification.meter)
    waiting: dict[Report, DeadLetter] = {}
    for line in filter(bytes.strip, lines):
        letter = decode(line, DeadLetter)
        if why := _not_ours(letter, spool.node):
            yield Outcome(letter, [], why)
            continue
        outcomes = intake.feed(letter.payload, letter.at)
        if not outcomes:
            yield Outcome(letter, [], "it holds no whole fragment")
        for outcome in outcomes:
            if isinstance(outcome, Waiting):
                waiting[outcome.report] = letter
            else:
                yield _decided(outcome, _letter_of(outcome, waiting, letter), spool)
    for outcome in intake.finish():
        if outcome.report:
            yield Outcome(waiting.pop(outcome.report), [], str(outcome.error))


def _letter_of(
    decided: Accepted | Repeated | Rejected, waiting: dict[Report, DeadLetter], new: DeadLetter
) -> DeadLetter:
    """Return the letter that a report came in: one that waited, or the new one."""
    return waiting.pop(decided.report, new) if decided.report else new


def _decided(outcome: Accepted | Repeated | Rejected, letter: DeadLetter, spool: Spool) -> Outcome:
    match outcome:
        case Rejected(error):
            return Outcome(letter, [], str(error))
        case Repeated():
            return Outcome(letter, [], "nothing in it that another letter has not")
    notification = outcome.report.notification
    return Outcome(letter, spool.replay(letter.id, [(notification, letter.at)]), None)


def _not_ours(letter: DeadLetter, node: str) -> str | None:
    if letter.service != SERVICE or letter.topic is not None:
        return "it came over the bus: see `raven-dead-letters replay`"
    if letter.node != node:
        return f"it is of the node {letter.node} and this is {node}"
    if letter.size > len(letter.payload):
        return f"only {len(letter.payload)} of its {letter.size} bytes were kept"
    return None
