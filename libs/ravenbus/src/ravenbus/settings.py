"""Settings from the environment: typed, documented where they are defined, checked all at once.

A settings class is a frozen struct; field ``mqtt_url`` is read from ``MQTT_URL``.
Its ``Meta`` carries the description and the limits, from which both the error messages and
``docs/configuration.md`` are made.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, get_type_hints
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, inspect

from ravenbus.errors import SettingsError

SHOWN_MAX: Final = 200
"""Characters that an error message repeats of a variable."""
NAMES: Final = "names.txt"
"""File with the names of all services' settings, made from the code."""
SHARED: Final = ("MQTT_", "MYSQL_", "MONGO_", "UPSTREAM_MQTT_")
NEAR, NEARLY = 0.8, 0.85
"""How alike two names are, as ``difflib`` counts it.

By 0.73 are RAVEN_IMAGE and RAVEN_STATE, by 0.84 MYSQL_USER and MYSQL_URL.
"""
SECRET = {"secret": True}
"""``Meta(extra=SECRET)``: never shown, and also read from the file that ``NAME_FILE`` names."""


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UrlError(ValueError):
    """Says which part of a URL is wrong, showing nothing secret, and what is allowed."""

    def __init__(self, reason: str, allowed: str) -> None:
        super().__init__(f"{reason}: allowed is {allowed}")


class Url(NamedTuple):
    """Parts of a URL, user and password decoded; None or empty where it has none."""

    scheme: str
    user: str | None
    password: str | None
    addresses: tuple[Address, ...]
    path: str
    query: str

    @classmethod
    def of(cls, text: str, ports: Mapping[str, int], allowed: str) -> Self:
        """Read a URL of one of the schemes, which have these ports; hosts are divided by commas.

        What user and password may not hold as it is has to be percent-encoded.  Raise UrlError.
        """
        if text.partition("://")[0] not in ports:
            raise UrlError(
                f"it does not begin with {' or '.join(f'{s}://' for s in ports)}", allowed
            )
        matched = _URL.fullmatch(text)
        if not matched:
            reason = (
                "it has no host, or a character in user or password that is not percent-encoded"
            )
            raise UrlError(reason, allowed)
        found = []
        for one in matched["hosts"].split(","):
            try:
                place = urlsplit(f"//{one}")
                host, port = place.hostname, place.port
            except ValueError:
                host, port = "", 0
            if not host or port == 0:
                raise UrlError("one of its hosts is none, or has a port that is none", allowed)
            found.append(Address(host, port or ports[matched["scheme"]]))
        user, password = (unquote(matched[of] or "") or None for of in ("user", "password"))
        path, query = matched["path"] or "", matched["query"] or ""
        return cls(matched["scheme"], user, password, tuple(found), path, query)


_URL: Final = re.compile(
    r"(?P<scheme>\w+)://(?:(?P<user>[^@/?#:\s]*)(?::(?P<password>[^@/?#\s]*))?@)?"
    r"(?P<hosts>[^@/?#\s]+)(?P<path>/[^?#\s]*)?(?:\?(?P<query>[^#\s]*))?"
)


class MqttUrl:
    """Where a broker is, as in ``mqtts://user:password@host:8883``; prints without its password.

    A cluster's nodes are several addresses.
    """

    ALLOWED = (
        "mqtt://[user:password@]host[:1883] or mqtts://[user:password@]host[:8883], "
        "user and password percent-encoded, a cluster's further hosts after commas"
    )

    def __init__(self, text: str) -> None:
        """Read a URL; raise UrlError if it is none."""
        url = Url.of(text, {"mqtt": 1883, "mqtts": 8883}, self.ALLOWED)
        if url.path.strip("/") or url.query:
            raise UrlError("it has a path or options, and a broker has none", self.ALLOWED)
        self.tls: Final = url.scheme == "mqtts"
        self.addresses: Final = url.addresses
        self.username: Final = url.user
        self.password: Final = url.password

    def at(self, *addresses: Address) -> str:
        """Return the URL of some addresses."""
        user = f"{self.username}@" if self.username else ""
        return f"{'mqtts' if self.tls else 'mqtt'}://{user}{','.join(map(str, addresses))}"

    def __str__(self) -> str:
        return self.at(*self.addresses)

    __repr__ = __str__


class TimeZone(ZoneInfo):
    """A time zone by its name, as in ``America/New_York``."""

    ALLOWED = "the name of a time zone, as UTC or America/New_York"

    def __new__(cls, name: str) -> Self:
        """Return the zone; raise ValueError if there is none of that name."""
        try:
            return super().__new__(cls, name)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(cls.ALLOWED) from error


