"""Log lines: an event and its key=value pairs, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

_STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}


def configure(service: str, level: str, style: Literal["text", "json"]) -> None:
    """Send every log line of the process to standard error, ``extra`` as key=value pairs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(service) if style == "json" else _Text(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class Sparse:
    """Logs what may come a thousand times a minute: the first of a kind, then a count an hour."""

    EVERY_S = 3600.0

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def warning(self, event: str, kind: str, **extra: object) -> None:
        """Log a warning unless one of the same event and kind was logged in the last hour."""
        now = self._clock()
        logged_at, unlogged = self._last.get((event, kind), (float("-inf"), 0))
        if now - logged_at < self.EVERY_S:
            self._last[event, kind] = logged_at, unlogged + 1
            return
        self._last[event, kind] = now, 0
        more = {"not_logged_since": unlogged} if unlogged else {}
        self._log.warning(event, extra={"reason": kind, **extra, **more})


class _Text(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in _extra(record).items())
        head = f"{_time(record)} {record.levelname.lower():7} {self._service}"
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{head}: {record.getMessage()}{pairs}{trace}"


class _Json(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "service": self._service,
            "event": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _quoted(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not set(text) & set(' "='):
        return text
    # What a terminal obeys, or what ends a line, is escaped.
    return json.dumps(text, ensure_ascii=not text.isprintable())
