"""MongoDB's wire protocol as far as a driver of today speaks it to a server.

OP_MSG with a body and document sequences, and OP_QUERY for the first hello of a connection
(MongoDB manual, "MongoDB Wire Protocol"; Handshake specification of the drivers).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, Final

import bson

Document = dict[str, Any]

OP_REPLY: Final = 1
OP_QUERY: Final = 2004
OP_MSG: Final = 2013
CHECKSUM_PRESENT: Final = 1
BODY: Final = 0
_HEADER: Final = struct.Struct("<iiii")
_OPTIONS: Final[bson.CodecOptions[Document]] = bson.CodecOptions(tz_aware=True)


@dataclass
class Message:
    """A command; ``documents`` is its sequence of documents, undecoded, one after another."""

    request: int
    code: int
    body: Document
    documents: memoryview

    @property
    def command(self) -> str:
        """The command's name: the first field."""
        return next(iter(self.body))

    @property
    def count(self) -> int:
        """How many documents the sequence has, by their lengths alone."""
        at = number = 0
        while at < len(self.documents):
            at += int.from_bytes(self.documents[at : at + 4], "little")
            number += 1
        return number

    def decoded(self) -> list[Document]:
        """Return the documents of the sequence."""
        found: list[Document] = bson.decode_all(bytes(self.documents), _OPTIONS)
        return found


def read(connection: socket.socket) -> Message:
    """Return the next message; raise EOFError when the client has gone."""
    length, request, _, code = _HEADER.unpack(_exactly(connection, _HEADER.size))
    rest = memoryview(_exactly(connection, length - _HEADER.size))
    if code == OP_QUERY:
        name = bytes(rest[4:]).index(0) + 4
        return Message(request, code, bson.decode(rest[name + 9 :]), rest[:0])
    (flags,) = struct.unpack_from("<I", rest)
    rest = rest[4 : -4 if flags & CHECKSUM_PRESENT else None]
    body, documents = {}, rest[:0]
    while rest:
        kind, size = rest[0], int.from_bytes(rest[1:5], "little")
        section, rest = rest[1 : 1 + size], rest[1 + size :]
        if kind == BODY:
            body = bson.decode(section, _OPTIONS)
        else:
            documents = section[bytes(section[4:40]).index(0) + 5 :]
    return Message(request, code, body, documents)


def answer(message: Message, document: Mapping[str, Any]) -> bytes:
    """Return the bytes that answer a message."""
    encoded = bson.encode(document)
    if message.code == OP_QUERY:
        code, before = OP_REPLY, struct.pack("<iqii", 0, 0, 0, 1)
    else:
        code, before = OP_MSG, struct.pack("<IB", 0, BODY)
    length = _HEADER.size + len(before) + len(encoded)
    return _HEADER.pack(length, 0, message.request, code) + before + encoded


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = connection.recv(size, socket.MSG_WAITALL)
    if len(found) < size:
        raise EOFError
    return found


class HangUp(Exception):  # noqa: N818 - what happens is no error here
    """Ends a connection after these bytes."""

    def __init__(self, last: bytes = b"") -> None:
        super().__init__()
        self.last = last


class Listener:
    """A TCP port of the loopback whose connections ``talk`` serves, each in a thread."""

    def __init__(self, port: int, talk: Callable[[Connection], None]) -> None:
        listener = self
        self._connections: set[socket.socket] = set()

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                listener._connections.add(self.request)
                self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    with suppress(EOFError, OSError):
                        talk(Connection(self.request))
                finally:
                    listener._connections.discard(self.request)

        class Server(ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

        self.server = Server(("127.0.0.1", port), Handler)

    def close(self) -> None:
        """Refuse connections from now on, and end those that are there."""
        self.server.shutdown()
        self.server.server_close()
        for one in list(self._connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class Connection:
    """A client's connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.authenticated = False

    def serve(self, reply: Callable[[Message], Mapping[str, Any]]) -> None:
        """Answer messages until the client has gone, or ``reply`` raises HangUp."""
        while True:
            message = read(self._socket)
            try:
                self._socket.sendall(answer(message, reply(message)))
            except HangUp as end:
                self._socket.sendall(end.last)
                return
