"""A replica set in memory: documents with a unique ``_id``, a primary, and what a majority has."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bson import Int64, ObjectId

from raven_harness.mongodb import answers
from raven_harness.mongodb.answers import Fault
from raven_harness.mongodb.wire import Connection, Document, HangUp, Listener, Message, answer
from raven_harness.stack import free_port

Data = dict[str, dict[Any, Document]]
"""Documents by namespace and ``_id``."""

NAME: Final = "rs0"
WRITES: Final = ("insert", "update", "delete", "createIndexes")
LIMITS: Final = {
    "maxBsonObjectSize": 16 * 2**20,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "logicalSessionTimeoutMinutes": 30,
    "minWireVersion": 0,
    "maxWireVersion": 25,
    "readOnly": False,
}
"""What a member of version 8.0 says of itself."""


class Member:
    """A member: its address, and the state that its hello tells."""

    def __init__(self, of: ReplicaSet, port: int) -> None:
        self._set = of
        self.port = port
        self.address = f"127.0.0.1:{self.port}"
        self._process = ObjectId()
        self.counter = 0
        self._listener: Listener | None = None

    @property
    def version(self) -> Document:
        """The ``topologyVersion``."""
        return {"processId": self._process, "counter": Int64(self.counter)}

    def start(self) -> None:
        """Listen."""
        self._listener = Listener(self.port, self._talk)
        threading.Thread(
            target=self._listener.server.serve_forever, args=(0.05,), daemon=True
        ).start()

    def stop(self) -> None:
        """Be gone, as after a kill."""
        if self._listener:
            self._listener.close()
            self._listener = None

    def _talk(self, connection: Connection) -> None:
        connection.serve(lambda message: self._set.answer(self, connection, message))


class ReplicaSet:
    """Members, three or as many as ``ports``, of which ``primary`` takes writes, or none does.

    ``local`` is what the primary has and ``majority`` what cannot be rolled back; between them is
    what has not been replicated.  A member that is no primary is so far behind that it has nothing.
    ``faults`` happen once, in order, and ``always`` each time; both are by command.  ``refuses`` has
    the error of documents by ``_id``.  With an ``account``, user and password with a colon between,
    a connection has to give it (mechanism PLAIN).
    """

    def __init__(self, ports: Sequence[int] = ()) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._term = 0
        ports = ports or [free_port() for _ in range(3)]
        self.members = [Member(self, port) for port in ports]
        self.primary: Member | None = None
        self.local: Data = defaultdict(dict)
        self.majority: Data = defaultdict(dict)
        self._pending: list[tuple[str, Any, Document | None]] = []
        self._replicates = True
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.always: dict[str, Fault] = {}
        self.refuses: dict[Any, int] = {}
        self.account: str | None = None
        self.asked: list[Document] = []

    def start(self) -> None:
        """Start the members; the first one is the primary."""
        for member in self.members:
            member.start()
        self.elect(0)

    def stop(self) -> None:
        """End the members."""
        self._change(lambda: setattr(self, "primary", None))
        for member in self.members:
            member.stop()

    @property
    def url(self) -> str:
        """The connection string."""
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/raven?replicaSet={NAME}"

    def elect(self, number: int) -> None:
        """Make a member the primary; it has what a majority has, and the rest is rolled back."""

        def change() -> None:
            self._term += 1
            self.primary = self.members[number]
            self._roll_back()

        self._change(change)

    def step_down(self) -> None:
        """Have no primary; what was not replicated is rolled back."""

        def change() -> None:
            self.primary = None
            self._roll_back()

        self._change(change)

    def replicate(self, on: bool = True) -> None:
        """Have a majority take what the primary has, from now on, or no more."""
        with self._changed:
            self._replicates = on
            self._commit()
            self._changed.notify_all()

    def commands(self, name: str) -> list[Document]:
        """Return the commands of a name that came, without their documents."""
        with self._changed:
            return [one for one in self.asked if name in one]

    def answer(self, member: Member, connection: Connection, message: Message) -> Document:
        """Return what a member answers; raise HangUp."""
        command = message.body
        name = message.command
        if name.lower() in ("hello", "ismaster"):
            return self._hello(member, command)
        if name in ("saslStart", "saslContinue"):
            return self._sasl(member, connection, command)
        with self._changed:
            self.asked.append(command)
            if self.account and not connection.authenticated:
                return answers.failure(13, command, member.version)
            fault = self._fault(name)
            if fault and fault.where == "command" and not fault.applied:
                fault.then()
                return answers.failure(fault.code, command, member.version)
            if name in WRITES:
                return self._write(member, message, fault)
            if (asks := getattr(self, f"_{name}", None)) is None:
                return answers.failure(59, command, member.version)
            if name == "find" and member is not self.primary:
                if command.get("$readPreference", {}).get("mode", "primary") == "primary":
                    return answers.failure(13435, command, member.version)
                return _cursor(command, "find", [])
            found: Document = asks(command)
            if fault:
                fault.then()
                if fault.where == "connection":
                    raise HangUp(_half(message, found))
            return found

    def _change(self, change: Callable[[], None]) -> None:
        with self._changed:
            change()
            for member in self.members:
                member.counter += 1
            self._changed.notify_all()

    def _roll_back(self) -> None:
        self._pending.clear()
        self.local = defaultdict(dict, {name: dict(of) for name, of in self.majority.items()})

    def _commit(self) -> None:
        if self._replicates:
            for name, id_, document in self._pending:
                if document is None:
                    self.majority[name].pop(id_, None)
                else:
                    self.majority[name][id_] = document
            self._pending.clear()

    def _hello(self, member: Member, command: Mapping[str, Any]) -> Document:
        known = command.get("topologyVersion")
        with self._changed:
            if known:
                self._changed.wait_for(
                    lambda: member.counter != known["counter"],
                    command.get("maxAwaitTimeMS", 0) / 1000,
                )
            is_primary = member is self.primary
            found = {
                "helloOk": True,
                "isWritablePrimary": is_primary,
                "ismaster": is_primary,
                "secondary": not is_primary,
                "setName": NAME,
                "setVersion": 1,
                "hosts": [one.address for one in self.members],
                "me": member.address,
                "topologyVersion": member.version,
                **LIMITS,
                "ok": 1.0,
            }
            if self.primary:
                found["primary"] = self.primary.address
            if is_primary:
                found["electionId"] = ObjectId(f"7fffffff{self._term:016x}")
            return found

    def _sasl(self, member: Member, connection: Connection, command: Document) -> Document:
        _, user, password = bytes(command["payload"]).decode().split("\0")
        with self._changed:
            if f"{user}:{password}" != self.account:
                return answers.failure(18, command, member.version)
        connection.authenticated = True
        return {"conversationId": 1, "done": True, "payload": b"", "ok": 1.0}

    def _fault(self, name: str) -> Fault | None:
        waiting = self.faults[name]
        return waiting.popleft() if waiting else self.always.get(name)

    def _write(self, member: Member, message: Message, fault: Fault | None) -> Document:
        command, name = message.body, message.command
        if member is not self.primary:
            return answers.failure(10107, command, member.version)
        namespace = f"{command['$db']}.{command[name]}"
        if name == "createIndexes":
            found: Document = {"n": 0}
        else:
            key = {"insert": "documents", "update": "updates", "delete": "deletes"}[name]
            parts = command.get(key) or message.decoded()
            limit = len(parts) if fault is None or fault.applied is None else fault.applied
            found = getattr(self, f"_{name}")(namespace, parts[:limit])
            if fault and fault.where == "documents":
                rest = range(limit, len(parts))
                found["writeErrors"] += [answers.write_error(at, fault.code) for at in rest]
            if not found["writeErrors"]:
                del found["writeErrors"]
        found["ok"] = 1.0
        if fault:
            fault.then()
        self._commit()
        match fault and fault.where:
            case "command":
                return answers.failure(fault.code, command, member.version)  # type: ignore[union-attr]
            case "connection":
                raise HangUp(_half(message, found))
            case "concern":
                code: int | None = fault.code  # type: ignore[union-attr]
            case _:
                code = self._concern(member, command.get("writeConcern", {}))
        if code is not None:
            found["writeConcernError"] = answers.concern_error(code)
            if code in answers.STATE:
                found["topologyVersion"] = member.version
        return found

    def _concern(self, member: Member, concern: Mapping[str, Any]) -> int | None:
        """Wait for what a write asks for; return the error's code if it does not come about.

        It waits for the member's last operation, also where it changed nothing (``LastOpFixer`` in
        ``write_ops_exec.cpp``).
        """
        if concern.get("w") != "majority":
            return None
        end = time.monotonic() + concern.get("wtimeout", 0) / 1000
        while self.primary is member and self._pending:
            left = end - time.monotonic()
            if concern.get("wtimeout") and left <= 0:
                return 64
            self._changed.wait(left)
        return None if self.primary is member else 189

    def _put(self, namespace: str, id_: Any, document: Document | None) -> None:
        if document is None:
            del self.local[namespace][id_]
        else:
            self.local[namespace][id_] = document
        self._pending.append((namespace, id_, document))

    def _insert(self, namespace: str, documents: list[Document]) -> Document:
        errors = []
        for index, document in enumerate(documents):
            id_ = document["_id"]
            if id_ in self.refuses:
                errors.append(answers.write_error(index, self.refuses[id_]))
            elif id_ in self.local[namespace]:
                errors.append(answers.duplicate(index, namespace, id_))
            else:
                self._put(namespace, id_, document)
        return {"n": len(documents) - len(errors), "writeErrors": errors}

    def _update(self, namespace: str, updates: list[Document]) -> Document:
        matched = modified = 0
        upserted, errors = [], []
        for index, one in enumerate(updates):
            query, change = one["q"], one["u"]
            found = next(_found(self.local[namespace].values(), query), None)
            if not found and not one.get("upsert"):
                continue
            matched += 1
            if not found and query["_id"] in self.local[namespace]:
                matched -= 1
                errors.append(answers.duplicate(index, namespace, query["_id"]))
                break
            old = found or {}
            new = _changed(old, change, query)
            if not found:
                upserted.append({"index": index, "_id": new["_id"]})
            if new != old:
                modified += bool(found)
                self._put(namespace, new["_id"], new)
        result: Document = {"n": matched, "nModified": modified, "writeErrors": errors}
        return result | ({"upserted": upserted} if upserted else {})

    def _delete(self, namespace: str, deletes: list[Document]) -> Document:
        count = 0
        for one in deletes:
            for found in list(_found(self.local[namespace].values(), one["q"])):
                self._put(namespace, found["_id"], None)
                count += 1
                if one["limit"]:
                    break
        return {"n": count, "writeErrors": []}

    def _find(self, command: Document) -> Document:
        namespace = f"{command['$db']}.{command['find']}"
        found = list(_found(self.local[namespace].values(), command.get("filter", {})))
        found = found[: abs(command.get("limit", 0)) or None]
        wanted = {"_id", *command["projection"]} if command.get("projection") else None
        shown = [{k: v for k, v in one.items() if not wanted or k in wanted} for one in found]
        return _cursor(command, "find", shown)

    def _listIndexes(self, command: Document) -> Document:  # noqa: N802 - the command's name
        return _cursor(command, "listIndexes", [{"v": 2, "key": {"_id": 1}, "name": "_id_"}])

    def _ping(self, _command: Document) -> Document:
        return {"ok": 1.0}

    def _endSessions(self, _command: Document) -> Document:  # noqa: N802 - the command's name
        return {"ok": 1.0}


def _cursor(command: Document, name: str, documents: list[Document]) -> Document:
    namespace = f"{command['$db']}.{command[name]}"
    return {"cursor": {"id": Int64(0), "ns": namespace, "firstBatch": documents}, "ok": 1.0}


def _half(message: Message, document: Document) -> bytes:
    whole = answer(message, document)
    return whole[: len(whole) // 2]


def _changed(old: Document, change: Document, query: Document) -> Document:
    if not any(name.startswith("$") for name in change):
        return {"_id": query["_id"], **change}
    equal = {k: v for k, v in query.items() if not isinstance(v, dict)}
    start = old or equal | change.get("$setOnInsert", {})
    return {**start, **change.get("$set", {})}


def _found(documents: Iterable[Document], query: Document) -> Any:
    return (one for one in documents if all(_is(one.get(k), v) for k, v in query.items()))


def _is(value: Any, wanted: Any) -> bool:
    if not (isinstance(wanted, dict) and any(one.startswith("$") for one in wanted)):
        return bool(value == wanted)
    return all(_COMPARED[how](value, other) for how, other in wanted.items())


_COMPARED: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$in": lambda value, other: value in other,
    "$nin": lambda value, other: value not in other,
    "$ne": lambda value, other: bool(value != other),
    "$gt": lambda value, other: value is not None and bool(value > other),
    "$gte": lambda value, other: value is not None and bool(value >= other),
    "$lt": lambda value, other: value is not None and bool(value < other),
    "$lte": lambda value, other: value is not None and bool(value <= other),
}