HomeZone = Annotated[
    TimeZone, Meta(description="time zone of the homes, by which days and months begin")
]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service can be told."""

    raven_log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least severe line logged")
    ] = "info"
    raven_log_format: Annotated[
        Literal["text", "json"], Meta(description="log lines as text or as JSON objects")
    ] = "text"
    raven_metrics_port: Annotated[
        int,
        Meta(ge=0, le=65535, description="TCP port of the Prometheus metrics; 0 for none"),
    ] = 0
    raven_health_file: Annotated[
        Path | None,
        Meta(description="file that says how the service is; `python -m ravenbus.health` reads it"),
    ] = None

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; raise SettingsError with every problem, none of them showing a secret.

        A variable that is empty counts as not set.
        """
        values: dict[str, Any] = {}
        problems: list[str] = []
        for setting in settings_of(cls):
            try:
                text = setting.read(environ)
                if text is not None:
                    values[setting.field] = setting.convert(text)
                elif setting.required:
                    raise ValueError(f"{setting.name} is not set: allowed is {setting.allowed}")  # noqa: TRY301
            except ValueError as error:
                problems.append(str(error))
        missing = any(s.required and s.field not in values for s in settings_of(cls))
        if missing:
            raise SettingsError(problems)
        settings = cls(**values)
        problems += settings.problems()
        if problems:
            raise SettingsError(problems)
        return settings

    def problems(self) -> Iterator[str]:
        """Yield what is wrong between settings, or with what they name."""
        if self.raven_health_file and not usable_folder(self.raven_health_file.parent):
            path = str(self.raven_health_file)
            yield f"RAVEN_HEALTH_FILE: {path!r} cannot be used: its folder cannot be written to"


TopicPrefix = Annotated[
    str,
    Meta(
        pattern=r"^(?![/$])[^+#\x00-\x1f\x7f-\x9f]{1,64}\Z",
        description="first part of every topic",
        extra={
            "allowed": "1 to 64 characters without +, # and control characters, "
            "not starting with / or $"
        },
    ),
]
Window = Annotated[
    int,
    Meta(ge=1, le=65535, description="most messages under way to the broker without a PUBACK"),
]


class MqttSettings(Settings, frozen=True, kw_only=True):
    """What a service that uses a broker can be told."""

    mqtt_url: Annotated[MqttUrl, Meta(description="the broker", extra=SECRET)] = MqttUrl(
        "mqtt://localhost"
    )
    mqtt_tls_ca: Annotated[
        Path | None,
        Meta(description="certificates to trust, PEM; default: the system's"),
    ] = None
    mqtt_tls_cert: Annotated[
        Path | None, Meta(description="this client's certificate, PEM; needs MQTT_TLS_KEY")
    ] = None
    mqtt_tls_key: Annotated[Path | None, Meta(description="its private key, PEM")] = None
    raven_topic_prefix: TopicPrefix = "raven"

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what `mqtts://` needs; raise OSError for files that cannot be used together."""
        return tls_context(self.mqtt_url, self.mqtt_tls_ca, self.mqtt_tls_cert, self.mqtt_tls_key)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the certificates."""
        yield from super().problems()
        files = self.mqtt_tls_ca, self.mqtt_tls_cert, self.mqtt_tls_key
        yield from tls_problems("MQTT", self.mqtt_url, *files)


def tls_context(
    url: MqttUrl, ca: Path | None, cert: Path | None, key: Path | None
) -> ssl.SSLContext | None:
    """Return what `mqtts://` needs; raise OSError for files that cannot be used together."""
    if not url.tls:
        return None
    context = ssl.create_default_context(cafile=ca)
    if cert:
        context.load_cert_chain(cert, key)
    return context


def tls_problems(
    name: str, url: MqttUrl, ca: Path | None, cert: Path | None, key: Path | None
) -> Iterator[str]:
    """Yield what is wrong with the files that ``<name>_TLS_CA`` and its like name."""
    if key and not cert:
        yield f"{name}_TLS_KEY is set without {name}_TLS_CERT: allowed is both or neither"
    try:
        tls_context(url, ca, cert, key)
    except OSError as error:
        names = f"{name}_TLS_CA, {name}_TLS_CERT and {name}_TLS_KEY"
        yield f"{names} cannot be used: {error}"


SERVICE_ACCOUNTS: Final = (
    "mongo-recorder",
    "sql-writer",
    "dashboard",
    "verify",
    "watcher",
    "home-assistant",
    "health",
)
"""Accounts that may more at the broker than a home may."""

NodeName = Annotated[
    str,
    Meta(
        pattern=rf"^(?!({'|'.join(('dead', 'gone', *SERVICE_ACCOUNTS))})$)[A-Za-z0-9_-]{{1,64}}\Z",
        extra={
            "allowed": "1 to 64 letters, digits, _ or -, but not dead, gone or the account of a service "
            f"({', '.join(SERVICE_ACCOUNTS)})"
        },
    ),
]

ClientId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_-]{1,64}\Z",
        description="name of the service's session at the broker; one running service each",
        extra={"allowed": "1 to 64 letters, digits, _ or -"},
    ),
]


