"""The published schemas against the code that encodes and decodes."""

from __future__ import annotations

import json
import re
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from msgspec import inspect

from ravenbus import messages as m
from ravenbus.contract import asyncapi, schema_file, schema_for, schemas
from ravenbus.errors import ContractError
from ravenbus.notifications import KINDS
from ravenbus.topics import CHANNELS, READING, Topics

CONTRACT = Path(__file__).parents[3] / "docs" / "contract"
TOPICS = Topics()
BY_NAME = {
    "run": m.Run,
    "status": m.Status,
    "dead-letter": m.DeadLetter,
    "confirmation": m.Confirmation,
    "gone": m.Gone,
    "command": m.Command,
    "reply": m.Reply,
    "raw": m.Raw,
}
NAMES = [*(f"reading.{kind}" for kind in KINDS), *BY_NAME]
VALIDATORS = {name: Draft202012Validator(schema) for name, schema in schemas().items()}
SETTINGS = settings(max_examples=15, derandomize=True, database=None, deadline=None)


def values(of: inspect.Type) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0912 - one case for each type that a message may have
    """Everything that a type of the contract can hold."""
    match of:
        case inspect.Metadata(type=inner):
            return values(inner)
        case inspect.UnionType(types=types):
            return st.one_of([values(one) for one in types])
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType(values=allowed):
            return st.sampled_from(allowed)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=ge, le=le):
            return st.integers(ge, le)
        case inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case inspect.DateTimeType():
            return st.datetimes(timezones=st.just(UTC))
        case inspect.BytesType():
            return st.binary(max_size=40)
        case inspect.StrType(pattern=str(pattern), max_length=longest):
            found = st.from_regex(pattern, fullmatch=True)
            return found.filter(lambda text: len(text) <= (longest or len(text)))
        case inspect.StrType():
            return st.text(st.characters(codec="utf-8"), max_size=40)
        case inspect.ListType(item_type=item):
            return st.lists(values(item), max_size=3)
        case inspect.TupleType(item_types=items):
            return st.tuples(*(values(item) for item in items))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=3)
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: values(field.type) for field in fields})
    raise NotImplementedError(of)


def everything(name: str) -> st.SearchStrategy[Any]:
    """Every message that a schema of this name is for."""
    if name in BY_NAME:
        return values(inspect.type_info(BY_NAME[name]))
    notification = KINDS[name.removeprefix("reading.")]
    parts = [values(inspect.type_info(part)) for part in (m.Envelope, notification)]
    return st.builds(m.Reading, *parts)


@cache
def simplest(name: str) -> dict[str, Any]:
    """Return the first message that is tried: every number zero, no field null."""
    found = []

    @settings(SETTINGS, phases=[Phase.generate], max_examples=1)
    @given(everything(name))
    def first(message: Any):
        found.append(m.encode(message))

    first()
    return json.loads(found[0])


def decode(name: str, payload: bytes) -> Any:
    if name in BY_NAME:
        return m.decode(payload, BY_NAME[name])
    return m.decode_reading(payload)


def opinions(name: str, broken: dict[str, Any]) -> tuple[bool, bool]:
    """Say whether the schema takes a message, and whether the decoder does."""
    try:
        decode(name, json.dumps(broken).encode())
    except ContractError:
        decoded = False
    else:
        decoded = True
    return VALIDATORS[name].is_valid(broken), decoded


@pytest.mark.parametrize("name", NAMES)
def test_what_the_types_can_hold_the_schema_takes(name: str):
    """Whatever a message's type can hold is encoded to what its schema takes, and back again."""

    @SETTINGS
    @given(everything(name))
    def holds(message: Any):
        payload = m.encode(message)
        VALIDATORS[name].validate(json.loads(payload))
        assert decode(name, payload) == message

    holds()


MISSING = object()
ODD = [
    MISSING,
    None,
    True,
    0,
    -1,
    2,
    2**64,
    0.5,
    "",
    "dead",
    "A" * 17,
    "x" * 2000,
    "0" * 15,
    "2026-01-15T18:30:05",
    "2026-01-15T18:30:05+01:00",
    [],
    [None],
    ["x"],
    {},
    {"x": 1},
    {"x": "1"},
    {"x 1": "1"},
    [{"price": None, "price_per_kwh": 1}],
    [{"price": 1}],
    [{"price": "1", "price_per_kwh": 1}],
]


@pytest.mark.parametrize("name", NAMES)
def test_schema_and_decoder_agree_on_every_field(name: str):
    """A field that is missing or holds something odd is refused by the schema or by neither."""
    good = simplest(name)
    assert set(good) == set(schemas()[name]["properties"])
    assert opinions(name, good) == (True, True)
    for field in good:
        for odd in ODD:
            broken = {**good, field: odd}
            if odd is MISSING:
                del broken[field]
            # That the length of base64 is right is more than the pattern says.
            if field == "payload" and odd in ("A" * 17, "0" * 15):
                continue
            by_schema, by_decoder = opinions(name, broken)
            assert by_schema == by_decoder, (field, odd)


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        ({}, True),
        ({"added_later": {"in": "version 1"}}, True),
        ({"demand": None, "demand_kw": None}, True),
        ({"v": 2}, False),
        ({"seq": 0}, False),
        ({"hash": "5F0C4B1E-8A4D-4C1B-9D3E-2B7A60C3F1D9"}, False),
        ({"node": "dead"}, False),
        ({"node": "a/b"}, False),
        ({"run": ""}, False),
        ({"run": "tab\tin it"}, False),
        ({"kind": "power"}, False),
        ({"meter": "013500100abcdef"}, False),
        ({"meter": "0x13500100abcdef"}, False),
        ({"time": "2026-01-15T18:30:05"}, False),
        ({"received": "2026-01-15 18:30"}, False),
        ({"received": None}, False),
        ({"demand": "1437"}, False),
        ({"demand": 2**31}, False),
        ({"demand_kw": "1.437"}, False),
    ],
    ids=str,
)
def test_a_broken_demand_is_refused_by_both(change: dict[str, Any], accepted: bool):
    """What a consumer must never see is refused by the schema and by our decoder."""
    good = json.loads(examples()[TOPICS.of(READING, node="cellar", kind="instantaneous_demand")])
    assert opinions("reading.instantaneous_demand", {**good, **change}) == (accepted, accepted)


