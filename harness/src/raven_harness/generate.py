"""Writes what is made: docs/contract, docs/configuration.md, docs/licences.md, names of settings.

``--check`` writes nothing and ends with status 1, naming the files that are out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from raven_backup.settings import BackupSettings
from raven_dashboard.settings import DashboardSettings
from raven_export.settings import ExportSettings
from raven_harness import licences
from raven_mongo_recorder.settings import RecorderSettings
from raven_reader.settings import ReaderSettings
from raven_sql_relay.settings import RelaySettings
from raven_sql_writer.settings import WriterSettings
from raven_verify.settings import VerifySettings
from ravenbus import contract
from ravenbus.messages import (
    Command,
    Confirmation,
    DeadLetter,
    Envelope,
    Gone,
    Message,
    Raw,
    Reading,
    Reply,
    Run,
    Status,
    encode,
)
from ravenbus.notifications import CurrentSummationDelivered, InstantaneousDemand
from ravenbus.settings import NAMES, Setting, Settings, settings_of
from ravenbus.topics import (
    CHANNELS,
    COMMAND,
    GONE,
    LATEST,
    RAW,
    READING,
    REJECTED,
    REPLY,
    RUN,
    STATUS,
    STORED,
    Channel,
    Topics,
)

DOCS: Final = Path(__file__).resolve().parents[3] / "docs"
CONTRACT: Final = DOCS / "contract"
CONFIGURATION: Final = DOCS / "configuration.md"
LICENCES: Final = DOCS / "licences.md"
NAMES_FILE: Final = DOCS.parent / "libs" / "ravenbus" / "src" / "ravenbus" / NAMES

SERVICES: Final[dict[str, type[Settings]]] = {
    "reader": ReaderSettings,
    "mongo-recorder": RecorderSettings,
    "sql-writer": WriterSettings,
    "sql-relay": RelaySettings,
    "dashboard": DashboardSettings,
    "verify": VerifySettings,
    "export": ExportSettings,
    "backup": BackupSettings,
}
"""The services in the order of the page, with their settings."""


def main() -> int:
    """Write the files, or check them; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which are out of date")
    check = parser.parse_args().check
    stale = out_of_date()
    for path in stale:
        name = path.relative_to(DOCS.parent)
        print(f"{name} is out of date: run `make docs`" if check else name, file=sys.stderr)
    if check:
        return 1 if stale else 0
    made = files()
    for path in stale:
        if path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path], encoding="utf-8")
        else:
            path.unlink()
    return 0


def out_of_date() -> list[Path]:
    """Return the files that differ from what the code makes, with those it makes no longer."""
    made = files()
    stale = [path for path, text in made.items() if _read(path) != text]
    return stale + [path for path in sorted(CONTRACT.glob("*")) if path not in made]


def files() -> dict[Path, str]:
    """Return the text of every generated file."""
    found = {
        CONTRACT / contract.schema_file(name): _json(schema)
        for name, schema in contract.schemas().items()
    }
    found[CONTRACT / "asyncapi.json"] = _json(contract.asyncapi())
    found[CONTRACT / "README.md"] = contract_page()
    found[CONFIGURATION] = configuration_page()
    found[LICENCES] = licences_page()
    found[NAMES_FILE] = names()
    return found


def names() -> str:
    """Return the names of all services' settings, one a line."""
    found = [setting for service in SERVICES.values() for setting in settings_of(service)]
    made = {one.name for one in found} | {f"{one.name}_FILE" for one in found if one.secret}
    return "".join(f"{name}\n" for name in sorted(made))


def contract_page() -> str:
    """Return the page that explains the contract to those who consume it."""
    channels = _table(
        ("Topic", "Retained", "Sent by", "What"),
        (
            (
                f"`{_angled(channel.address)}`",
                "yes" if channel.retained else "no",
                ", ".join(channel.senders) or "you",
                f"{channel.about}  {_schema_links(channel)}",
            )
            for channel in CHANNELS
        ),
    )
    kinds = _table(
        ("Kind", "What"),
        (
            (
                f"[`{name.removeprefix('reading.')}`]({contract.schema_file(name)})",
                contract.schemas()[name]["description"].splitlines()[0],
            )
            for name in contract.READINGS
        ),
    )
    shown = "\n".join(
        f"On `{topic}`:\n\n```json\n{msgspec.json.format(payload, indent=2).decode()}\n```\n"
        for topic, payload in examples().items()
    )
    return f"{_CONTRACT}\n{channels}\n{_RULES}\n{kinds}\n{_EXAMPLES}\n{shown}"


