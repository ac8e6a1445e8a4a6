"""Errors as MongoDB words them.

Codes and names are those of the server's ``src/mongo/base/error_codes.yml``.  Where they stand in
an answer is what its ``write_ops_exec.cpp`` does (``handleError``): an interruption fails the whole
command though documents before it are stored, while another error is that of a document and the
others go on, which includes a stepdown; a routing error is that of all documents that follow.
A write concern that was not reached stands beside the result (manual, "Write Concern").
The label ``RetryableWriteError`` is for commands with a transaction number alone (drivers'
specification "Retryable Writes"), and ``topologyVersion`` is for errors of a member's state
("Server Discovery and Monitoring").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

Document = dict[str, Any]


class Wording(NamedTuple):
    """An error's name and message."""

    name: str
    text: str


WORDINGS: Final = {
    2: Wording("BadValue", "cannot use 'j' option when a host does not have journaling enabled"),
    13: Wording("Unauthorized", "not authorized on raven to execute command"),
    18: Wording("AuthenticationFailed", "Authentication failed."),
    50: Wording("MaxTimeMSExpired", "operation exceeded time limit"),
    59: Wording("CommandNotFound", "no such command"),
    64: Wording("WriteConcernTimeout", "waiting for replication timed out"),
    91: Wording("ShutdownInProgress", "The server is in quiesce mode and will shut down"),
    100: Wording(
        "UnsatisfiableWriteConcern",
        "Not enough data-bearing voting nodes are currently available to satisfy the write concern",
    ),
    121: Wording("DocumentValidationFailure", "Document failed validation"),
    189: Wording("PrimarySteppedDown", "Primary stepped down while waiting for replication"),
    262: Wording("ExceededTimeLimit", "operation was interrupted: it took too long"),
    10107: Wording("NotWritablePrimary", "not primary"),
    10334: Wording("BSONObjectTooLarge", "object to insert too large"),
    11000: Wording("DuplicateKey", "E11000 duplicate key error"),
    11600: Wording("InterruptedAtShutdown", "interrupted at shutdown"),
    11602: Wording("InterruptedDueToReplStateChange", "operation was interrupted"),
    13388: Wording("StaleConfig", "version mismatch detected for raven.instantaneous_demand"),
    13435: Wording("NotPrimaryNoSecondaryOk", "not primary and secondaryOk=false"),
    14031: Wording("OutOfDiskSpace", "available disk space is below the configured threshold"),
}
STATE: Final = frozenset({91, 189, 10107, 11600, 11602, 13435})
"""Errors of a member's state, which tell a driver to look for the primary again."""
RETRYABLE: Final = STATE | {262}


@dataclass(frozen=True)
class Fault:
    """What happens to a command; it comes about by one of the functions below.

    ``applied`` documents are stored before, all where it is None; ``then`` happens before a
    majority has them, and before the answer.
    """

    code: int
    where: str
    applied: int | None = 0
    then: Callable[[], None] = lambda: None


def refused(code: int, applied: int = 0, then: Callable[[], None] = lambda: None) -> Fault:
    """Return that the whole command fails, though documents are stored."""
    return Fault(code, "command", applied, then)


def in_part(code: int, applied: int, then: Callable[[], None] = lambda: None) -> Fault:
    """Return that documents are stored and each after them has an error."""
    return Fault(code, "documents", applied, then)


def unconfirmed(code: int, then: Callable[[], None] = lambda: None) -> Fault:
    """Return that all is stored and the write concern has an error."""
    return Fault(code, "concern", None, then)


def cut_off(applied: int | None, then: Callable[[], None] = lambda: None) -> Fault:
    """Return that the connection ends in the middle of the answer."""
    return Fault(0, "connection", applied, then)


def answered(then: Callable[[], None]) -> Fault:
    """Return that the command is answered as ever, after something else happened."""
    return Fault(0, "nothing", None, then)


def failure(code: int, command: Document, version: Document) -> Document:
    """Return the answer that a command failed."""
    found: Document = {"ok": 0.0, **error(code)}
    if code in STATE:
        found["topologyVersion"] = version
    if code in RETRYABLE and "txnNumber" in command:
        found["errorLabels"] = ["RetryableWriteError"]
    return found


def error(code: int) -> Document:
    """Return an error as part of an answer."""
    name, text = WORDINGS[code]
    return {"code": code, "codeName": name, "errmsg": text}


def concern_error(code: int) -> Document:
    """Return the error of a write concern."""
    provenance = {"writeConcern": {"w": "majority", "j": True, "provenance": "clientSupplied"}}
    return error(code) | {"errInfo": provenance | ({"wtimeout": True} if code == 64 else {})}  # noqa: PLR2004 - WriteConcernTimeout


def write_error(index: int, code: int) -> Document:
    """Return the error of one document."""
    return {"index": index, "code": code, "errmsg": WORDINGS[code].text}


def duplicate(index: int, namespace: str, id_: Any) -> Document:
    """Return the error of a document whose ``_id`` is there."""
    text = f'E11000 duplicate key error collection: {namespace} index: _id_ dup key: {{ _id: "{id_}" }}'
    key = {"keyPattern": {"_id": 1}, "keyValue": {"_id": id_}}
    return {"index": index, "code": 11000, **key, "errmsg": text}
