"""Processes for the benches: started, asked, and gone at the end."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import clients
import stream
from raven_harness.stack import Broker, MariaDb, Process, metric
from raven_reader.outbox import SpoolOutbox
from raven_reader.spool import Spool
from ravenbus.messages import Reading, decode_reading, now
from ravenbus.metrics import PublisherMetrics
from ravenbus.topics import READING, Topics

NODE: Final = "bench"
"""Name of the reader whose readings the benches publish: its account at the broker."""
ACCOUNTS: Final = (NODE, "mongo-recorder", "sql-writer", "watcher")
READINGS: Final = Topics().of(READING, node="+", kind="+")
LIMIT_S: Final = 180.0
_CLIENTS: Final = Path(__file__).resolve().parent / "clients.py"


class Runs(Protocol):
    """A process of ``stack``."""

    def start(self) -> None:
        """Start it."""

    def stop(self) -> int | None:
        """End it."""


@contextmanager
def started(*processes: Runs) -> Iterator[None]:
    """Start processes, and stop them in the opposite order whatever happens."""
    with ExitStack() as stack:
        for process in processes:
            stack.callback(process.stop)
            process.start()
        yield


def broker(folder: Path) -> Broker:
    """Return a broker that does not write its file at each change.

    Mosquitto writes the whole queue anew each time: a long queue would measure the disk alone.
    """
    found = Broker(folder, ACCOUNTS)
    config = folder / found.name / "mosquitto.conf"
    config.write_text(config.read_text() + "autosave_on_changes false\nautosave_interval 1800\n")
    return found


@contextmanager
def folder() -> Iterator[Path]:
    """Give a folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="raven-bench-") as path:
        yield Path(path)


def client(role: str, *arguments: object) -> Any:
    """Run one of ``clients.py`` to its end and return what it says."""
    command = [sys.executable, str(_CLIENTS), role, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=LIMIT_S)
    return json.loads(done.stdout)


def client_command(role: str, *arguments: object) -> list[str]:
    """Return the command of one of ``clients.py`` that runs until it is stopped."""
    return [sys.executable, str(_CLIENTS), role, *map(str, arguments)]


def filled_spool(path: Path, count: int, seed: int) -> None:
    """Make a spool with so many readings of a run of its own, as the reader accepts them."""
    spool = Spool(path, Topics(), max_mb=1024)
    spool.begin(NODE, "bench", now())
    at = now()
    spool.accept([(notification, at) for notification in stream.notifications(count, seed)], [])
    spool.close()


def readings_in(spool: Path) -> list[Reading]:
    """Return the readings in a spool."""
    outbox = SpoolOutbox(spool, metrics=PublisherMetrics())
    found = [decode_reading(entry.payload) for entry in outbox.entries(0, outbox.depth()[0])]
    outbox.close()
    return found


def queued(
    service: Process, port: int, url: str, broker: Broker, spool: Path, count: int, window: int
) -> None:
    """Have a spool's readings wait in the sessions of a store and of bare paho."""
    with started(service):
        connected(port)
    client("drain", url, "bench-drain", READINGS, 0, window)
    sent = client("send", broker.url(NODE), spool)
    if sent["taken"] != count:
        raise RuntimeError(f"{sent['taken']} of {count} readings reached the sessions")


def connected(port: int) -> None:
    """Wait until a store's session is there."""
    wait_until(lambda: metric(port, "raven_broker_connected") == 1, "the store connects")


def drained(url: str, count: int, window: int) -> float:
    """Return the messages a second that bare paho receives and acknowledges."""
    found = client("drain", url, "bench-drain", READINGS, count, window)
    return count / float(found["seconds"])


def in_turn(measures: Mapping[str, Callable[[], float]], number: int) -> dict[str, float]:
    """Return what each measures, another one first in each round."""
    order = list(measures)
    order = order[number % len(order) :] + order[: number % len(order)]
    return {name: measures[name]() for name in order}


class Rate(NamedTuple):
    """What a service does in a second, and microseconds of CPU that its process takes for each."""

    per_s: float
    cpu_us: float


def rate(process: Process, port: int, name: str, count: int, poll_s: float) -> Rate:
    """Start a service; return its counter's rate from the first look with any to the last."""
    looks: list[tuple[float, float, float]] = []
    with started(process):

        def all_done() -> bool:
            done, cpu_s = metric(port, name), metric(port, "process_cpu_seconds_total")
            if done:
                looks.append((time.perf_counter(), done, cpu_s or 0.0))
            return done is not None and done >= count

        wait_until(all_done, f"{name} is {count}", pause_s=poll_s)
    (start, before, cpu_before), (end, after, cpu_after) = looks[0], looks[-1]
    if before > count / 2:
        raise RuntimeError(
            f"{name} was {before:.0f} of {count} at the first look: too few are left"
        )
    done = after - before
    return Rate(done / (end - start), (cpu_after - cpu_before) / done * 1e6)


@contextmanager
def subscriber(url: str, topic: str, receive: Callable[[bytes], None]) -> Iterator[None]:
    """Have each message that comes to a topic handed over, on a thread of its own."""
    client = clients.connected(url, "bench-subscriber")
    client.on_message = lambda _client, _data, message: receive(bytes(message.payload))
    client.subscribe(topic, qos=1)
    client.loop_start()
    yield
    client.disconnect()
    client.loop_stop()


def mariadb(folder: Path) -> MariaDb:
    """Return a server whose memory holds what the benches store; each commit is on disk."""
    return MariaDb(folder, "--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M")


def wait_until(fact: Callable[[], bool], what: str, pause_s: float = 0.1) -> None:
    """Wait for a fact; raise TimeoutError that names it.

    The pause is a bench's to choose: each look takes some of what is measured.
    """
    end = time.monotonic() + LIMIT_S
    while not fact():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(pause_s)
