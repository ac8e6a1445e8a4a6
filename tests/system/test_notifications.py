"""People are told by e-mail and webhook what lasts, once, and once when it is over."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from raven_dashboard import notifier as module
from raven_dashboard import words
from raven_dashboard.feed import Feed, client_id
from raven_dashboard.notifier import Memory, Notifier
from raven_dashboard.outgoing import NotifyUrls
from raven_dashboard.troubles import TRIAL
from raven_harness import stack
from ravenbus.health import Health
from ravenbus.messages import Confirmation, Status, encode
from ravenbus.mqtt import Broker
from ravenbus.retrying import Retry
from ravenbus.settings import MqttUrl
from ravenbus.topics import GONE, LATEST, STATUS, STORED, Topics
from tests.kinds import new_hash, reading

from .system import Client, wait_until

NODE = "house"
STORE = "raven-sql-writer"
HASH = new_hash()
GRACE = timedelta(seconds=2)
"""Longer than a connection to the broker takes."""
NOTHING_FOR_S = 2 * GRACE.total_seconds()
PASSWORD = "s3cret-word"  # noqa: S105 - the test's own


class Mail:
    """A mail server on the loopback."""

    def __init__(self) -> None:
        self.received: SimpleQueue[EmailMessage] = SimpleQueue()
        self.port = stack.free_port()
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - its name
        self.received.put(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    @property
    def url(self) -> str:
        return (
            f"mailto://127.0.0.1:{self.port}?mode=insecure&from=raven@example.org&to=me@example.org"
        )

    def close(self) -> None:
        self._controller.stop()


class Hook:
    """A webhook on the loopback, which refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.received: SimpleQueue[dict[str, str]] = SimpleQueue()
        self.refuses = threading.Event()
        self.refused = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hook.refuses.is_set():
                    hook.refused.set()
                    self.send_error(503)
                else:
                    hook.received.put(json.loads(body))
                    self.send_response(204)
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"json://me:{PASSWORD}@127.0.0.1:{self._server.server_port}/way"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def mail() -> Iterator[Mail]:
    server = Mail()
    yield server
    server.close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    yield server
    server.close()


class Watching:
    """A broker, what a home and a store say there, and the dashboard's notifier."""

    def __init__(self, folder: Path, urls: str) -> None:
        self.folder, self.urls = folder, urls
        self.broker = stack.Broker(folder, [NODE, "sql-writer", "dashboard", "verify"])
        self.broker.start()
        self.home, self.store = (Client(self.broker.url(one)) for one in (NODE, "sql-writer"))
        self.remover = Client(self.broker.url("verify"))
        self.health = Health()
        self.start()

    def start(self) -> None:
        self.stop = threading.Event()
        broker = Broker(MqttUrl(self.broker.url("dashboard")), client_id())
        retry = Retry(self.health, self.stop)
        self.feed = Feed(broker, Topics(), retry)
        self.memory = Memory(self.folder / "state")
        targets = NotifyUrls(self.urls).targets
        notifier = Notifier(self.feed, targets, self.memory, GRACE, UTC, retry)
        self.threads = [threading.Thread(target=one.run) for one in (self.feed, notifier)]
        for thread in self.threads:
            thread.start()

    def restart(self) -> None:
        self.end()
        self.start()

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def says(self, **changes: object) -> None:
        usual = {"service": "online", "device": "connected", "since": datetime.now(UTC)}
        status = Status(node=NODE, **(usual | changes))
        topic = Topics().of(STATUS, node=NODE)
        self.home.connection.publish(topic, encode(status), retain=True)

    def reads(self, seq: int) -> None:
        one = reading(HASH, seq, node=NODE)
        topic = Topics().of(LATEST, node=NODE, kind=one.kind)
        self.home.connection.publish(topic, encode(one), retain=True)

    def stores(self, first: int, last: int) -> None:
        said = Confirmation(node=NODE, store=STORE, runs={HASH: [(first, last)]})
        self.store.connection.tell(Topics().of(STORED, node=NODE, store=STORE), encode(said))

    def close(self) -> None:
        self.end()
        for client in (self.home, self.store, self.remover):
            client.connection.close()
        if self.broker.running:
            self.broker.kill()


@pytest.fixture
def watching(
    tmp_path: Path, mail: Mail, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watching]:
    monkeypatch.setattr(module, "TURN_S", 0.1)
    monkeypatch.setattr(module, "BETWEEN_S", 0.1)
    monkeypatch.setattr(module, "AGAIN_S", 0.1)
    monkeypatch.setattr(module, "LONGEST_S", 0.1)
    monkeypatch.setattr(words, "BEHIND_AFTER", timedelta(0))
    built = Watching(tmp_path, f"{mail.url}\n{hook.url}")
    yield built
    built.close()


def text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body
    return str(body.get_content()).replace("\r\n", "\n").strip()


