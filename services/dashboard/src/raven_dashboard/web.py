"""The pages and the API over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import dygraphs
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raven_dashboard.access import COOKIE, SESSION_S, Access
from raven_dashboard.answers import Answer, Answers, RequestError, event_of
from raven_dashboard.feed import Home
from raven_dashboard.metrics import DashboardMetrics
from ravenbus.errors import RavenError
from ravenbus.history import DEMAND, Step
from ravenbus.messages import Reading, Status

log = logging.getLogger(__name__)

STATIC: Final = Path(__file__).parent / "static"
PAGE: Final = Path(__file__).parent / "templates"
VENDOR: Final = Path(dygraphs.__file__).parent / "assets" / "dygraph-combined.js"
"""The chart's library, as its package has it."""
PAGES: Final = {
    "/": "now.html",
    "/history": "history.html",
    "/homes": "homes.html",
    "/health": "health.html",
}
HEARTBEAT_S: Final = 15.0
QUEUE_MAX: Final = 1000
FORM_MAX: Final = 8192
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]

_json = msgspec.json.Encoder()


class Guarded:
    """Lets nobody in without a session or the token, and gives every answer its headers."""

    def __init__(self, app: ASGIApp, access: Access, metrics: DashboardMetrics) -> None:
        self._app = app
        self._access = access
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                headers += HEADERS
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"private, no-cache"))
                self._metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        request = Request(scope)
        if self._may(request):
            await self._app(scope, receive, with_headers)
        else:
            await _denied(request)(scope, receive, with_headers)

    def _may(self, request: Request) -> bool:
        path = request.url.path
        if path == "/login" or path.startswith("/static/"):
            return True
        return self._access.may(request.cookies, request.headers.get("authorization"))


