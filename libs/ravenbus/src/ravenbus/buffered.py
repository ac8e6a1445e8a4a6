"""paho with a buffer under it, and plain messages and PUBACKs taken out of that without paho.

paho asks the system four times for each packet and once to send one, and makes an object of each
part of a message.  This is the only module that knows paho's private parts: what it calls between
two packets, and how it notes a PUBACK.  Tests fail where a later paho has others.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from struct import pack
from typing import Any, Final

from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ravenbus.optional import hidden

# It imports this where it is installed, 3 MB, for brokers that are looked for by SRV records.
with hidden("dns"):
    from paho.mqtt.client import Client

READ_BYTES: Final = 2**16
WRITE_BYTES: Final = 2**16
"""Bytes that are asked for at once, and so many that are not held back any longer."""
READS_MAX: Final = 100
"""Reads before what else there is to do: a ping among it."""
CLOSE_S: Final = 1.0
"""Longest time that the last bytes may take."""
PUBACK, DISCONNECT = 0x40, 0xE0
REASONS: Final = {
    number: ReasonCode(PacketTypes.PUBACK, identifier=number)
    for number in (0, 16, 128, 131, 135, 144, 145, 151, 153)
}
"""What a PUBACK may say (MQTT 5.0, 3.4.2.1)."""
NO_PROPERTIES: Final = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]
MID_BYTES: Final = 2
LENGTH_BYTES, CONTINUES = 4, 0x80
"""Most bytes of a packet's length, of which each but the last has this bit (MQTT 5.0, 1.5.5)."""
PUBLISH, PUBLISH_MASK = 0x30, 0xF4
"""First byte of a message with QoS 0 or 1, and the bits of it that say so (MQTT 5.0, 3.3.1)."""

Message = tuple[int, str, bytes, int, bool]
"""What a PUBLISH packet says: its id (0 with QoS 0), topic, payload, QoS, and if it was retained."""


def _content(data: bytes, at: int) -> tuple[int, int]:
    """Return where a packet's content begins and ends, given its length's place; 0 if it is cut."""
    length = 0
    for number, byte in enumerate(data[at : at + LENGTH_BYTES]):
        length |= (byte & ~CONTINUES) << 7 * number
        if not byte & CONTINUES:
            begin = at + number + 1
            return (begin, begin + length) if begin + length <= len(data) else (0, 0)
    return 0, 0