def test_a_home_that_is_silent_is_told_once_by_each_way_and_its_end_too(
    watching: Watching, mail: Mail, hook: Hook
):
    """Over a restart of the watch, which says nothing again."""
    watching.reads(1)
    watching.says(device="disconnected", detail="unplugged")
    letter, post = mail.received.get(timeout=30), hook.received.get(timeout=30)
    assert (letter["To"], letter["Subject"]) == ("me@example.org", "python-raven: 1 to see to")
    assert "house: The stick has been away for" in text(letter)
    assert "Plug the stick out and in" in text(letter)
    assert (post["title"], "unplugged" in post["message"]) == (letter["Subject"], True)
    watching.restart()
    wait_until(lambda: watching.feed.homes[NODE].status, "the home is heard again")
    with pytest.raises(Empty):
        hook.received.get(timeout=NOTHING_FOR_S)
    watching.says()
    watching.reads(2)
    letter, post = mail.received.get(timeout=30), hook.received.get(timeout=30)
    assert letter["Subject"] == "python-raven: 1 over"
    assert "Over: house: The stick is heard." in text(letter)
    assert "The trouble lasted from" in post["message"]
    with pytest.raises(Empty):
        mail.received.get(timeout=NOTHING_FOR_S)
    assert hook.received.empty()


def test_a_store_that_is_behind_is_told_though_it_never_spoke_to_this_watch(
    watching: Watching, hook: Hook
):
    """It was known before; one that is said to be gone is waited for by nobody."""
    watching.says()
    watching.reads(1)
    wait_until(lambda: NODE in watching.feed.homes, "the home is heard")
    watching.stores(1, 1)
    wait_until(lambda: watching.memory.read().stores == {NODE: [STORE]}, "the store is known")
    watching.restart()
    wait_until(lambda: not watching.feed.away_since, "the broker is heard")
    watching.reads(2)
    watching.reads(3)
    assert f"{STORE} is behind: it lacks" in hook.received.get(timeout=30)["message"]
    watching.stores(1, 3)
    assert f"Over: {STORE} has every reading" in hook.received.get(timeout=30)["message"]
    gone = Topics().of(GONE, store=STORE)
    watching.remover.connection.publish(gone, b'{"v":1,"store":"raven-sql-writer"}', retain=True)
    wait_until(lambda: not watching.feed.homes[NODE].stores, "the store is gone")
    watching.reads(4)
    with pytest.raises(Empty):
        hook.received.get(timeout=NOTHING_FOR_S)


def test_a_broker_that_is_away_is_told_and_nothing_of_the_homes(watching: Watching, hook: Hook):
    """Nobody knows how these are; once it is back they are judged anew."""
    watching.says()
    watching.reads(1)
    wait_until(lambda: NODE in watching.feed.homes, "the home is heard")
    watching.broker.kill()
    assert "The broker has been away" in hook.received.get(timeout=30)["message"]
    watching.broker.start()
    assert "Over: The broker is at work." in hook.received.get(timeout=60)["message"]


def test_what_cannot_be_sent_is_sent_later_and_said_without_a_secret(
    watching: Watching, mail: Mail, hook: Hook
):
    """The way that works is not used twice meanwhile."""
    hook.refuses.set()
    watching.says(service="offline")
    assert mail.received.get(timeout=30)["Subject"] == "python-raven: 1 to see to"
    assert hook.refused.wait(30)
    wait_until(lambda: "notify" in watching.health.problems(), "the problem is said")
    said = watching.health.problems()["notify"]
    assert said.startswith("json: ")
    assert PASSWORD not in said
    hook.refuses.clear()
    assert "The reader has been away" in hook.received.get(timeout=30)["message"]
    wait_until(lambda: not watching.health.problems(), "its end is noticed")
    assert mail.received.empty()


def test_a_trial_shows_whether_messages_arrive(tmp_path: Path, mail: Mail, hook: Hook):
    """By the command that people type; what is wrong with the settings is said without a secret."""

    def trial(urls: str) -> tuple[int, str]:
        service = stack.dashboard(
            tmp_path,
            "mqtt://localhost",
            MYSQL_URL="mysql://nobody@127.0.0.1/none",
            RAVEN_DASHBOARD_PASSWORD="long-enough",  # noqa: S106 - the test's own
            RAVEN_NOTIFY_URLS=urls,
        )
        service.command.append("--try-notifications")
        super(stack.Server, service).start()
        return service.wait(60), service.text()

    assert trial(f"{mail.url} {hook.url}")[0] == 0
    letter = mail.received.get(timeout=30)
    assert letter["Subject"] == TRIAL.title
    assert text(letter) == TRIAL.body, "its lines stay lines"
    assert hook.received.get(timeout=30)["message"] == TRIAL.body
    hook.refuses.set()
    status, said = trial(hook.url)
    assert (status, PASSWORD in said) == (69, False)
    status, said = trial(f"bogus://{PASSWORD}")
    assert (status, PASSWORD in said, "number 1 is no URL" in said) == (78, False, True)
    assert trial("")[0] == 78
