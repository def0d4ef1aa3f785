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
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.lowlevel
import msgspec
from msgspec import Struct

from airunner.protocol.frames import TOPIC_BYTES
from airunner.transport.ports import Subscription

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
            try:
                packet = self._socket.recv(PACKET_BYTES_MAX)
            except BlockingIOError:
                if packets:
                    break
                await anyio.wait_readable(self._socket)
                continue
            except ConnectionError:
                packet = b""
            if not packet:
                break  # end of the stream, which the next receive finds again
            packets.append(packet)
        await anyio.lowlevel.checkpoint()
        return packets

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