def test_only_a_command_forbids_unknown_fields():
    """Messages may get more fields within version 1; a request is understood whole or refused."""
    for name in NAMES:
        added = {**simplest(name), "added_later": 1}
        assert opinions(name, added) == ((False, False) if name == "command" else (True, True))


@pytest.mark.parametrize("name", NAMES)
def test_schemas_stand_alone(name: str):
    """A schema is correct by 2020-12, explains itself, and refers to nothing outside itself."""
    schema = schemas()[name]
    Draft202012Validator.check_schema(schema)
    assert schema["title"]
    assert schema["description"]
    text = json.dumps(schema)
    for reference in re.findall(r'"\$ref": "([^"]+)"', text):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]
    assert "(?" not in text, "not every language's regular expressions can look ahead"


def test_envelope_and_notification_share_no_field():
    """A reading is flat, so no notification may have a field of the envelope's name."""
    for kind in KINDS.values():
        assert not set(kind.__struct_fields__) & set(m.Envelope.__struct_fields__)


def test_a_topic_has_the_schema_of_its_messages():
    """Every topic of ours leads to the schema of what it carries."""
    for kind in KINDS:
        expected = schemas()[f"reading.{kind}"]
        assert schema_for(f"raven/v1/cellar/reading/{kind}", TOPICS) is expected
        assert schema_for(f"raven/v1/cellar/latest/{kind}", TOPICS) is expected
    for leaf in ("run", "status", "command", "reply", "raw"):
        assert schema_for(f"raven/v1/cellar/{leaf}", TOPICS) is schemas()[leaf]
    assert schema_for("raven/v1/cellar/dead", TOPICS) is schemas()["dead-letter"]
    assert schema_for("raven/v1/dead/reader", TOPICS) is schemas()["dead-letter"]
    assert schema_for("raven/v1/dead/run", TOPICS) is schemas()["dead-letter"]
    assert schema_for("raven/v1/gone/raven-sql-writer", TOPICS) is schemas()["gone"]
    stored = "raven/v1/cellar/stored/raven-sql-writer"
    assert schema_for(stored, TOPICS) is schemas()["confirmation"]
    assert schema_for("home/meters/v1/cellar/run", Topics("home/meters")) is schemas()["run"]


@pytest.mark.parametrize(
    "topic",
    [
        "homeassistant/device/cellar/config",
        "homeassistant/status",
        "other/v1/cellar/run",
        "raven/v2/cellar/run",
        "raven/v1/cellar",
        "raven/v1/cellar/run/more",
        "raven/v1/cellar/reading",
        "raven/v1/cellar/reading/power",
        "raven/v1/cellar/dead-letter",
        "raven/v1/dead/reader/warning",
    ],
)
def test_other_topics_have_no_schema(topic: str):
    """A topic that is not of the contract has no schema, however near it comes."""
    assert schema_for(topic, TOPICS) is None


def test_every_topic_is_an_asyncapi_channel():
    """The AsyncAPI document has a channel for each topic, with each of its parameters."""
    addresses = {channel["address"] for channel in asyncapi()["channels"].values()}
    own = {f"{{node}}/{leaf}" for leaf in ("run", "status", "command", "reply", "raw", "dead")}
    own |= {"{node}/reading/{kind}", "{node}/latest/{kind}", "{node}/stored/{store}"}
    own |= {"dead/{service}", "gone/{store}"}
    assert addresses == {f"{{prefix}}/v1/{one}" for one in own} | {
        "{homeassistant}/device/{node}/config",
        "homeassistant/status",
    }
    for channel in asyncapi()["channels"].values():
        assert set(channel.get("parameters", ())) == set(re.findall(r"{(\w+)}", channel["address"]))


def test_stores_receive_what_they_subscribe_to():
    """The channels that stores receive are the subscriptions of a store."""
    received = {
        re.sub("{node}|{kind}", "+", channel.address).format(prefix="raven", service="reader")
        for channel in CHANNELS
        if "store" in channel.receivers
    }
    assert received == set(TOPICS.stored())


def test_asyncapi_references_resolve():
    """Each reference of the AsyncAPI document leads to a part of it or to a published schema."""
    document = asyncapi()
    files = {f"./{schema_file(name)}" for name in schemas()}
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        if reference in files:
            continue
        part = document
        for key in reference.removeprefix("#/").split("/"):
            part = part[key]


def test_examples_are_of_the_contract():
    """Each example of the page validates and can be decoded; every form of message has one."""
    shown = set()
    for topic, text in examples().items():
        schema = schema_for(topic, TOPICS)
        Draft202012Validator(schema).validate(json.loads(text))
        (name,) = (name for name, one in schemas().items() if one is schema)
        decode(name, text.encode())
        shown.add(name)
    assert shown >= set(BY_NAME)
    assert any(name.startswith("reading.") for name in shown)


def examples() -> dict[str, str]:
    """Return the examples of the contract's page by topic."""
    page = (CONTRACT / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^On `(\S+)`:\n\n```json\n(.+?)\n```$", page, re.DOTALL | re.MULTILINE))