def configuration_page() -> str:
    """Return the page of all environment variables, each once with the services that have it."""
    every = {name: settings_of(settings) for name, settings in SERVICES.items()}
    sections: dict[tuple[str, ...], list[Setting]] = {}
    for one in (setting for found in every.values() for setting in found):
        having = tuple(name for name, found in every.items() if one in found)
        section = sections.setdefault(having, [])
        if one not in section:
            section.append(one)
    text = [_CONFIGURATION]
    for names in sorted(sections, key=len, reverse=True):
        title = "Every service" if names == tuple(every) else ", ".join(names)
        text += [f"## {title}\n", _settings_table(sections[names])]
    return "\n".join(text)


def licences_page() -> str:
    """Return the page of packages in the images that others made."""
    rows = licences.rows(DOCS.parent)
    return f"{_LICENCES}\n{_table(('Package', 'Version', 'Licence', 'In the image of'), rows)}"


def examples() -> dict[str, bytes]:
    """Return a message of each form by its topic, as the services encode them."""
    topics = Topics()
    run = "5f0c4b1e-8a4d-4c1b-9d3e-2b7a60c3f1d9"
    device, meter = "d8d5b90000001234", "0013500100abcdef"
    at = datetime(2026, 1, 15, 18, 30, 5, tzinfo=UTC)
    received = at.replace(microsecond=412000)
    demand = InstantaneousDemand(
        device=device,
        meter=meter,
        time=at,
        demand=1437,
        multiplier=1,
        divisor=1000,
        demand_kw=1.437,
        digits_right=3,
        digits_left=15,
        suppress_leading_zero=True,
    )
    summation = CurrentSummationDelivered(
        device=device,
        meter=meter,
        time=None,
        summation_delivered=156789012,
        summation_received=None,
        multiplier=1,
        divisor=1000,
        delivered_kwh=156789.012,
        received_kwh=None,
    )
    node = "cellar"
    first = Envelope(node=node, run="winter", hash=run, seq=1, received=received)
    second = Envelope(node=node, run="winter", hash=run, seq=2, received=received)
    damaged = b"<InstantaneousDemand><Demand>0x12g4</Demand></InstantaneousDemand>"
    sent: dict[str, Reading | Message] = {
        topics.of(READING, node=node, kind="instantaneous_demand"): Reading(first, demand),
        topics.of(LATEST, node=node, kind="current_summation_delivered"): Reading(
            second, summation
        ),
        topics.of(RUN, node=node): Run(node=node, run="winter", hash=run, started=at, meter=meter),
        topics.of(STATUS, node=node): Status(
            node=node,
            service="online",
            device="connected",
            since=at,
            port="/dev/ttyUSB0",
            version="1.1.0",
        ),
        topics.of(COMMAND, node=node): Command(
            id="42", name="get_instantaneous_demand", parameters={"Refresh": "Y"}
        ),
        topics.of(REPLY, node=node): Reply(
            node=node,
            id="42",
            name="get_instantaneous_demand",
            sent=True,
            detail="sent to the device; its answer is a reading",
        ),
        topics.of(RAW, node=node): Raw(
            node=node, received=received, fragment="<Warning><Text>Unknown command</Text></Warning>"
        ),
        topics.of(REJECTED, node=node): DeadLetter(
            id="9b2d6c0f4e8a4b0d8f3c5a7e1d2b4c6f",
            service="reader",
            node=node,
            at=received,
            reason="bad-value",
            detail="<demand> in <instantaneousdemand>: '0x12g4' is not a hexadecimal number",
            payload=damaged,
            size=len(damaged),
        ),
        topics.of(STORED, node=node, store="raven-mongo-recorder"): Confirmation(
            node=node,
            store="raven-mongo-recorder",
            runs={"5f0c4b1e-8a4d-4c1b-9d3e-2b7a60c3f1d9": [(1, 4711), (4713, 4713)]},
            letters=["9b2d6c0f4e8a4b0d8f3c5a7e1d2b4c6f"],
        ),
        topics.of(GONE, store="raven-sql-writer"): Gone(store="raven-sql-writer"),
    }
    return {topic: encode(message) for topic, message in sent.items()}


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _angled(address: str) -> str:
    return re.sub(r"{(\w+)}", r"<\1>", address)


def _schema_links(channel: Channel[Any]) -> str:
    if channel.message is Reading:
        return "Schema: [one for each kind](#kinds-of-readings)"
    names = [name for name in contract.messages_of(channel) if name in contract.schemas()]
    return ", ".join(f"Schema: [{name}]({contract.schema_file(name)})" for name in names)


def _settings_table(settings: Iterable[Setting]) -> str:
    return _table(
        ("Variable", "Meaning", "Allowed", "Default"),
        (
            (
                f"`{setting.name}`" + (f" or `{setting.name}_FILE`" if setting.secret else ""),
                setting.description,
                re.sub(r"(?<=text that matches )(.+)", r"`\1`", setting.allowed),
                "required" if setting.required else _typed(setting.default),
            )
            for setting in settings
        ),
    )


