"""The pages and the API over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar
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
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from raven_dashboard import api
from raven_dashboard.access import COOKIE, SESSION_S, Access
from raven_dashboard.answers import Answers, RequestError, Span, event_of, states
from raven_dashboard.feed import Feed, Home
from raven_dashboard.metrics import DashboardMetrics
from raven_dashboard.pages import FOLDER, PAGES, page
from ravenbus.errors import RavenError, RetryableError
from ravenbus.health import Health
from ravenbus.history import Step
from ravenbus.messages import Reading, Status

log = logging.getLogger(__name__)

T = TypeVar("T")
Query = Mapping[str, str]

STATIC: Final = Path(__file__).parent / "static"
VENDOR: Final = Path(dygraphs.__file__).parent / "assets"
"""The chart's library is there, as its package has it."""
HEARTBEAT_S: Final = 15.0
LOOK_EVERY_S: Final = 10.0
"""How often it is noted that the web turns, and whether the store answers."""
LATE_S: Final = 60.0
ANSWER_S: Final = 30.0
"""How long the store may take; whoever asks has gone by then."""
QUEUE_MAX: Final = 1000
LISTENERS_MAX: Final = 200
FORM_MAX: Final = 8192
POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    b"frame-ancestors "
)
ALONE: Final = [
    (b"content-security-policy", POLICY + b"'none'"),
    (b"x-frame-options", b"DENY"),
]
FRAMED: Final = [
    (b"content-security-policy", POLICY + b"'self'"),
    (b"x-frame-options", b"SAMEORIGIN"),
]
"""What the trusted proxy may show in a page of its own."""
HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]

_json = msgspec.json.Encoder()


class Guarded:
    """Lets nobody in without a session, the token or the trusted proxy; adds headers."""

    def __init__(self, app: ASGIApp, access: Access, metrics: DashboardMetrics) -> None:
        self._app = app
        self._access = access
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        # The connection's own, which no header has changed yet: anybody could have written one.
        trusted = self._access.trusts(request.client and request.client.host)
        request.state.trusted = trusted

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                headers += HEADERS + (FRAMED if trusted else ALONE)
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"private, no-cache"))
                self._metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        if trusted or self._may(request):
            await self._app(scope, receive, with_headers)
        else:
            await _denied(request)(scope, receive, with_headers)

    def _may(self, request: Request) -> bool:
        path = request.scope["path"]
        if path == "/login" or path.startswith("/static/"):
            return True
        return self._access.may(request.cookies, request.headers.get("authorization"))


