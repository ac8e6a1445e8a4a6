"""The commands ``raven-export`` and ``raven-import``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from raven_export import files, formats, spans, steps
from raven_export.columns import Row, Table
from raven_export.files import STDIO, UsageError
from raven_export.importing import Outcome, take_in
from raven_export.legacy import Legacy
from raven_export.notes import Notes, Tally, beside, encoded
from raven_export.output import whole
from raven_export.progress import Progress
from raven_export.settings import ExportSettings
from ravenbus import service
from ravenbus.errors import ContractError
from ravenbus.history import DEMAND, SUMMATION, History, Step
from ravenbus.messages import Node
from ravenbus.notifications import KINDS, Eui64
from ravenbus.ranges import count, shown
from ravenbus.service import EXIT_FAILED
from ravenbus.settings import TimeZone
from ravenbus.topics import Topics
from raventools.command import EXIT_USAGE, connected, run
from raventools.sending import Sender

NAME: Final = "raven-export"
IMPORT: Final = "raven-import"

# raven-export


def main() -> int:
    """Run ``raven-export``; return the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return _run(NAME, _export_parser(), _export)


class _Chosen(NamedTuple):
    """What to export, and the file and its format."""

    kinds: list[str]
    nodes: list[str] | None
    start: datetime
    end: datetime
    step: Step
    zone: ZoneInfo
    format: str
    file: str


def _export(settings: ExportSettings, arguments: argparse.Namespace) -> int:
    chosen = _chosen(settings, arguments)
    with closing(_store(settings, arguments.store)) as store, files.opened(chosen.file) as file:
        table = Table(chosen.kinds)
        columns = table.columns if chosen.step is Step.RAW else steps.COLUMNS
        writer = files.writer(chosen.format, file, columns)
        tally = Tally()
        rows = empty = 0
        nodes: set[str] = set()
        with closing(Progress(sys.stderr, chosen.start, chosen.end)) as progress:
            for row in _rows(store, chosen, table, tally):
                writer.write(row)
                rows += 1
                nodes.add(row[steps.NODE])
                empty += chosen.step is not Step.RAW and not row[steps.READINGS]
                progress.at(row[0], rows)
        _require_known(store, set(chosen.nodes or ()) - nodes)
        runs = tally.runs(store)
        notes = Notes(
            start=chosen.start,
            end=chosen.end,
            step=chosen.step.value,
            kinds=chosen.kinds,
            nodes=chosen.nodes,
            columns={column.name: column.type.value for column in columns},
            rows=rows,
            empty=empty,
            complete=not empty and all(one.complete for one in runs),
            runs=runs,
        )
        writer.close(notes)
        if chosen.file != STDIO and not writer.has_notes:
            with whole(beside(Path(chosen.file))) as its_notes:
                its_notes.write(encoded(notes))
    _say(store, notes)
    return 0


def _rows(store: History, chosen: _Chosen, table: Table, tally: Tally) -> Iterator[Row]:
    if chosen.step is not Step.RAW:
        yield from steps.rows(store, *chosen[1:6])
        return
    for reading in store.span(*chosen[:4]):
        tally.add(reading)
        yield table.row(reading)


def _require_known(store: History, nodes: set[str]) -> None:
    """Raise UsageError for nodes that the store does not know."""
    if nodes:
        known = {one.node for one in store.runs().values()}
        if unknown := sorted(nodes - known):
            there = ", ".join(sorted(known)) or "none"
            raise UsageError(f"{store.name} has no node {', '.join(unknown)}: it has {there}")


def _chosen(settings: ExportSettings, arguments: argparse.Namespace) -> _Chosen:
    if not (arguments.start and arguments.end and arguments.file):
        raise UsageError("say --from, --to and FILE (- for standard output)")
    zone = arguments.time_zone or settings.raven_time_zone
    try:
        start, end = spans.first(arguments.start, zone), spans.end(arguments.end, zone)
    except (ValueError, OverflowError) as error:
        raise UsageError(str(error)) from error
    if start >= end:
        raise UsageError(f"--to {arguments.end} is not after --from {arguments.start}")
    step = Step(arguments.step)
    if step is not Step.RAW and arguments.kind:
        raise UsageError(f"--step {step.value} is of demand and energy: leave --kind out")
    named = [DEMAND, SUMMATION] if step is not Step.RAW else arguments.kind
    kinds = [kind for kind in KINDS if not named or kind in named]
    nodes = sorted(set(arguments.node)) if arguments.node else None
    format_ = files.format_of(arguments.file, arguments.format)
    return _Chosen(kinds, nodes, start, end, step, zone, format_, arguments.file)


def _store(settings: ExportSettings, name: str | None) -> History:
    stores = settings.stores(settings.raven_sql_archive, settings.raven_mongo_archive)
    every = {store.name.lower(): store for store in stores}
    if name is None and len(every) == 1:
        name = next(iter(every))
    if name is None or name.lower() not in every:
        said = "several stores are set" if name is None else f"there is no store {name}"
        raise UsageError(f"{said}: say --store {' or '.join(s.name for s in every.values())}")
    return every[name.lower()]


def _say(store: History, notes: Notes) -> None:
    """Say on standard error what was written and what is missing of it."""
    if notes.step == Step.RAW.value:
        said = f"{notes.rows:,} readings of {len(notes.runs)} runs"
    else:
        said = f"{notes.rows:,} steps, {notes.empty:,} without a reading,"
    print(f"{said} from {store.name}", file=sys.stderr)
    for one in notes.runs:
        if one.missing:
            lacks = f"lacks {count(one.missing)}: {shown(one.missing)}"
            print(f"run {one.hash} of the node {one.node} {lacks}", file=sys.stderr)


