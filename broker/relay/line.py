"""Socket pair between the broker and its relay process (SOCK_SEQPACKET: each packet arrives whole).

```
 broker ─[topic (16 bytes)][sealed segment; empty: confirms a subscription]─► relay
        ◄─────────────────────── Report, as MessagePack ─────────────────────
```

The kernel buffers some 200 KiB in each direction. When the buffer to the relay is full, the broker drops live events,
which monitors replay; when the buffer to the broker is full, the relay waits, and reads no further subscriptions.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final

import anyio
import anyio.lowlevel
import msgspec
from msgspec import Struct

from airunner.protocol.frames import TOPIC_BYTES
from airunner.transport.ports import Subscription
from airunner.transport.reader import DescriptorReader

PACKET_BYTES_MAX: Final = 8_192  # a live segment takes 2 KiB and its seal; the subscriptions of a Report, 5 KiB
PACKETS_AT_ONCE: Final = 64  # packets received before other tasks run


class Report(Struct, frozen=True, omit_defaults=True):
    """Report of the relay to the broker: its endpoint or its failure, changes of subscriptions, or counters."""

    endpoint: str = ""
    failure: str = ""
    exit_code: int = 1
    changes: tuple[Subscription, ...] = ()
    counts: dict[str, int] = {}


class PacketSocket:
    """Socket of one end of the pair, under anyio."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(0)
        self._socket = end

    def send(self, packet: bytes) -> bool:
        """Send a packet without waiting; False: the socket's buffer is full, or the other end has closed."""
        assert len(packet) <= PACKET_BYTES_MAX
        try:
            self._socket.send(packet)
        except OSError:
            return False
        return True

    async def report(self, report: Report) -> None:
        """Wait for room and send a report; do nothing if the other end has closed, which `receive` detects."""
        packet = msgspec.msgpack.encode(report)
        while True:
            try:
                self._socket.send(packet)
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError:
                return
            else:
                return

    async def receive(self) -> list[bytes]:
        """Wait for packets and receive up to `PACKETS_AT_ONCE`; an empty list: the other end has closed."""
        packets: list[bytes] = []
        while len(packets) < PACKETS_AT_ONCE:
            packet = self._next()
            if packet:
                packets.append(packet)
            elif packet is None and not packets:
                await anyio.wait_readable(self._socket)
            else:
                break  # an end of the stream is found again by the next receive
        await anyio.lowlevel.checkpoint()
        return packets

    async def read(self, accept: Callable[[bytes], None]) -> None:
        """Receive packets and call `accept` with each, in callbacks of asyncio, until the other end has closed."""
        with anyio.CancelScope() as connected:

            def read() -> None:
                for _ in range(PACKETS_AT_ONCE):
                    if not (packet := self._next()):
                        if packet is not None:
                            connected.cancel()
                        return
                    accept(packet)

            await DescriptorReader(self._socket.fileno(), read).run()

    def _next(self) -> bytes | None:
        """Receive a packet; None: none has arrived; empty: the other end has closed."""
        try:
            return self._socket.recv(PACKET_BYTES_MAX)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Close this end, which the other end detects; no task may be waiting for this end."""
        self._socket.close()


def packed(frames: Sequence[bytes]) -> bytes:
    """Pack a live message into one packet."""
    topic, payload = frames
    assert len(topic) == TOPIC_BYTES
    return topic + payload


def unpacked(packet: bytes) -> list[bytes]:
    """Unpack the live message in a packet."""
    return [packet[:TOPIC_BYTES], packet[TOPIC_BYTES:]]