class Web:
    """The requests, answered from a store in a few threads: one for each of ``answers``."""

    def __init__(
        self,
        answers: Sequence[Answers],
        feed: Feed,
        access: Access,
        metrics: DashboardMetrics,
        health: Health,
    ) -> None:
        self._free: SimpleQueue[Answers] = SimpleQueue()
        for one in answers:
            self._free.put(one)
        self._threads = ThreadPoolExecutor(len(answers), "store")
        self._feed = feed
        self._access = access
        self._metrics = metrics
        self._health = health

    def app(self) -> Starlette:
        """Return the application."""
        answers: dict[str, Callable[[Answers, Query], Any]] = {
            "meters": lambda a, _: a.meters(),
            "runs": lambda a, q: a.runs(_needed(q, "node")),
            "now": lambda a, q: a.now(_needed(q, "node"), q.get("meter")),
            "demand": lambda a, q: a.demand(_span(a, q), _step(q)),
            "energy": lambda a, q: a.energy(_span(a, q), _step(q)),
            "summary": lambda a, q: a.summary(_span(a, q)),
            "by": lambda a, q: a.by(_span(a, q), _needed(q, "key")),
            "homes": lambda a, _: a.homes(),
            "chain": lambda a, q: a.chain(_needed(q, "node") if "node" in q else None),
        }
        app = Starlette(
            routes=[
                *(
                    Route(path, partial(_page, page(name), page(name, logout=False)))
                    for path, name in PAGES.items()
                ),
                Route("/login", self._login, methods=["GET", "POST"]),
                Route("/logout", self._logout, methods=["POST"]),
                *(
                    Route(f"/api/v1/{name}", partial(self._answer, answer))
                    for name, answer in answers.items()
                ),
                Route("/api/v1/live", self._live),
                Route("/api/v1/csv", self._csv),
                Route("/api/openapi.json", _document),
                Mount("/static/vendor", StaticFiles(directory=VENDOR)),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
            middleware=[
                Middleware(Guarded, access=self._access, metrics=self._metrics),
                # Tells apart who guesses, where a proxy of this machine is in front.
                Middleware(ProxyHeadersMiddleware),
                Middleware(GZipMiddleware, minimum_size=500),
            ],
            exception_handlers={
                HTTPException: _refused,
                RequestError: _refused,
                RavenError: _away,
                Exception: _failed,
            },
            lifespan=self._lifespan,
        )
        # They would lead out of a proxy's path.
        app.router.redirect_slashes = False
        return app

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(self._look())
        yield
        looking.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> None:
        """Say that the web turns, and whether the store answers."""
        while True:
            self._health.ok("web", LATE_S)
            try:
                await self._in_store(lambda answers: answers.history.run(""))
            except RavenError as error:
                self._health.failing("store", str(error))
            else:
                self._health.ok("store")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _in_store(self, call: Callable[[Answers], T]) -> T:
        """Make a call in a thread of its own, with a store that nobody else uses meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_S):
                return await loop.run_in_executor(self._threads, self._lent, call)
        except TimeoutError:
            raise RetryableError(f"it has not answered for {ANSWER_S:.0f} s") from None

    def _lent(self, call: Callable[[Answers], T]) -> T:
        answers = self._free.get()
        try:
            return call(answers)
        finally:
            self._free.put(answers)

    async def _answer(self, answer: Callable[[Answers, Query], Any], request: Request) -> Response:
        """Answer with JSON."""
        found = await self._in_store(lambda answers: answer(answers, request.query_params))
        return _tagged(_json.encode(found), "application/json", request)

    async def _csv(self, request: Request) -> Response:
        """Answer with a file, of which a piece is in memory at a time."""
        query = request.query_params

        what, step = _needed(query, "what"), _step(query)

        def begin(answers: Answers) -> tuple[Span, str, Sequence[Callable[[Answers], str]]]:
            span = _span(answers, query)
            first, *others = answers.pieces(what, span, step)
            return span, first(answers), others

        span, first, others = await self._in_store(begin)
        name = f"raven-{what}-{span.start:%Y%m%d}-{span.end:%Y%m%d}.csv"
        return StreamingResponse(
            self._texts(first, others),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    async def _texts(
        self, first: str, others: Sequence[Callable[[Answers], str]]
    ) -> AsyncIterator[str]:
        yield first
        for other in others:
            yield await self._in_store(other)

    async def _live(self, request: Request) -> Response:
        """Stream what homes say from now on, of one node or kind if the query names one."""
        if self._metrics.listening >= LISTENERS_MAX:
            raise HTTPException(503, f"Allowed are {LISTENERS_MAX} pages that follow at once.")
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

        end = self._feed.listen(heard)
        self._metrics.listening += 1
        try:
            yield b": hello\n\n"
            while True:
                try:
                    yield await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            end()
            self._metrics.listening -= 1

    def _event(self, home: Home, message: Any) -> tuple[str, Any] | None:
        match message:
            case Reading():
                return "reading", event_of(message)
            case Status():
                return "state", {"node": home.node, "states": states(self._feed, home)}
        return None

    async def _login(self, request: Request) -> Response:
        if request.method == "GET":
            return FileResponse(FOLDER / "login.html")
        if not _same_origin(request):
            return _problem(403, "The form was not sent from this page.")
        form = parse_qs((await _body(request)).decode("utf-8", "replace"))
        address = request.client.host if request.client else ""
        session = self._access.log_in(address, form.get("password", [""])[0])
        if session:
            answer = RedirectResponse(f".{_own(form.get('next', ['/'])[0])}", 303)
            _set_cookie(answer, session, SESSION_S, request)
            return answer
        wait_s = self._access.wait_s(address)
        log.warning("wrong password", extra={"address": address, "wait_s": round(wait_s)})
        again = {"wrong": max(1, round(wait_s)), "next": _own(form.get("next", ["/"])[0])}
        return RedirectResponse(f"login?{urlencode(again)}", 303)

    async def _logout(self, request: Request) -> Response:
        if not _same_origin(request):
            return _problem(403, "The form was not sent from this page.")
        answer = RedirectResponse("login", 303)
        _set_cookie(answer, "", 0, request)
        return answer


async def _page(body: bytes, without_logout: bytes, request: Request) -> Response:
    shown = without_logout if request.state.trusted else body
    return _tagged(shown, "text/html; charset=utf-8", request)


def _set_cookie(answer: Response, session: str, age_s: int, request: Request) -> None:
    """Set the session; without a path, so that it goes where the browser found the login."""
    answer.set_cookie(
        COOKIE,
        session,
        max_age=age_s,
        path=None,
        httponly=True,
        samesite="strict",
        secure=_is_https(request),
    )


def _tagged(body: bytes, media_type: str, request: Request) -> Response:
    """Return a body, or that the asker has it already."""
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"etag": tag})
    return Response(body, media_type=media_type, headers={"etag": tag})


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_MAX:
            raise HTTPException(413, "The form is too large.")
    return body


async def _document(_request: Request) -> Response:
    return Response(_json.encode(api.document()), media_type="application/json")


async def _refused(_request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        allowed = (error.headers or {}).get("Allow")
        detail = f"Allowed is {allowed}." if allowed else error.detail
        return _problem(error.status_code, detail, error.headers)
    return _problem(400, f"{error}.")


async def _away(_request: Request, error: Exception) -> Response:
    log.warning("not answered", extra={"reason": str(error)})
    return _problem(503, f"The store cannot be read: {error}.")


async def _failed(_request: Request, _error: Exception) -> Response:
    return _problem(500, "The dashboard failed; its log says why.")


def _denied(request: Request) -> Response:
    path, query = request.scope["path"], request.url.query
    if path.startswith("/api/"):
        answer = _problem(401, "Allowed is a session, or a token as in Authorization: Bearer …")
        answer.headers["www-authenticate"] = "Bearer"
        return answer
    up = "../" * (path.count("/") - 1)
    there = urlencode({"next": f"{path}?{query}" if query else path})
    return RedirectResponse(f"{up}login?{there}", 303)


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as RFC 9457 has it."""
    problem: api.Problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    body = _json.encode(problem)
    return Response(body, status, headers, media_type="application/problem+json")


def _sent(event: str, data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode(), _json.encode(data))


def _needed(query: Query, name: str) -> str:
    if not query.get(name):
        raise RequestError(f"{name} is missing: /api/openapi.json says what is allowed")
    return query[name]


def _span(answers: Answers, query: Query) -> Span:
    node, start, end = (_needed(query, name) for name in ("node", "from", "to"))
    return answers.span(node, query.get("meter"), start, end)


def _step(query: Query) -> Step | None:
    text = query.get("step", "auto")
    if text == "auto":
        return None
    try:
        return Step(text)
    except ValueError:
        allowed = ", ".join(api.STEPS)
        raise RequestError(f"step: {text[:40]!r} cannot be used: allowed is {allowed}") from None


def _own(path: str) -> str:
    """Return the path of a page of ours, that of the first one for what leads elsewhere."""
    return path if path.partition("?")[0] in PAGES and path.isprintable() else "/"


def _is_https(request: Request) -> bool:
    """Say whether the browser speaks TLS, with us or with a proxy in front."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))


def _same_origin(request: Request) -> bool:
    """Say whether a form comes from our own page, as far as the browser says."""
    origin = request.headers.get("origin")
    return not origin or urlsplit(origin).netloc == request.headers.get("host")
