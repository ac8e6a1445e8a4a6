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
from typing import Any, Final

import msgspec

from ravenbus.errors import ContractError
from ravenbus.messages import CONTRACT_VERSION, Envelope, Reading
from ravenbus.notifications import KINDS
from ravenbus.topics import CHANNELS, COMMAND, Channel, Topics

Json = dict[str, Any]

READINGS: Final = tuple(f"reading.{kind}" for kind in KINDS)
"""The names of the readings' schemas."""


def schema_for(topic: str, topics: Topics) -> Json | None:
    """Return the JSON Schema of what a topic carries; None if the topic is not of the contract.

    The schema is shared: it must not be changed.
    """
    try:
        channel = topics.channel(topic)
    except ContractError:
        return None
    kind = topics.names(channel, topic).get("kind")
    return schemas().get(f"reading.{kind}" if kind else messages_of(channel)[0])


def messages_of(channel: Channel[Any]) -> tuple[str, ...]:
    """Return the names of the messages that a channel carries; Home Assistant's have no schema."""
    if channel.message is Reading:
        return READINGS
    is_ours = issubclass(channel.message, msgspec.Struct)
    name = channel.message.__name__ if is_ours else channel.name
    return (re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower(),)


@cache
def schemas() -> dict[str, Json]:
    """Return every message's JSON Schema (2020-12) by its name; they must not be changed.

    A reading's name is ``reading.<kind>``.
    """
    found = {f"reading.{kind}": _schema(Envelope, of) for kind, of in KINDS.items()}
    for channel in CHANNELS:
        if channel.message is not Reading and issubclass(channel.message, msgspec.Struct):
            (name,) = messages_of(channel)
            found[name] = _schema(channel.message)
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
                "homeassistant": {
                    "description": "RAVEN_HOMEASSISTANT_PREFIX",
                    "default": "homeassistant",
                },
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


def _channel(channel: Channel[Any]) -> Json:
    names = re.findall(r"{(\w+)}", channel.address)
    found: Json = {
        "address": channel.address,
        "description": channel.about,
        "messages": {
            name: {"$ref": f"#/components/messages/{name}"} for name in messages_of(channel)
        },
    }
    if names:
        found["parameters"] = {name: {"$ref": f"#/components/parameters/{name}"} for name in names}
    return found


def _operation(channel: Channel[Any], role: str, action: str) -> Json:
    found: Json = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": channel.about,
        "tags": [{"name": role}],
        "bindings": {
            "mqtt": {"qos": channel.qos, "retain": channel.retained, "bindingVersion": "0.2.0"}
        },
    }
    if channel is COMMAND:
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