def _typed(value: Any) -> str:
    """Return a default as one would type it."""
    match value:
        case None:
            return "not set"
        case bool():
            return f"`{str(value).lower()}`"
        case float():
            return f"`{value:.12g}`"
    # A URL prints without its account and database; its text is what one types.
    return f"`{getattr(value, 'text', value)}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    # The topic prefix's pattern holds the character itself, which would make the file binary.
    return text.strip().replace("|", r"\|").replace("\x00", r"\x00")


_CONTRACT: Final = """\
# The contract on the bus, version 1

Every message of ours is one JSON object, sent with QoS 1; confirmations with QoS 0.
[asyncapi.json](asyncapi.json) describes the topics (AsyncAPI 3.0), and the files `*.schema.json` the messages (JSON Schema 2020-12).
Everything in this folder is made from the code by `make docs`.

## Topics

`<prefix>` is `RAVEN_TOPIC_PREFIX`, by default `raven`, and `<node>` the name of a reader (`RAVEN_NODE`).
`<homeassistant>` is `RAVEN_HOMEASSISTANT_PREFIX`.
"You" are Home Assistant or a program of yours.
"""

_RULES: Final = """\
## Rules

**Identity.**
A reading is identified by `(hash, seq)`: `hash` is the UUID of its run, and `seq` counts the run's readings from 1 without gaps.
A reading may come more than once, each time with the same identity and content: store it under its identity.
Nothing is missing from a run when as many readings are stored as the highest `seq` says.
A dead letter is identified by its `id`.

**Latest.**
What is retained comes again with each connection, so `latest` has `heard` too: when the device said it last.
A report that only repeats the reading changes `heard`, and nothing else.

**Null.**
`null` means that the device said nothing, or sent the number that stands for nothing; it never means zero.
Our services send every field; one that a schema does not require may be missing in what others send, and then means the default that the schema names.

**Numbers.**
`demand`, `summation_delivered` and other names without a unit hold the integer that the device sent.
Names with a unit hold the scaled value: `demand_kw = demand * multiplier / divisor`, where a zero counts as one, and `price_per_kwh = price / 10 ** trailing_digits`.
Without its scale a scaled value is `null`.
Some integers have 64 bits; a program that reads every number as a double rounds them above 2^53.

**Times.**
All times are UTC and end in `Z`, with up to six decimals.
`time` is the device's clock, `null` where it is not set or cannot be true; `claimed_time` is then what it said.
`received` is the clock of the reader's host.

**Topic and payload agree.**
The node and the kind in a topic are those of the payload; what contradicts itself is refused.

**Later in version 1.**
Fields and kinds may be added.
A consumer has to ignore fields that it does not know, and to set aside kinds that it does not know; our stores keep such readings as dead letters.
Nothing is renamed or removed, and nothing changes its type, unit or meaning.
A command is the exception: an unknown field in it is refused, because a request that is half understood must not reach the device.

**After version 1.**
Any other change is version 2: its messages say `"v": 2` and have topics of their own under `<prefix>/v2/`, so that consumers of version 1 see none of them.
A message of another version on a topic of version 1 becomes a dead letter with the reason `contract-version`.

## Kinds of readings
"""

_EXAMPLES: Final = """\
## Examples
"""

_CONFIGURATION: Final = """\
# Configuration

Services are configured by environment variables.
A variable that is empty, or whose file is, counts as not set.
Where two names stand in a row, the second holds the path of a file to read the value from, as container secrets need it; the first wins if both are set.
User and password in a URL are percent-encoded: `p@ss` is written `p%40ss`.

A service that is told something wrong does not start: it names every problem at once, with what was held and what is allowed, and ends with status 78.
`--check-config` does that and no more; status 0 means that the settings can be used.
A name that no service has, as `RAVEN_DEVCE`, is an error for `--check-config` and a warning at the start, with the name that it is nearest to.
This page is made from the code by `make docs`.
"""

_LICENCES: Final = """\
# Licences of what the images contain

This page is made from the locks by `make docs`.

python-raven is under the [Apache licence 2.0](../LICENSE).
Each image has that text and this page in `/usr/share/doc/python-raven`.

| What else | Licence | Its text in the image |
|---|---|---|
| Debian's packages | each its own | `/usr/share/doc/*/copyright` |
| Python | PSF-2.0 | `/usr/local/lib/python3.*/LICENSE.txt` |
| Python packages, listed below | each its own | `/opt/raven/lib/python3.*/site-packages/*.dist-info` |

The first two come with the image of Python that all of ours stand on.
Two bring no text: pyserial, whose sources say BSD-3-Clause, and dygraphs.
In dygraphs are the JavaScript libraries dygraphs and Moment, both MIT.
In the wheels of cryptography are OpenSSL (Apache-2.0) and libraries in Rust, which `sboms` there lists.

The images of Mosquitto, MySQL and MongoDB are not ours: Compose pulls them from where their makers publish them, under their licences.

## Python packages
"""


if __name__ == "__main__":
    sys.exit(main())
