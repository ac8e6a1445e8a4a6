"""The common parts of every service's ``main``: arguments, settings, signals, exit statuses."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from textwrap import wrap
from typing import Any, Final, TypeVar

from ravenbus import __version__, logs
from ravenbus.errors import RavenError, SettingsError
from ravenbus.settings import Setting, Settings, settings_of, unknown

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)

HELP_WIDTH: Final = 80
INDENT: Final = " " * 6
EXIT_FAILED = 1
EXIT_UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits.h: of a command, when something that it needs cannot be reached."""
EXIT_SETTINGS = 78
"""EX_CONFIG of sysexits.h."""


def parser(name: str, description: str, settings: type[Settings]) -> argparse.ArgumentParser:
    """Return the argument parser that every command starts from; settings are in its epilog."""
    lines = [line for setting in settings_of(settings) for line in _explained(setting)]
    found = argparse.ArgumentParser(
        prog=name,
        description=description,
        epilog="environment variables:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--version", action="version", version=f"{name} {__version__}")
    add_check(found)
    return found


def add_check(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Let a command only check its settings."""
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="check the settings and exit (status 78 if wrong)",
        **options,
    )


def _explained(setting: Setting) -> list[str]:
    shown = setting.default is not None and setting.default != ""
    default = f"; default {setting.default}" if shown else ""
    text = [setting.description, f"{setting.allowed}{default}"]
    lines = [line for part in text for line in wrap(part, HELP_WIDTH - len(INDENT))]
    return [f"  {setting.name}", *(f"{INDENT}{line}" for line in lines)]


def main(
    name: str, settings_class: type[S], run: Callable[[S, threading.Event], None], *, check: bool
) -> int:
    """Load the settings, then run the service until SIGTERM or SIGINT; return the exit status."""
    settings = load(name, settings_class)
    if settings is None:
        return EXIT_SETTINGS
    unknown_names = list(unknown(os.environ))
    if check:
        for problem in unknown_names:
            print(f"{name}: {problem}", file=sys.stderr)
        if unknown_names:
            return EXIT_SETTINGS
        print("the settings can be used")
        return 0
    logs.configure(name, settings.raven_log_level, settings.raven_log_format)
    for problem in unknown_names:
        log.warning(problem)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        run(settings, stop)
    except RavenError as error:
        log.critical("ending", extra={"reason": str(error)})
        return EXIT_FAILED
    log.info("stopped")
    return 0


def load(name: str, settings_class: type[S]) -> S | None:
    """Return the settings, or None after saying on standard error all that is wrong with them."""
    try:
        return settings_class.load(os.environ)
    except SettingsError as error:
        for problem in (*error.problems, *unknown(os.environ)):
            print(f"{name}: {problem}", file=sys.stderr)
        return None
