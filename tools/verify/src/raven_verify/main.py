"""The commands ``raven-verify``, ``raven-dead-letters`` and ``raven-status``."""

from __future__ import annotations

import argparse
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Final

import msgspec

from raven_verify import status, words
from raven_verify.letters import Letter, Replay, obstacle
from raven_verify.look import Look, Report, Wanted
from raven_verify.repair import Repair
from raven_verify.settings import VerifySettings
from raven_verify.spool import FILE
from ravenbus import service
from ravenbus.messages import Gone, StoreName, encode
from ravenbus.mqtt import Broker
from ravenbus.readback import Choice, Store
from ravenbus.service import EXIT_FAILED
from ravenbus.topics import GONE, Topics
from raventools.bus import Publication
from raventools.command import EXIT_USAGE, connected, run
from raventools.sending import Sender

NAME: Final = "raven-verify"
DEAD_LETTERS: Final = "raven-dead-letters"
STATUS: Final = "raven-status"

EXIT_LATER: Final = 75
"""EX_TEMPFAIL of sysexits.h."""

REPLAY_AT_ONCE: Final = 100
REPLAY_BYTES: Final = 8 * 2**20

STATUSES: Final = """\
exit status:
  0   every store has every reading once, and all stores say the same
  1   something lacks, is there twice, or differs
  69  a store, the spool or the broker cannot be reached
  75  nothing lacks, but readings are under way: look again later
  78  the settings cannot be used

"""

HOMES_STATUSES: Final = """\
exit status:
  0   every home was heard in the last ten minutes, and every store has what they said
  1   a home is silent, its reader or stick is away, or a store is behind or away
  69  the broker cannot be reached
  78  the settings cannot be used

"""


def main() -> int:
    """Run ``raven-verify``; return the exit status."""
    arguments = _verify_parser().parse_args()
    return _run(NAME, arguments, lambda s, stores: _verify(s, stores, arguments))


def dead_letters() -> int:
    """Run ``raven-dead-letters``; return the exit status."""
    parser = _letters_parser()
    arguments = parser.parse_args()
    if arguments.command is None and not arguments.check_config:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    commands = {"list": _list, "show": _show, "replay": _replay, "remove": _remove}
    return _run(
        DEAD_LETTERS, arguments, lambda s, st: commands[arguments.command](s, st, arguments)
    )


def homes() -> int:
    """Run ``raven-status``; return the exit status."""
    description = (
        "Say of each home when it was last heard, how its stick is, "
        "and whether the stores that are set have what it said."
    )
    parser = service.parser(STATUS, description, VerifySettings)
    parser.epilog = HOMES_STATUSES + (parser.epilog or "")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")
    arguments = parser.parse_args()
    return _run(STATUS, arguments, lambda s, stores: _homes(s, stores, as_json=arguments.json))


def _homes(settings: VerifySettings, stores: Sequence[Store], *, as_json: bool) -> int:
    broker = Broker.of(settings, client_id=f"{STATUS}-{uuid.uuid4().hex[:12]}")
    found = status.look(broker, Topics(settings.raven_topic_prefix), stores)
    now = datetime.now(UTC)
    print(status.as_json(found, now) if as_json else status.as_table(found, now))
    return 0 if status.are_well(found, now) else EXIT_FAILED


Command = Callable[[VerifySettings, Sequence[Store]], int]


def _run(name: str, arguments: argparse.Namespace, command: Command) -> int:
    """Run a command over the stores that the settings name."""

    def over_stores(settings: VerifySettings) -> int:
        with ExitStack() as stack:
            stores = [stack.enter_context(closing(store)) for store in settings.stores()]
            return command(settings, stores)

    return run(name, VerifySettings, arguments, over_stores)


# raven-verify


