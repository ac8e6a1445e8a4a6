"""Dead letters of the serial line, judged again by the rules and limits as they are now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from raven_reader.acceptance import Limits
from raven_reader.intake import Accepted, Intake, Rejected, Repeated, Waiting
from raven_reader.service import SERVICE
from raven_reader.verdicts import Report
from ravenbus.messages import DeadLetter, decode
from ravenbus.notifications import Notification


class Judged(NamedTuple):
    """A letter and what it holds, or ``why`` that is no reading of this reader's."""

    letter: DeadLetter
    notification: Notification | None
    why: str = ""


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
    waiting: dict[Report, DeadLetter] = {}
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
                yield _decided(outcome, _letter_of(outcome, waiting, letter))
    for outcome in intake.finish():
        if outcome.report:
            yield Judged(waiting.pop(outcome.report), None, str(outcome.error))


def _letter_of(
    decided: Accepted | Repeated | Rejected, waiting: dict[Report, DeadLetter], new: DeadLetter
) -> DeadLetter:
    """Return the letter that a report came in: one that waited, or the new one."""
    return waiting.pop(decided.report, new) if decided.report else new


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
