"""What the API answers, and the document that says so (OpenAPI 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, TypedDict

import msgspec

from ravenbus import __version__
from ravenbus.history import KEYS, Step

Json = dict[str, Any]
Numbers = list[float | None]


class State(TypedDict):
    """A sentence about a part, and how bad that is."""

    level: Literal["ok", "warning", "alarm"]
    text: str


class Meter(TypedDict):
    """A meter, empty where readings name none; the 5 minutes of its first and last reading."""

    node: str
    meter: str
    first: str
    last: str


class Meters(TypedDict):
    """The meters that there is history of, and the time zone of days and months."""

    zone: str
    meters: list[Meter]


class Run(TypedDict):
    """A run of a home from its start to that of the next one, null for the last.

    ``first`` and ``last`` are of its first and last reading of power or a register to 5 minutes, the
    start and the end of these, null where there is none.
    """

    run: str
    start: str
    end: str | None
    first: str | None
    last: str | None


class Runs(TypedDict):
    """The runs of a home, the newest first."""

    runs: list[Run]


class Used(TypedDict):
    """What a meter counted; null where nothing is known."""

    delivered_kwh: float | None
    received_kwh: float | None
    cost: float | None


class Month(Used):
    """The month so far, and what it comes to if it goes on so; null on its first day."""

    forecast_kwh: float | None
    forecast_cost: float | None


class Price(TypedDict):
    """The price of a kWh that the meter said last, on the bus or in the store.

    The currency is by its letters, null if unknown.
    """

    value: float
    currency: str | None


class Power(TypedDict):
    """Demand in kW, negative when power is given to the grid."""

    time: str | None
    kw: float | None
    direction: Literal["importing", "exporting", "idle"] | None


class Now(Power):
    """What a meter says now, and what is wrong with its home."""

    today: Used
    month: Month
    currency: str | None
    price: Price | None
    link_percent: int | None
    states: list[State]


class Demand(TypedDict):
    """Demand by steps that begin at ``start``, seconds since 1970; null where there is no reading."""

    step: str
    zone: str
    start: list[int]
    mean_kw: Numbers
    min_kw: Numbers
    max_kw: Numbers


class Energy(TypedDict):
    """Energy by steps from ``start`` to before ``end``, seconds since 1970.

    ``intervals`` is how many of the meter's own are in it, where its registers were not heard.
    """

    step: str
    zone: str
    start: list[int]
    end: list[int]
    delivered_kwh: Numbers
    received_kwh: Numbers
    intervals: list[int]
    cost: Numbers
    currency: str | None


class Peak(TypedDict):
    """The highest demand, and the 5 minutes in which it came first."""

    kw: float
    at: str


class Summary(Used):
    """What a span comes to; the base load is null for more than two years, costs for thirty."""

    mean_kw: float | None
    peak: Peak | None
    base_load_kw: float | None
    currency: str | None


class By(TypedDict):
    """What a span comes to by hour (0 to 23), weekday (0 is Monday), month (1 to 12) or price.

    A price has the name of its rate, and a cost without fixed charges; the others have the mean.
    """

    key: list[int | str]
    delivered_kwh: Numbers
    received_kwh: Numbers
    mean_kw: Numbers
    cost: Numbers
    currency: str | None


class Line(TypedDict):
    """A home in a line."""

    node: str
    now_kw: float | None
    today_kwh: float | None
    last: str | None
    complete_percent: float | None
    version: str | None
    states: list[State]


class Homes(TypedDict):
    """All homes, those in trouble first."""

    homes: list[Line]


class Part(TypedDict):
    """A link of the chain from a stick to the stores; ``waiting`` readings since a time."""

    name: str
    state: Literal["ok", "warning", "alarm"]
    text: str
    waiting: int
    since: str | None


class Letters(TypedDict):
    """How many messages of the last 30 days could not be taken, for a reason."""

    reason: str
    service: str
    count: int


class Chain(TypedDict):
    """A home's chain; ``dead_letters`` is null while the store is away, ``nodes`` are all homes."""

    node: str | None
    nodes: list[str]
    parts: list[Part]
    dead_letters: list[Letters] | None


class Problem(TypedDict):
    """An error (RFC 9457); ``detail`` says what is allowed."""

    type: str
    title: str
    status: int
    detail: str