def _verify(
    settings: VerifySettings, stores: Sequence[Store], arguments: argparse.Namespace
) -> int:
    if arguments.gone:
        topics = Topics(settings.raven_topic_prefix)
        payload = encode(Gone(store=arguments.gone))
        with connected(NAME, settings, stores) as bus:
            bus.send([Publication(topics.of(GONE, store=arguments.gone), payload, retain=True)])
        print(
            f"said that {arguments.gone} is gone; who waits for it forgets it after a day's silence"
        )
        return 0
    state = settings.raven_state
    if state and not (state / FILE).exists():
        print(f"{NAME}: RAVEN_STATE: there is no spool in {state}", file=sys.stderr)
    look = Look(stores, state, contents=not arguments.quick)
    wanted = Wanted(arguments.run, arguments.node)
    report = look.look(wanted)
    if not report.runs and (arguments.run or arguments.node):
        print(f"{NAME}: no such run in {' or '.join(s.name for s in stores)}", file=sys.stderr)
        return EXIT_USAGE
    if arguments.repair and _lacking(report):
        with connected(NAME, settings, stores) as bus:
            repair = Repair(stores, Sender(bus, Topics(settings.raven_topic_prefix)))
            for one in report.runs:
                for repaired in repair.repair(one):
                    # On standard error, so that --json has one object on standard output.
                    print(words.of_repair(repaired), file=sys.stderr, flush=True)
        report = look.look(wanted)
    print(words.as_json(report) if arguments.json else words.of_report(report))
    if report.is_wrong:
        return EXIT_FAILED
    return 0 if report.complete else EXIT_LATER


def _lacking(report: Report) -> bool:
    return any(store.lacking for run in report.runs for store in run.stores.values())


def _verify_parser() -> argparse.ArgumentParser:
    description = (
        "Say for each run what the stores that are set hold of what the reader accepted, "
        "and with --repair send again what one of them lacks."
    )
    parser = service.parser(NAME, description, VerifySettings)
    parser.epilog = STATUSES + (parser.epilog or "")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="send again over MQTT what a store lacks while another has it, and wait until it is there",
    )
    parser.add_argument(
        "--gone",
        metavar="STORE",
        type=_store,
        help="say to every reader and relay that a store, by its client id, is gone for good",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="compare the numbers alone, not what the stores say of each reading",
    )
    parser.add_argument("--run", metavar="NAME|HASH", help="look at this run alone")
    parser.add_argument("--node", help="look at the runs of this node alone")
    return parser


# raven-dead-letters


def _list(_: VerifySettings, stores: Sequence[Store], arguments: argparse.Namespace) -> int:
    choice = Choice(arguments.reason, arguments.service, arguments.since)
    counts: Counter[str] = Counter()
    for store in stores:
        for letter in store.letters(choice):
            if not counts and not arguments.json:
                print(words.LETTER_HEAD)
            counts[store.name] += 1
            print(
                encode(letter).decode() if arguments.json else words.letter_line(store.name, letter)
            )
    if not arguments.json:
        listed = ", ".join(f"{counts[store.name]} in {store.name}" for store in stores)
        print(f"\n{listed}" if counts else f"No dead letters: {listed}.")
    return 0


def _show(_: VerifySettings, stores: Sequence[Store], arguments: argparse.Namespace) -> int:
    found = _called(stores, arguments.ids)
    if found is None:
        return EXIT_FAILED
    if arguments.json:
        letters = {one.letter.id: one.letter for one in found}
        print("\n".join(encode(letter).decode() for letter in letters.values()))
    else:
        print("\n\n".join(words.of_letter(one.store.name, one.letter) for one in found))
    return 0


def _replay(
    settings: VerifySettings, stores: Sequence[Store], arguments: argparse.Namespace
) -> int:
    if not (arguments.ids or arguments.reason or arguments.all):
        print(f"{DEAD_LETTERS}: say which: ID…, --reason REASON or --all", file=sys.stderr)
        return EXIT_USAGE
    chosen: Iterable[Letter] | None
    if arguments.ids:
        chosen = _called(stores, arguments.ids)
    else:
        choice = Choice(arguments.reason)
        chosen = (Letter(store, one) for store in stores for one in store.letters(choice))
    if chosen is None:
        return EXIT_FAILED
    if not arguments.yes:
        return _shown(chosen, Topics(settings.raven_topic_prefix))
    counts: Counter[bool] = Counter()
    with connected(NAME, settings, stores) as bus:
        replay = Replay(bus, Topics(settings.raven_topic_prefix))
        for batch in _batches(chosen):
            for (store, letter), stored, detail in replay.replay(batch):
                counts[stored] += 1
                said = detail if stored else f"stays: {detail}"
                print(
                    f"{letter.id[: words.ID_DIGITS]}  {store.name:7}  {words.safe(said)}",
                    flush=True,
                )
    print(f"\n{counts[True]} replayed and removed, {counts[False]} stay")
    return EXIT_FAILED if counts[False] else 0


