"""TCP links that can be cut, refused and stalled: what a network does, without its rights."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Final, Self

from raven_harness.stack import free_port

PIECE: Final = 65536
CUT, REFUSE, STALL, STALL_OUT, STALL_BACK = "cut", "refuse", "stall", "stall-out", "stall-back"


class Links:
    """All links; they live in one thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._links: list[Link] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(self, port: int) -> Link:
        """Return a link to a port of the loopback, which listens on a port of its own."""
        link = Link(port, self._loop)
        asyncio.run_coroutine_threadsafe(link.listen(), self._loop).result()
        self._links.append(link)
        return link

    async def _end(self) -> None:
        for link in self._links:
            link.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Link:
    """One link.  Several may hold it in a mode at once: the modes add up until each is released."""

    def __init__(self, to_port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.port = free_port()
        self._to_port = to_port
        self._loop = loop
        self._modes: Counter[str] = Counter()
        self._open = {STALL_OUT: asyncio.Event(), STALL_BACK: asyncio.Event()}
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def hold(self, mode: str) -> None:
        """Put the link into a mode; ``cut`` ends the connections there are and is over."""
        self._do(self._change(mode, 1))

    def release(self, mode: str) -> None:
        """Take the mode back; connections that were stalled go on."""
        self._do(self._change(mode, -1))

    def _do(self, change: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(change, self._loop).result()

    async def listen(self) -> None:
        """Take connections."""
        for gate in self._open.values():
            gate.set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    def close(self) -> None:
        """Listen no more, and end every connection."""
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _change(self, mode: str, by: int) -> None:
        self._modes[mode] += by
        for way, gate in self._open.items():
            stalled = self._modes[STALL] or self._modes[way]
            gate.clear() if stalled else gate.set()
        if by > 0 and mode in (CUT, REFUSE):
            for writer in self._writers:
                writer.transport.abort()
        if self._modes[REFUSE] and self._server:
            self._server.close()
            self._server = None
        elif not self._modes[REFUSE] and not self._server:
            await self.listen()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.ExitStack() as ended:
            self._keep(writer, ended)
            # A black hole takes no connection further either.
            await self._open[STALL_OUT].wait()
            try:
                to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
            except OSError:
                return
            self._keep(to_writer, ended)
            pumps = [
                asyncio.create_task(self._pump(reader, to_writer, self._open[STALL_OUT])),
                asyncio.create_task(self._pump(to_reader, writer, self._open[STALL_BACK])),
            ]
            await asyncio.wait(pumps)

    def _keep(self, writer: asyncio.StreamWriter, ended: contextlib.ExitStack) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writers.add(writer)
        ended.callback(writer.transport.abort)
        ended.callback(self._writers.discard, writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        """Pass on what comes until an end closes; then close the other."""
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                await gate.wait()
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(OSError):
            await gate.wait()
            writer.close()