class BufferedSocket:
    """A non-blocking socket, plain or of TLS, that reads ahead and joins what is written.

    It has the methods that paho calls and no others: one that went past the buffer would lose
    what is in it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._read = b""
        self._at = 0
        self.unsent = bytearray()

    @property
    def ahead(self) -> int:
        """Bytes that are read and were not asked for yet."""
        return len(self._read) - self._at

    def recv(self, buffer_size: int) -> bytes:
        """Return at most ``buffer_size`` bytes, none at the end; raise as a socket does."""
        if self._at == len(self._read):
            self._read, self._at = self._sock.recv(READ_BYTES), 0
        found = self._read[self._at : self._at + buffer_size]
        self._at += len(found)
        return found

    def messages(self) -> Iterator[Message]:
        """Take the messages that come next and are whole, up to the first packet of another kind.

        A message with properties, and one that breaks the standard, is left to paho.
        """
        data = self._read
        while self.ahead and data[self._at] & PUBLISH_MASK == PUBLISH:
            at, after = _content(data, self._at + 1)
            qos = data[self._at] >> 1 & 1
            topic_end = at + 2 + int.from_bytes(data[at : at + 2])
            payload_at = topic_end + 2 * qos + 1
            if not after or payload_at > after or data[payload_at - 1]:
                return
            try:
                topic = data[at + 2 : topic_end].decode()
            except UnicodeDecodeError:
                return
            mid = int.from_bytes(data[topic_end : topic_end + 2]) if qos else 0
            retained = bool(data[self._at] & 1)
            self._at = after
            yield mid, topic, data[payload_at:after], qos, retained

    def pubacks(self) -> Iterator[tuple[int, int]]:
        """Take the PUBACKs that come next and are whole: the id and the reason of each.

        One with properties, and one that breaks the standard, is left to paho.
        """
        data = self._read
        while self.ahead and data[self._at] == PUBACK:
            at, after = _content(data, self._at + 1)
            said_at = at + MID_BYTES
            reason = data[said_at] if said_at < after else 0
            properties = data[said_at + 1 : after]
            if after < said_at or properties not in (b"", b"\0") or reason not in REASONS:
                return
            self._at = after
            yield int.from_bytes(data[at:said_at]), reason

    def pending(self) -> int:
        """Return how many bytes there are for which nobody has to wait."""
        decrypted = getattr(self._sock, "pending", None)
        return self.ahead + (decrypted() if decrypted else 0)

    def send(self, buffer: bytes | bytearray) -> int:
        """Take a packet, which ``flush`` sends; raise as a socket does if there is no room for it.

        There is none for a DISCONNECT before all else is sent: paho closes as soon as it is taken.
        """
        if len(self.unsent) >= WRITE_BYTES or buffer[0] == DISCONNECT:
            self.flush()
        self.unsent += buffer
        return len(buffer)

    def flush(self) -> None:
        """Send what was taken; raise as a socket does, and then some of it is left."""
        while self.unsent:
            del self.unsent[: self._sock.send(self.unsent)]

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """Say whether calls wait."""
        self._sock.setblocking(flag)

    def close(self) -> None:
        """Send what is left, if that can be done soon, and close."""
        with suppress(OSError):
            self._sock.settimeout(CLOSE_S)
            self.flush()
        self._sock.close()


class BufferedClient(Client):
    """paho's client whose network thread reads and writes many packets at once.

    ``on_received`` is called with each message, on that thread.
    """

    def __init__(self, *args: Any, on_received: Callable[[Message], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._buffer: BufferedSocket | None = None
        self._on_received = on_received
        self.on_message = lambda _client, _data, message: on_received(
            (message.mid, message.topic, bytes(message.payload), message.qos, message.retain)
        )

    def connect(self, *args: object, **kwargs: object) -> MQTTErrorCode:
        """Connect as paho does, and put the buffer between; raise OSError."""
        answer = super().connect(*args, **kwargs)  # type: ignore[arg-type]
        if self._sock:
            self._buffer = BufferedSocket(self._sock)  # type: ignore[arg-type] # it is a socket
            self._sock = self._buffer
        return answer

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read on for as long as packets are there and nothing is to be sent."""
        answer = super().loop_read(max_packets)
        reads = 0
        while (
            answer == MQTTErrorCode.MQTT_ERR_SUCCESS
            and self._buffer
            and self._buffer.ahead
            and not self.want_write()
            and (reads := reads + 1) < READS_MAX
        ):
            answer = super().loop_read(max_packets)
        return answer

    def _packet_read(self) -> MQTTErrorCode:
        """Take what is plain, then have paho read a packet."""
        # The first packet of what arrived is always paho's: it notes when it heard of the broker.
        # And so is one of which it has read a part.
        if self._buffer and self._buffer.ahead and not self._in_packet["command"]:
            for message in self._buffer.messages():
                self._on_received(message)
            for mid, reason in self._buffer.pubacks():
                with self._out_message_mutex:
                    if mid in self._out_messages:
                        self._do_on_publish(mid, REASONS[reason], NO_PROPERTIES)
        return super()._packet_read()

    def loop_write(self) -> MQTTErrorCode:
        """Send all that is queued."""
        answer = super().loop_write()
        if self._buffer:
            # A connection that is broken is so for the next read, too.
            with suppress(OSError):
                self._buffer.flush()
        return answer

    def loop_stop(self) -> MQTTErrorCode:
        """End the network thread and close what it waited for, which paho leaves to the collector."""
        answer = super().loop_stop()
        self._reset_sockets()
        return answer

    def want_write(self) -> bool:
        """Return whether there is something to send."""
        return super().want_write() or bool(self._buffer and self._buffer.unsent)

    def alive(self) -> bool:
        """Say whether the network thread runs: is_connected() stays true when it has died."""
        return self._thread is not None

    def bound(self, count: int) -> None:
        """Have so many messages under way at most; paho takes its bound before it connects alone."""
        self._max_inflight_messages = count

    def acknowledge(self, mids: Iterable[int]) -> None:
        """Send the PUBACKs of messages with QoS 1, in order, in one piece."""
        packets = b"".join(pack("!BBH", PUBACK, 2, mid) for mid in mids)
        self._packet_queue(PUBACK, packets, 0, 1)
