"""The published contract: a JSON Schema for each message, and AsyncAPI for the whole bus.

Both are made from the types that the services encode and decode with.
Each kind of reading has a schema of its own, a flat object without references to other files: a
topic carries one kind, and code generators of any language make a plain record of such a schema,
where a choice among all kinds becomes a union that many of them cannot make.

The schemas say what is sent.  The decoder takes UTC in other spellings too (``+00:00``), and it
refuses two things that a schema cannot: an integer written as ``1.0``, and base64 of a wrong length.
"""

from __future__ import annotations

import re
from functools import cache
from inspect import cleandoc
from typing import Any, Final, NamedTuple

import msgspec

from ravenbus.messages import (
    CONTRACT_VERSION,
    Command,
    Confirmation,
    DeadLetter,
    Envelope,
    Gone,
    Raw,
    Reply,
    Run,
    Status,
)
from ravenbus.notifications import KINDS
from ravenbus.topics import HOMEASSISTANT_STATUS, Topics

Json = dict[str, Any]

READER: Final = "reader"
STORE: Final = "store"
RELAY: Final = "sql-relay"
VERIFY: Final = "raven-verify"

READINGS: Final = tuple(f"reading.{kind}" for kind in KINDS)
"""The names of the readings' schemas."""


class Channel(NamedTuple):
    """Topics of one form: what goes there, from whom and to which of our services."""

    name: str
    address: str
    about: str
    messages: tuple[str, ...]
    senders: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()
    retained: bool = False
    qos: int = 1


_topics: Final = Topics("{prefix}")
_node: Final = "{node}"

CHANNELS: Final = (
    Channel(
        "reading",
        _topics.reading(_node, "{kind}"),
        "Every reading, at least once: the event stream that stores consume.",
        READINGS,
        senders=(READER, RELAY),
        receivers=(STORE,),
    ),
    Channel(
        "latest",
        _topics.latest(_node, "{kind}"),
        "The last reading of a kind, for people and dashboards.",
        READINGS,
        senders=(READER,),
        retained=True,
    ),
    Channel(
        "run",
        _topics.of_node(_node, "run"),
        "The run under way; what a relay sends is not retained.",
        ("run",),
        senders=(READER, RELAY),
        receivers=(STORE,),
        retained=True,
    ),
    Channel(
        "status",
        _topics.of_node(_node, "status"),
        "State of the reader and its stick; the reader's will says that it is offline.",
        ("status",),
        senders=(READER,),
        retained=True,
    ),
    Channel(
        "command",
        _topics.of_node(_node, "command"),
        "Requests to the device; those that change it are refused unless RAVEN_ALLOW_SETTERS.",
        ("command",),
        receivers=(READER,),
    ),
    Channel(
        "reply",
        _topics.of_node(_node, "reply"),
        "What became of each command.",
        ("reply",),
        senders=(READER,),
    ),
    Channel(
        "raw",
        _topics.of_node(_node, "raw"),
        "Whole fragments as the device sent them; only with RAVEN_PUBLISH_RAW.",
        ("raw",),
        senders=(READER,),
    ),
    Channel(
        "rejected",
        _topics.of_node(_node, "dead"),
        "What a reader could not accept.",
        ("dead-letter",),
        senders=(READER,),
        receivers=(STORE,),
    ),
    Channel(
        "dead",
        _topics.dead("{service}"),
        "What a store could not store, and what readers before 1.1 could not accept.",
        ("dead-letter",),
        senders=(STORE,),
        receivers=(STORE,),
    ),
    Channel(
        "stored",
        _topics.confirmation(_node, "{store}"),
        "What a store has of a node's, sent with QoS 0; who sent it forgets it then.",
        ("confirmation",),
        senders=(STORE,),
        receivers=(READER, RELAY),
        qos=0,
    ),
    Channel(
        "gone",
        _topics.gone("{store}"),
        "That a store is gone for good, until it starts again.",
        ("gone",),
        senders=(VERIFY, STORE),
        receivers=(READER, RELAY),
        retained=True,
    ),
    Channel(
        "homeassistantDiscovery",
        _topics.discovery(_node),
        "Home Assistant's device discovery; in Home Assistant's format.",
        ("homeassistant-discovery",),
        senders=(READER,),
        retained=True,
    ),
    Channel(
        "homeassistantStatus",
        HOMEASSISTANT_STATUS,
        "Sent by Home Assistant: after its start it is told of the device again.",
        ("homeassistant-status",),
        receivers=(READER,),
    ),
)
"""Every form of topic, readings first."""


def schema_for(topic: str, topics: Topics) -> Json | None:
    """Return the JSON Schema of what a topic carries; None if the topic is not of the contract.

    The schema is shared: it must not be changed.
    """
    try:
        parts = topics.parse(topic)
    except ValueError:
        return None
    match parts:
        case "gone", store, "":
            return schemas()["gone"] if store else None
        case "dead", _, kind:
            return None if kind else schemas()["dead-letter"]
        case _, "stored", store:
            return schemas()["confirmation"] if store else None
        case _, "reading" | "latest", kind:
            return schemas().get(f"reading.{kind}")
        case _, "dead", "":
            return schemas()["dead-letter"]
        case _, "run" | "status" | "command" | "reply" | "raw" as leaf, "":
            return schemas()[leaf]
    return None