class ConsumerSettings(MqttSettings, frozen=True, kw_only=True):
    """What every store can be told; its own class gives the client id a default."""

    raven_client_id: ClientId
    raven_batch_size: Annotated[
        int, Meta(ge=1, le=10_000, description="most messages stored at once")
    ] = 500
    raven_flush_after_s: Annotated[
        float,
        Meta(gt=0, le=60, description="longest time that a message waits for a batch, seconds"),
    ] = 0.5
    raven_dead_letters_keep_days: Annotated[
        Annotated[int, Meta(ge=1, le=36_500)] | None,
        Meta(description="days after which dead letters are removed; not set: they are kept"),
    ] = None


@dataclass(frozen=True)
class Setting:
    """One variable: what it means, what it may hold, and how to read it."""

    name: str
    field: str
    type: inspect.Type
    annotation: Any
    description: str
    default: Any
    required: bool
    secret: bool
    allowed: str
    """What the variable may hold, in words."""

    def read(self, environ: Mapping[str, str]) -> str | None:
        """Return the variable's text, or its file's; raise ValueError if that cannot be read.

        What is empty counts as not set.
        """
        if text := environ.get(self.name):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{self.name} cannot be used: allowed is UTF-8") from None
            return text
        path = environ.get(f"{self.name}_FILE") if self.secret else None
        if not path:
            return None
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{self.name}_FILE names a file that cannot be read: {error}"
            ) from None

    def convert(self, text: str) -> Any:
        """Return the typed value; raise ValueError that names variable, text and what is allowed."""
        try:
            return msgspec.convert(text, self.annotation, strict=False, dec_hook=_decode)
        except msgspec.ValidationError as error:
            raise ValueError(f"{self.name}: {self._problem(text, error.__cause__)}") from None

    def _problem(self, text: str, cause: BaseException | None) -> str:
        """Return what is wrong with the text, and what is allowed."""
        if isinstance(cause, UrlError):
            return str(cause)
        shown = text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"
        held = "what it holds (not shown)" if self.secret else repr(shown)
        return f"{held} cannot be used: allowed is {self.allowed}"


def usable_folder(path: Path) -> bool:
    """Say whether a folder can be written to, or made."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with each name that should be a setting's and is none of any service.

    Names that begin like those of databases and brokers may be other programs', so they count
    only where they are nearly a setting's.
    """
    known = Path(__file__).with_name(NAMES).read_text("utf-8").split()
    for name in sorted(environ.keys() - set(known)):
        is_ours = name.startswith("RAVEN_")
        if is_ours or name.startswith(SHARED):
            near = get_close_matches(name, known, 1, NEAR if is_ours else NEARLY)
            if near:
                yield f"{name} is no setting: did you mean {near[0]}?"
            elif is_ours:
                yield f"{name} is no setting of any service"


def settings_of(cls: type[Settings]) -> list[Setting]:
    """Return a settings class's variables, in the order of their definition."""
    found = []
    hints = get_type_hints(cls, include_extras=True)
    for item in inspect.type_info(cls).fields:  # type: ignore[attr-defined]
        kind, meta = item.type, {}
        if isinstance(kind, inspect.Metadata):
            meta = {**(kind.extra_json_schema or {}), **(kind.extra or {})}
            kind = kind.type
        found.append(
            Setting(
                name=item.name.upper(),
                field=item.name,
                type=kind,
                annotation=hints[item.name],
                description=meta.get("description", ""),
                default=None if item.required else item.default,
                required=item.required,
                secret=bool(meta.get("secret")),
                allowed=meta.get("allowed") or _allowed(kind),
            )
        )
    return found


def _decode(kind: type, text: str) -> Any:
    return kind(text)


def _allowed(kind: inspect.Type) -> str:
    match kind:
        case inspect.IntType(ge=ge, le=le):
            return f"a whole number from {ge} to {le}"
        case inspect.FloatType(gt=None, ge=ge, le=le):
            return f"a number from {ge:.12g} to {le:.12g}"
        case inspect.FloatType(gt=gt, le=le):
            return f"a number above {gt:.12g}, at most {le:.12g}"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return ", ".join(str(value) for value in values[:-1]) + f" or {values[-1]}"
        case inspect.StrType(pattern=str(pattern), max_length=longest):
            most = f", at most {longest} characters" if longest else ""
            return f"text that matches {pattern}{most}"
        case inspect.UnionType(types=types):
            return _allowed(next(t for t in types if not isinstance(t, inspect.NoneType)))
        case inspect.CustomType(cls=cls) if cls is Path:
            return "a path"
        case inspect.CustomType(cls=cls):
            return str(getattr(cls, "ALLOWED", cls.__name__))
        case inspect.Metadata(type=inner, extra=extra):
            return (extra or {}).get("allowed") or _allowed(inner)
    return "text"
