"""Who is let in by the connection, and what every answer says of frames."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from raven_dashboard.access import Access
from raven_dashboard.metrics import DashboardMetrics
from raven_dashboard.web import Guarded

PROXY = "172.30.32.2"


def asked(peer: str, *, proxy: str | None = PROXY, **headers: str) -> tuple[int, dict[str, str]]:
    """Return status and headers of a page behind the guard."""
    access = Access("correct horse", proxy=IPv4Address(proxy) if proxy else None)
    app = Guarded(PlainTextResponse("in"), access, DashboardMetrics({}))
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "server": ("127.0.0.1", 8080),
        "client": (peer, 50000) if peer else None,
        "path": "/api/v1/meters",
        "query_string": b"",
        "headers": [(name.encode(), text.encode()) for name, text in headers.items()],
    }
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    asyncio.run(app(scope, receive, send))
    found = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
    return sent[0]["status"], found


def test_the_trusted_proxy_needs_no_password_and_may_frame_the_pages():
    """In a page of its own address alone."""
    status, headers = asked(PROXY)
    assert status == 200
    assert headers["content-security-policy"].endswith("frame-ancestors 'self'")
    assert headers["x-frame-options"] == "SAMEORIGIN"


@pytest.mark.parametrize(
    ("peer", "proxy", "headers"),
    [
        ("172.30.32.3", PROXY, {}),
        ("172.30.32.20", PROXY, {}),
        ("", PROXY, {}),
        ("None", None, {}),
        (PROXY, None, {}),
        ("127.0.0.1", PROXY, {"x-forwarded-for": PROXY}),
        ("127.0.0.1", PROXY, {"forwarded": f"for={PROXY}", "x-real-ip": PROXY}),
        ("127.0.0.1", PROXY, {"x-ingress-path": "/api/hassio_ingress/x", "x-remote-user-id": "1"}),
        ("127.0.0.1", PROXY, {"host": "localhost/login?"}),
        ("127.0.0.1", PROXY, {"host": "localhost/static/?"}),
    ],
)
def test_nobody_else_gets_in_or_may_frame_it(peer: str, proxy: str | None, headers: dict[str, str]):
    """Whatever the headers say, and where no proxy is trusted."""
    status, said = asked(peer, proxy=proxy, **headers)
    assert status == 401
    assert said["content-security-policy"].endswith("frame-ancestors 'none'")
    assert said["x-frame-options"] == "DENY"
