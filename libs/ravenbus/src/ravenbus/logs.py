"""Log lines: an event and its key=value pairs, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

_STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}


def configure(service: str, level: str, style: Literal["text", "json"]) -> None:
    """Send every log line of the process to standard error, ``extra`` as key=value pairs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(service) if style == "json" else _Text(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


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
    return (
        text if text and not set(text) & set(' "=\n\r\t') else json.dumps(text, ensure_ascii=False)
    )