class Web:
    """The requests, answered from a store in a thread of its own."""

    def __init__(
        self, answers: Answers, access: Access, metrics: DashboardMetrics, store: Executor
    ) -> None:
        self._answers = answers
        self._access = access
        self._metrics = metrics
        self._store = store

    def app(self) -> Starlette:
        """Return the application."""
        a = self._answers
        api: dict[str, Callable[[Mapping[str, str]], Answer]] = {
            "meters": lambda _: a.meters(),
            "now": lambda q: a.now(_needed(q, "node"), q.get("meter", "")),
            "demand": lambda q: a.demand(self._span(q), _step(q)),
            "energy": lambda q: a.energy(self._span(q), _step(q)),
            "summary": lambda q: a.summary(self._span(q)),
            "by": lambda q: a.by(self._span(q), _needed(q, "key")),
            "homes": lambda _: a.homes(),
            "chain": lambda q: a.chain(q.get("node")),
        }
        return Starlette(
            routes=[
                *(Route(path, partial(_file, PAGE / name)) for path, name in PAGES.items()),
                Route("/login", self._login, methods=["GET", "POST"]),
                Route("/logout", self._logout, methods=["POST"]),
                *(
                    Route(f"/api/v1/{name}", partial(self._answer, answer))
                    for name, answer in api.items()
                ),
                Route("/api/v1/live", self._live),
                Route("/api/v1/csv", self._csv),
                Route(f"/static/vendor/{VENDOR.name}", partial(_file, VENDOR)),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
            middleware=[
                Middleware(Guarded, access=self._access, metrics=self._metrics),
                Middleware(GZipMiddleware, minimum_size=500),
            ],
            exception_handlers={
                HTTPException: _refused,
                RequestError: _refused,
                RavenError: _away,
            },
        )

    def _span(self, query: Mapping[str, str]) -> Any:
        names = ("node", "from", "to")
        node, start, end = (_needed(query, name) for name in names)
        return self._answers.span(node, query.get("meter", ""), start, end)

    async def _in_store(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._store, call)

    async def _answer(
        self, answer: Callable[[Mapping[str, str]], Answer], request: Request
    ) -> Response:
        """Answer with JSON, or with nothing new where the asker has it already."""
        body = _json.encode(await self._in_store(partial(answer, request.query_params)))
        tag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"etag": tag})
        return Response(body, media_type="application/json", headers={"etag": tag})

    async def _csv(self, request: Request) -> Response:
        query = request.query_params
        what, span, step = _needed(query, "what"), self._span(query), _step(query)
        lines = await self._in_store(lambda: list(self._answers.rows(what, span, step)))
        name = f"raven-{what}-{span.start:%Y%m%d}-{span.end:%Y%m%d}.csv"
        return Response(
            "".join(lines),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    async def _live(self, request: Request) -> Response:
        """Stream what homes say from now on, of one node or kind if the query names one."""
        node, kind = (request.query_params.get(name) for name in ("node", "kind"))
        return StreamingResponse(
            self._events(node, kind),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    async def _events(self, node: str | None, kind: str | None) -> AsyncIterator[bytes]:
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[bytes](QUEUE_MAX)

        def put(event: bytes) -> None:
            with suppress(asyncio.QueueFull):  # a page that does not read misses something
                queue.put_nowait(event)

        def heard(home: Home, message: Any) -> None:
            event = self._event(home, message) if node in (None, home.node) else None
            if event and kind in (None, event[0]):
                loop.call_soon_threadsafe(put, _sent(*event))

        end = self._answers.feed.listen(heard)
        self._metrics.listeners.inc()
        try:
            yield b": hello\n\n"
            while True:
                try:
                    yield await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            end()
            self._metrics.listeners.dec()

    def _event(self, home: Home, message: Any) -> tuple[str, Answer] | None:
        match message:
            case Reading() if message.kind == DEMAND:
                return "reading", event_of(message)
            case Status():
                return "state", {"node": home.node, "states": self._answers.states(home)}
        return None

    async def _login(self, request: Request) -> Response:
        if request.method == "GET":
            return FileResponse(PAGE / "login.html")
        if not _same_origin(request):
            return _problem(403, "The form was not sent from this page.")
        form = parse_qs((await _body(request)).decode("utf-8", "replace"))
        address = request.client.host if request.client else ""
        session = self._access.log_in(address, form.get("password", [""])[0])
        if session:
            answer = RedirectResponse(_own(form.get("next", ["/"])[0]), 303)
            answer.set_cookie(
                COOKIE,
                session,
                max_age=SESSION_S,
                httponly=True,
                samesite="strict",
                secure=_is_https(request),
            )
            return answer
        wait_s = self._access.wait_s(address)
        log.warning("wrong password", extra={"address": address, "wait_s": round(wait_s)})
        again = {"wrong": max(1, round(wait_s)), "next": _own(form.get("next", ["/"])[0])}
        return RedirectResponse(f"/login?{urlencode(again)}", 303)

    async def _logout(self, request: Request) -> Response:
        if not _same_origin(request):
            return _problem(403, "The form was not sent from this page.")
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer


async def _file(file: Path, _request: Request) -> Response:
    return FileResponse(file)


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_MAX:
            raise HTTPException(413, "The form is too large.")
    return body


async def _refused(_request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return _problem(error.status_code, error.detail)
    return _problem(400, str(error))


async def _away(_request: Request, error: Exception) -> Response:
    log.warning("not answered", extra={"reason": str(error)})
    return _problem(503, f"The store cannot be read: {error}")


def _denied(request: Request) -> Response:
    if request.url.path.startswith("/api/"):
        answer = _problem(401, "Allowed is a session, or a token as in Authorization: Bearer …")
        answer.headers["www-authenticate"] = "Bearer"
        return answer
    path, query = request.url.path, request.url.query
    return RedirectResponse(
        f"/login?{urlencode({'next': f'{path}?{query}' if query else path})}", 303
    )


def _problem(status: int, detail: str) -> Response:
    """Return an error as RFC 9457 has it."""
    body = _json.encode({"type": "about:blank", "status": status, "detail": detail})
    return Response(body, status, media_type="application/problem+json")


def _sent(event: str, data: Answer) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode(), _json.encode(data))


def _needed(query: Mapping[str, str], name: str) -> str:
    if not query.get(name):
        raise RequestError(f"{name} is missing")
    return query[name]


def _step(query: Mapping[str, str]) -> Step | None:
    text = query.get("step", "auto")
    if text == "auto":
        return None
    try:
        return Step(text)
    except ValueError:
        allowed = ", ".join(["auto", *(step.value for step in Step)])
        raise RequestError(f"step: {text[:40]!r} cannot be used: allowed is {allowed}") from None


def _own(path: str) -> str:
    """Return a path of this service, the first page for what leads elsewhere."""
    allowed = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable()
    return path if allowed else "/"


def _is_https(request: Request) -> bool:
    """Say whether the browser speaks TLS, with us or with a proxy in front."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))


def _same_origin(request: Request) -> bool:
    """Say whether a form comes from our own page, as far as the browser says."""
    origin = request.headers.get("origin")
    return not origin or urlsplit(origin).netloc == request.headers.get("host")