def _export_parser() -> argparse.ArgumentParser:
    description = (
        "Write the readings that a store has, sorted by time, as a table: a row for each\n"
        "reading, a column for each field, times in UTC.  Beside a CSV and JSON lines,\n"
        "FILE.json says which runs are complete and what is missing; Parquet says it in\n"
        "its metadata."
    )
    parser = service.parser(NAME, description, ExportSettings)
    parser.add_argument(
        "--from",
        dest="start",
        metavar="TIME",
        help=f"the first time: {spans.ALLOWED}; without an offset it is in the time zone",
    )
    parser.add_argument(
        "--to",
        dest="end",
        metavar="TIME",
        help="the last month or day, which is included, or the time before which to end",
    )
    of_nodes = parser.add_mutually_exclusive_group()
    of_nodes.add_argument(
        "--node", action="append", metavar="NAME", help="of this home; may be given again"
    )
    of_nodes.add_argument("--all", action="store_true", help="of all homes, which is the default")
    parser.add_argument(
        "--kind",
        action="append",
        choices=list(KINDS),
        metavar="KIND",
        help=f"of this kind; may be given again; default: all ({', '.join(KINDS)})",
    )
    parser.add_argument(
        "--step",
        choices=[step.value for step in steps.STEPS],
        default=Step.RAW.value,
        help="raw is each reading, the default; else demand and energy of each meter by this, "
        "where hours and days are those of the time zone",
    )
    _add_format(parser)
    parser.add_argument(
        "--store", metavar="NAME", help="from this store, MySQL or MongoDB, if both are set"
    )
    _add_time_zone(parser)
    _add_file(parser, "where to write; - is standard output")
    return parser


# raven-import


def import_() -> int:
    """Run ``raven-import``; return the exit status."""
    return _run(IMPORT, _import_parser(), _import)


def _import(settings: ExportSettings, arguments: argparse.Namespace) -> int:
    if not arguments.file:
        raise UsageError("say FILE (- for standard input)")
    zone = arguments.time_zone or settings.raven_time_zone
    legacy = Legacy(arguments.node, arguments.meter, zone) if arguments.node else None
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(store)) for store in settings.stores()]
        format_ = files.format_of(arguments.file, arguments.format)
        items = stack.enter_context(files.items(arguments.file, format_, legacy))
        bus = stack.enter_context(connected(IMPORT, settings, stores))
        sender = Sender(bus, Topics(settings.raven_topic_prefix))
        try:
            outcome = take_in(items, stores, sender)
        except (ContractError, ValueError) as error:
            print(f"{IMPORT}: {arguments.file}: {error}", file=sys.stderr)
            return EXIT_FAILED
    _tell(outcome, legacy.placeholders if legacy else 0)
    return 0 if outcome.complete else EXIT_FAILED


def _tell(outcome: Outcome, placeholders: int) -> None:
    """Say what became of each reading."""
    print(f"{outcome.readings:,} readings in the file")
    for store, stored in outcome.stored.items():
        buried = outcome.buried[store]
        there = outcome.readings - outcome.differing - stored - buried
        print(f"{store}: {stored:,} stored, {there:,} were there already, {buried:,} buried")
    if placeholders:
        print(f"{placeholders:,} rows left out: a script of python-raven made them up")
    if outcome.differing:
        print(
            f"{outcome.differing:,} not sent: another reading has the same number of the same run"
        )


def _import_parser() -> argparse.ArgumentParser:
    description = (
        "Publish the readings of a file on the bus, and wait until each store that is\n"
        "set has them.  What raven-export wrote keeps its runs and numbers; python-raven's\n"
        "CSV gets runs of its own.  A file that is imported again changes nothing."
    )
    parser = service.parser(IMPORT, description, ExportSettings)
    _add_format(parser)
    parser.add_argument(
        "--node",
        metavar="NAME",
        type=_typed(Node, "1 to 64 letters, digits, _ or -"),
        help="the file is python-raven's own CSV (time, demand, multiplier, divisor, run), of this home",
    )
    parser.add_argument(
        "--meter",
        metavar="EUI64",
        type=_typed(Eui64, "16 lower-case hex digits"),
        help="the meter that python-raven's CSV is of",
    )
    _add_time_zone(parser)
    _add_file(parser, "what to read; - is standard input")
    return parser


# Both


def _run(
    name: str,
    parser: argparse.ArgumentParser,
    command: Callable[[ExportSettings, argparse.Namespace], int],
) -> int:
    arguments = parser.parse_args()
    try:
        return run(name, ExportSettings, arguments, lambda settings: command(settings, arguments))
    except UsageError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_FAILED


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=formats.FORMATS,
        help="default: by the name of the file, or csv; parquet needs the extra parquet",
    )


def _add_file(parser: argparse.ArgumentParser, about: str) -> None:
    # --check-config needs none.
    parser.add_argument("file", nargs="?", metavar="FILE", help=about)


def _add_time_zone(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--time-zone",
        metavar="NAME",
        type=_zone,
        help="the zone of times without an offset; default: RAVEN_TIME_ZONE",
    )


def _zone(text: str) -> TimeZone:
    try:
        return TimeZone(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time zone: allowed is {error}") from None


def _typed(kind: Any, allowed: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        try:
            return str(msgspec.convert(text, kind))
        except msgspec.ValidationError:
            raise argparse.ArgumentTypeError(f"{text!r}: allowed is {allowed}") from None

    return convert
