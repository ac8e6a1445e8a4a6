"""Output of the tools, for people and for scripts: pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from raven_verify.inventory import RunReport, StoreReport
from raven_verify.look import Report
from raven_verify.repair import Repaired
from ravenbus.messages import DeadLetter, Reading, Run
from ravenbus.ranges import Range, count, merged, shown, without
from ravenbus.storing import read
from ravenbus.topics import Topics

ID_DIGITS: Final = 12
"""So many of an id tell letters apart, and can be typed."""
_INDENT: Final = " " * 22


def of_report(report: Report) -> str:
    """Return what people read."""
    if not report.runs:
        lines = [f"No readings yet in {' and '.join(report.letters)}."]
    else:
        lines = [line for run in report.runs for line in (*_run(run), "")]
        lines.pop()
    if any(report.letters.values()):
        lines += ["", "dead letters"]
        lines += [f"  {name:9} {_reasons(reasons)}" for name, reasons in report.letters.items()]
    if report.runs:
        lines += ["", _verdict(report)]
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """Return the same for scripts, one JSON object."""
    runs = [
        {
            "hash": run.hash,
            "name": run.known.name,
            "node": run.known.node or None,
            "accepted": run.accepted,
            "accepted_by": "spool" if run.by_spool else "stores",
            "complete": run.complete,
            "stores": {name: _store_json(store) for name, store in run.stores.items()},
            "differing": run.differing,
        }
        for run in report.runs
    ]
    found = {"complete": report.complete, "runs": runs, "dead_letters": report.letters}
    return json.dumps(found)


def of_repair(repaired: Repaired) -> str:
    """Return what became of the numbers that a store lacked, in a line."""
    became = {"stored": repaired.stored, "buried": repaired.buried}
    became["in no other store"] = repaired.nowhere
    parts = [f"{count(r)} {what} ({shown(r)})" for what, r in became.items() if r]
    run = repaired.run
    return f"run {run.known.name} {run.hash}, {repaired.store}: {', '.join(parts)}"


def letter_line(store: str, letter: DeadLetter) -> str:
    """Return a dead letter in a line of a list."""
    at = letter.at.strftime("%Y-%m-%d %H:%M:%S")
    detail = one_line(letter.detail)
    if len(detail) > 70:  # noqa: PLR2004 - what is left of a wide terminal
        detail = detail[:69] + "…"
    head = f"{letter.id[:ID_DIGITS]}  {at}  {store:7}  {letter.service:14}  {letter.reason:17}"
    return f"{head}  {detail}"


LETTER_HEAD: Final = (
    f"{'id':{ID_DIGITS}}  {'at (UTC)':19}  {'in':7}  {'buried by':14}  {'reason':17}  detail"
)


def of_letter(store: str, letter: DeadLetter) -> str:
    """Return all of a dead letter, its payload as text if it is text."""
    kept = len(letter.payload)
    cut = "" if kept == letter.size else f", of which the first {kept} were kept"
    fields = {
        "id": letter.id,
        "in": store,
        "buried by": letter.service,
        "node": letter.node or "-",
        "at": letter.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "reason": letter.reason,
        "detail": one_line(letter.detail),
        "topic": one_line(letter.topic) if letter.topic else "- (not from the bus)",
        "size": f"{letter.size} bytes{cut}",
    }
    lines = [f"{name:10} {text}" for name, text in fields.items()]
    return "\n".join([*lines, "payload", *_payload(letter.payload)])


def of_message(topics: Topics, letter: DeadLetter) -> str:
    """Return what a replay of a letter would send, and as whose."""
    match read(topics, letter.topic or "", letter.payload):
        case Reading(envelope) as reading:
            number = f"{envelope.hash}/{envelope.seq}"
            return f"{reading.kind} {number} of the node {envelope.node}, run {envelope.run}"
        case Run() as run:
            return f"run {run.run} {run.hash} of the node {run.node}"
        case DeadLetter() as buried:
            return f"dead letter {buried.id} of the node {buried.node}"


def safe(text: str) -> str:
    """Return a text without what a terminal would obey."""
    return "".join(
        character if character.isprintable() or character == "\n" else f"\\x{ord(character):02x}"
        for character in text
    )


def one_line(text: str) -> str:
    """Return a text that makes no other line look like one of ours."""
    return safe(text).replace("\n", "\\n")


def _run(run: RunReport) -> Iterator[str]:
    node = f", node {run.known.node}" if run.known.node else ""
    yield f"run {safe(run.known.name)}{node}, {run.hash}"
    by = "by the reader's spool" if run.by_spool else "the highest number in any store"
    yield f"  {'accepted':9} {run.accepted:>8}  {by}"
    for name, store in run.stores.items():
        first, *more = _said(store)
        yield f"  {name:9} {store.count:>8}  {first}"
        yield from (_INDENT + line for line in more)
    if run.differing:
        yield f"  {'differ':9} {count(run.differing):>8}  {shown(run.differing)}"


def _said(store: StoreReport) -> Iterator[str]:
    if store.lacking:
        yield _numbers("missing", store.lacking)
    if store.doubled:
        yield _numbers("duplicate", store.doubled)
    if store.complete:
        yield "complete"
    if store.under_way:
        yield _numbers("under way", store.under_way)
    if store.dead:
        yield _numbers("dead letters", store.dead)
    if store.archived:
        yield f"{store.archived} of them archived"


def _numbers(what: str, ranges: list[Range]) -> str:
    return f"{what} {count(ranges)}: {shown(ranges)}"


def _reasons(reasons: Mapping[str, int]) -> str:
    listed = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
    return f"{sum(reasons.values()):>8}  {listed}".rstrip()


def _verdict(report: Report) -> str:
    wrong = [run for run in report.runs if run.is_wrong]
    if wrong:
        text = f"{_those(wrong, report)} not as accepted."
        if any(_is_elsewhere(run) for run in wrong):
            text += "  raven-verify --repair sends again what another store has."
        return text
    if waiting := [run for run in report.runs if not run.complete]:
        return f"{_those(waiting, report)} not complete yet: readings are under way."
    text = f"{_those(report.runs, report)} complete in {' and '.join(report.letters)}"
    if all(run.by_spool for run in report.runs):
        return f"{text}."
    return f"{text}, as far as stores know: a reader's own count is in its spool."


def _those(runs: list[RunReport], report: Report) -> str:
    if len(report.runs) == 1:
        return "The run is"
    if len(runs) == len(report.runs):
        return f"All {len(runs)} runs are"
    return f"{len(runs)} of {len(report.runs)} runs {'is' if len(runs) == 1 else 'are'}"


def _is_elsewhere(run: RunReport) -> bool:
    """Say whether another store has something that one lacks."""
    nowhere = [merged([*s.lacking, *s.under_way, *s.dead]) for s in run.stores.values()]
    return any(without(s.lacking, other) for s in run.stores.values() for other in nowhere)


def _store_json(store: StoreReport) -> dict[str, Any]:
    return {
        "count": store.count,
        "archived": store.archived,
        "complete": store.complete,
        "lacking": store.lacking,
        "doubled": store.doubled,
        "dead": store.dead,
        "under_way": store.under_way,
    }


def _payload(payload: bytes) -> Iterable[str]:
    try:
        return [f"  {line}" for line in safe(payload.decode()).splitlines()] or ["  (empty)"]
    except UnicodeDecodeError:
        rows = (payload[start : start + 16] for start in range(0, len(payload), 16))
        return [
            f"  {start * 16:06x}  {row.hex(' '):47}  {_ascii(row)}"
            for start, row in enumerate(rows)
        ]


def _ascii(row: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)  # noqa: PLR2004 - ASCII