@cache
def schemas() -> dict[str, Json]:
    """Return every message's JSON Schema (2020-12) by its name; they must not be changed.

    A reading's name is ``reading.<kind>``.
    """
    found = {f"reading.{kind}": _schema(Envelope, of) for kind, of in KINDS.items()}
    found |= {
        "run": _schema(Run),
        "status": _schema(Status),
        "dead-letter": _schema(DeadLetter),
        "confirmation": _schema(Confirmation),
        "gone": _schema(Gone),
        "command": _schema(Command),
        "reply": _schema(Reply),
        "raw": _schema(Raw),
    }
    return found


def schema_file(name: str) -> str:
    """Return the name of the file in which a schema is published."""
    return f"{name}.schema.json"


def asyncapi() -> Json:
    """Return the AsyncAPI 3.0 document; it refers to the schemas' files beside it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "python-raven",
            "version": str(CONTRACT_VERSION),
            "description": "Readings of a Rainforest RAVEn or EMU-2 on an MQTT 5 broker.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "{host}",
                "protocol": "mqtt",
                "protocolVersion": "5.0",
                "description": "The broker that MQTT_URL names.",
                "variables": {"host": {"default": "localhost:1883"}},
            }
        },
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": {
            f"{role}{action.capitalize()}s{channel.name[0].upper()}{channel.name[1:]}": _operation(
                channel, role, action
            )
            for channel in CHANNELS
            for action, roles in (("send", channel.senders), ("receive", channel.receivers))
            for role in roles
        },
        "components": {
            "messages": {name: _message(name, schema) for name, schema in schemas().items()}
            | _HOMEASSISTANT,
            "parameters": {
                "prefix": {"description": "RAVEN_TOPIC_PREFIX", "default": "raven"},
                "node": {"description": "Name of a reader in a fleet."},
                "kind": {"description": "What the device sent.", "enum": list(KINDS)},
                "store": {
                    "description": "Client id of the store.",
                    "examples": ["raven-sql-writer", "raven-mongo-recorder"],
                },
                "service": {
                    "description": "Name of the service that buries.",
                    "examples": ["reader", "mongo-recorder"],
                },
            },
        },
    }


_HOMEASSISTANT: Final[dict[str, Json]] = {
    "homeassistant-discovery": {
        "name": "homeassistant-discovery",
        "title": "Home Assistant discovery",
        "payload": {"type": "object"},
    },
    "homeassistant-status": {
        "name": "homeassistant-status",
        "title": "Home Assistant status",
        "contentType": "text/plain",
        "payload": {"type": "string", "enum": ["online", "offline"]},
    },
}


def _channel(channel: Channel) -> Json:
    names = re.findall(r"{(\w+)}", channel.address)
    found: Json = {
        "address": channel.address,
        "description": channel.about,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.messages},
    }
    if names:
        found["parameters"] = {name: {"$ref": f"#/components/parameters/{name}"} for name in names}
    return found


def _operation(channel: Channel, role: str, action: str) -> Json:
    found: Json = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": channel.about,
        "tags": [{"name": role}],
        "bindings": {
            "mqtt": {"qos": channel.qos, "retain": channel.retained, "bindingVersion": "0.2.0"}
        },
    }
    if channel.name == "command":
        found["reply"] = {"channel": {"$ref": "#/channels/reply"}}
    return found


def _message(name: str, schema: Json) -> Json:
    found = {
        "name": name,
        "title": schema["title"],
        "summary": schema["description"],
        "payload": {"$ref": f"./{schema_file(name)}"},
    }
    if name in ("command", "reply"):
        found["correlationId"] = {"location": "$message.payload#/id"}
    return found


def _schema(*parts: type) -> Json:
    """Return the schema of an object that has the fields of all parts; the last one names it."""
    found: Json = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    properties: Json = {}
    required: list[str] = []
    shared: Json = {}
    for part in parts:
        _, components = msgspec.json.schema_components([part], ref_template="#/$defs/{name}")
        own = _portable(components.pop(part.__name__))
        properties |= own.pop("properties")
        required += own.pop("required")
        shared |= {name: _portable(schema) for name, schema in components.items()}
        found |= own
    found |= {"properties": properties, "required": required}
    return {**found, "$defs": shared} if shared else found


def _portable(schema: Json) -> Json:
    """Return the schema as validators and code generators of other languages take it best."""
    found = {**schema}
    match found:
        case {"anyOf": [{"type": str(kind)} as one, {"type": "null"}]}:
            del found["anyOf"]
            found = {**one, "type": [kind, "null"], **found}
    match found:
        case {"enum": [only]}:
            del found["enum"]
            found["const"] = only
        case {"format": "date-time"}:
            found["pattern"] = _UTC
        case {"contentEncoding": "base64"}:
            found["pattern"] = _BASE64
        case {"pattern": str(pattern)}:
            found |= _pattern(pattern)
    if "propertyNames" in found:
        found["propertyNames"] = _portable(found["propertyNames"])
    if "description" in found:
        found["description"] = cleandoc(found["description"]).replace("``", "`")
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _portable(found[key])
    if "properties" in found:
        found["properties"] = {name: _portable(of) for name, of in found["properties"].items()}
    return found


def _pattern(pattern: str) -> Json:
    """Return a pattern of Python in what JavaScript, Go and the others have in common."""
    # A $ of Python's also matches before a last newline; theirs does not, and they have no \Z.
    pattern = pattern.replace(r"\Z", "$")
    if ahead := re.match(r"\^\(\?!(\w+)\$\)", pattern):
        return {"pattern": "^" + pattern[ahead.end() :], "not": {"const": ahead[1]}}
    return {"pattern": pattern}


_UTC: Final = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?Z$"
# Counting in fours would be exact, and costs a validator 400 MB for the largest dead letter.
_BASE64: Final = "^[A-Za-z0-9+/]*={0,2}$"