def _shown(letters: Iterable[Letter], topics: Topics) -> int:
    """Print what a replay would send, and in whose name."""
    would = stay = 0
    for store, letter in letters:
        why = obstacle(letter, topics)
        would, stay = would + (not why), stay + bool(why)
        said = f"stays: {why}" if why else words.of_message(topics, letter)
        print(f"{letter.id[: words.ID_DIGITS]}  {store.name:7}  {words.one_line(said)}")
    print(f"\nNothing is sent yet: --yes sends {would} again, {stay} stay")
    return 0


def _remove(_: VerifySettings, stores: Sequence[Store], arguments: argparse.Namespace) -> int:
    found = _called(stores, arguments.ids)
    if found is None:
        return EXIT_FAILED
    for store, letter in found:
        store.remove(letter.id)
        print(f"{letter.id[: words.ID_DIGITS]}  {store.name:7}  removed", flush=True)
    return 0


def _called(stores: Sequence[Store], prefixes: Sequence[str]) -> list[Letter] | None:
    """Return the letters with such ids in every store, None after saying which id is wrong."""
    found: list[Letter] = []
    for prefix in prefixes:
        here = [Letter(s, one) for s in stores for one in s.letters_called(prefix)]
        if len({one.letter.id for one in here}) != 1:
            why = "is the beginning of more than one id" if here else "is no dead letter's id"
            print(f"{DEAD_LETTERS}: {prefix} {why}", file=sys.stderr)
            return None
        found += here
    return found


def _batches(letters: Iterable[Letter]) -> Iterator[list[Letter]]:
    """Yield letters in batches of a bounded number and size."""
    batch: list[Letter] = []
    size = 0
    for one in letters:
        batch.append(one)
        size += len(one.letter.payload)
        if len(batch) == REPLAY_AT_ONCE or size >= REPLAY_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _letters_parser() -> argparse.ArgumentParser:
    description = "Look at what could not be accepted or stored, and replay it once that is mended."
    parser = service.parser(DEAD_LETTERS, description, VerifySettings)
    sub = parser.add_subparsers(dest="command", metavar="COMMAND")
    command = sub.add_parser("list", help="list them, oldest first")
    command.add_argument("--reason", help="with this reason alone")
    command.add_argument("--service", help="buried by this service alone")
    command.add_argument(
        "--since",
        type=_time,
        metavar="TIME",
        help="from this time on, as 2026-03-01 or 2026-03-01T12:00, UTC",
    )
    command.add_argument(
        "--json", action="store_true", help="one JSON object a line, payload in base64"
    )
    command = sub.add_parser("show", help="show all of a letter")
    command.add_argument("ids", nargs="+", type=_id, metavar="ID", help="its id, or how it begins")
    command.add_argument(
        "--json", action="store_true", help="one JSON object a line, payload in base64"
    )
    command = sub.add_parser(
        "replay", help="send the originals again, and remove each letter whose store has it then"
    )
    which = command.add_mutually_exclusive_group()
    which.add_argument("ids", nargs="*", default=[], type=_id, metavar="ID", help="these letters")
    which.add_argument("--reason", help="all with this reason")
    which.add_argument("--all", action="store_true", help="all")
    command.add_argument(
        "--yes", action="store_true", help="send them; without it, only show what would be sent"
    )
    command = sub.add_parser(
        "remove", help="forget letters for good, as those that `raven-reader replay` accepted"
    )
    command.add_argument("ids", nargs="+", type=_id, metavar="ID", help="its id, or how it begins")
    return parser


def _store(text: str) -> str:
    try:
        return msgspec.convert(text, StoreName)
    except msgspec.ValidationError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no store: allowed is its client id, as raven-mongo-recorder"
        ) from None


def _id(text: str) -> str:
    if not text or not set(text) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is no id: allowed are digits and a to f")
    return text


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time as 2026-03-01T12:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