class Parameter(NamedTuple):
    """A part of a query."""

    name: str
    about: str
    allowed: Json
    required: bool = False


NODE: Final = Parameter("node", "name of the home", {"type": "string", "minLength": 1}, True)
METER: Final = Parameter(
    "meter",
    "the meter, empty for readings that name none; not given: the home's only one",
    {"type": "string"},
)
_TIME: Final = {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}
_WHEN: Final = "a day of the homes' zone, as 2026-03-29, or a time, as 2026-03-29T12:00:00Z"
SPAN: Final = (
    NODE,
    METER,
    Parameter(
        "from", f"where the span begins: {_WHEN}", {**_TIME, "examples": ["2026-03-29"]}, True
    ),
    Parameter("to", f"before where it ends: {_WHEN}", {**_TIME, "examples": ["2026-03-30"]}, True),
)
STEPS: Final = ("auto", *(step.value for step in Step))
STEP: Final = Parameter("step", "how the span is divided", {"enum": list(STEPS)})
PRICE: Final = "price"
SUMS: Final = (*KEYS, PRICE)
"""By what a span is summed up."""
KEY: Final = Parameter("key", "by what it is grouped", {"enum": list(SUMS)}, True)
WHAT: Final = Parameter(
    "what",
    "what the file is of, or by what it sums up",
    {"enum": ["demand", "energy", *SUMS]},
    True,
)


class Question(NamedTuple):
    """What may be asked, what it takes, and what is answered: JSON, or text of a type."""

    name: str
    parameters: Sequence[Parameter]
    answer: Any
    about: str


QUESTIONS: Final = (
    Question("meters", (), Meters, "The meters that there is history of."),
    Question("runs", (NODE,), Runs, "The runs of a home."),
    Question("now", (NODE, METER), Now, "What a meter says now, today and this month."),
    Question("demand", (*SPAN, STEP), Demand, "Demand by steps."),
    Question("energy", (*SPAN, STEP), Energy, "Energy by steps."),
    Question("summary", SPAN, Summary, "What a span comes to."),
    Question("by", (KEY, *SPAN), By, "What a span comes to by hour, weekday, month or price."),
    Question("homes", (), Homes, "All homes in a line each."),
    Question("chain", (NODE._replace(required=False),), Chain, "From a stick to the stores."),
    Question("csv", (WHAT, *SPAN, STEP), "text/csv", "Demand, energy or sums as a file."),
    Question(
        "live",
        (
            NODE._replace(required=False),
            Parameter("kind", "these events alone", {"enum": ["reading", "state"]}),
        ),
        "text/event-stream",
        "Readings and states as they come.",
    ),
)
_REFUSALS: Final = {
    "400": "What is asked cannot be used.",
    "401": "Neither a session nor the token.",
    "503": "The store is away.",
}


def document() -> Json:
    """Return the OpenAPI document of the API."""
    shapes = [one.answer for one in QUESTIONS if not isinstance(one.answer, str)]
    _, schemas = msgspec.json.schema_components(
        [*shapes, Problem], ref_template="#/components/schemas/{name}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "raven-dashboard",
            "version": __version__,
            "description": "Readings and their history, as the pages show them.",
        },
        "servers": [{"url": "v1"}],
        "security": [{"token": []}, {"session": []}],
        "paths": {f"/{one.name}": {"get": _operation(one)} for one in QUESTIONS},
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "raven"},
            },
        },
    }


def _operation(question: Question) -> Json:
    as_text = {question.answer: {"schema": {"type": "string"}}}
    refused = {"application/problem+json": {"schema": _ref(Problem)}}
    return {
        "operationId": question.name,
        "summary": question.about,
        "parameters": [
            {
                "name": one.name,
                "in": "query",
                "description": one.about,
                "required": one.required,
                "schema": one.allowed,
            }
            for one in question.parameters
        ],
        "responses": {
            "200": {
                "description": question.about,
                "content": as_text
                if isinstance(question.answer, str)
                else {"application/json": {"schema": _ref(question.answer)}},
            },
            **{
                status: {"description": why, "content": refused}
                for status, why in _REFUSALS.items()
            },
        },
    }


def _ref(shape: Any) -> Json:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}
