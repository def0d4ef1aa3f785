"""Line of the relay: a pair of sockets between the broker and the process that sends live events. Packets stay whole.

```
 broker ─[topic (16 bytes)][sealed segment; empty: you are subscribed]─► relay
        ◄──────────────────── Report, as MessagePack ────────────────────
```

Neither end buffers what the other does not read: the kernel holds some 200 KiB a direction. Live events beyond that are
dropped, as on the network, and monitors replay them; the relay waits with its reports, and reads no further
subscriptions meanwhile.
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

PACKET_BYTES_MAX: Final = 8_192  # a live segment takes 2 KiB and its seal; 64 subscriptions some 5 KiB
PACKETS_AT_ONCE: Final = 64  # then other tasks get their turn


class Report(Struct, frozen=True, omit_defaults=True):
    """Report of the relay to the broker: its endpoint or failure, changes of subscriptions, and counts."""

    endpoint: str = ""
    failure: str = ""
    exit_code: int = 1
    changes: tuple[Subscription, ...] = ()
    counts: dict[str, int] = {}


class Line:
    """End of the line."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(0)
        self._socket = end

    def send(self, packet: bytes) -> bool:
        """Send a packet without waiting; False where the line is full or the other end has closed."""
        assert len(packet) <= PACKET_BYTES_MAX
        try:
            self._socket.send(packet)
        except OSError:
            return False
        return True

    async def report(self, report: Report) -> None:
        """Send a report when there is room; does nothing where the other end has closed, which `receive` notices."""
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
        """Receive the packets that have come, at least one; none when the other end has closed."""
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
                break  # the end; the next receive finds it again
            packets.append(packet)
        await anyio.lowlevel.checkpoint()
        return packets

    def close(self) -> None:
        """Close this end, while no task waits for it; the other end notices."""
        self._socket.close()


def packed(frames: Sequence[bytes]) -> bytes:
    """Pack a live message into one packet."""
    topic, payload = frames
    assert len(topic) == TOPIC_BYTES
    return topic + payload


def unpacked(packet: bytes) -> list[bytes]:
    """Unpack the live message in a packet."""
    return [packet[:TOPIC_BYTES], packet[TOPIC_BYTES:]]
