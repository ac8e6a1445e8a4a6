"""The common parts of every command's ``main``: from the settings to the exit status."""

from __future__ import annotations

import os
import sys
import uuid
from argparse import Namespace
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Final, TypeVar

from ravenbus import service
from ravenbus.errors import RavenError
from ravenbus.mqtt import Broker
from ravenbus.readback import Store
from ravenbus.service import EXIT_FAILED, EXIT_SETTINGS, EXIT_UNAVAILABLE
from ravenbus.settings import Settings
from ravenbus.topics import Topics
from raventools import bus
from raventools.bus import Bus
from raventools.settings import StoresSettings

EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

S = TypeVar("S", bound=Settings)


def run(
    name: str, settings_class: type[S], arguments: Namespace, command: Callable[[S], int]
) -> int:
    """Run a command with its settings; return the exit status, after saying what went wrong."""
    settings = service.load(name, settings_class)
    if settings is None:
        return EXIT_SETTINGS
    if arguments.check_config:
        print("the settings can be used")
        return 0
    try:
        status = command(settings)
        sys.stdout.flush()
    except RavenError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return status


def connected(
    name: str, settings: StoresSettings, stores: Iterable[Store]
) -> AbstractContextManager[Bus]:
    """Lend a connection that hears what the stores bury."""
    broker = Broker.of(settings, client_id=f"{name}-{uuid.uuid4().hex[:12]}")
    topics = Topics(settings.raven_topic_prefix)
    return bus.connected(broker, topics, [store.service for store in stores])
