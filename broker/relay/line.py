"""The relay's line: one pair of sockets between the broker and the process that sends live events. Packets stay whole.

```
 broker ──[topic (16 bytes)][sealed run; nothing: you are subscribed]──► relay
        ◄──────────────────── Report, as MessagePack ────────────────────
```

Neither end keeps what the other does not take: the kernel holds some 200 KiB a direction. What the broker publishes
beyond that is dropped, as on the network, and replayed; the relay waits with what it reports, and reads no further
subscriptions.
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

PACKET_BYTES_MAX: Final = 8_192  # a live run takes 2 KiB and its seal; 64 subscriptions some 5 KiB
PACKETS_AT_ONCE: Final = 64  # then other tasks get their turn


class Report(Struct, frozen=True, omit_defaults=True):
    """What the relay tells the broker: where it listens or why it cannot, who has come or left, and what it counted."""

    endpoint: str = ""
    failure: str = ""
    exit_code: int = 1
    changes: tuple[Subscription, ...] = ()
    counts: dict[str, int] = {}


class Line:
    """One end of it."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(0)
        self._socket = end

    def send(self, packet: bytes) -> bool:
        """Send without waiting; False where the line is full or the other end has gone."""
        assert len(packet) <= PACKET_BYTES_MAX
        try:
            self._socket.send(packet)
        except OSError:
            return False
        return True

    async def report(self, report: Report) -> None:
        """Send when there is room; in vain where the other end has gone, which the receiver notices."""
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
        """The packets that are there, at least one; none, when the other end has gone."""
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
                break  # the end; the next receive meets it again
            packets.append(packet)
        await anyio.lowlevel.checkpoint()
        return packets

    def close(self) -> None:
        """Let go of this end, while nobody waits for it; the other one notices."""
        self._socket.close()


def packed(frames: Sequence[bytes]) -> bytes:
    """A live message as one packet."""
    topic, payload = frames
    assert len(topic) == TOPIC_BYTES
    return topic + payload


def unpacked(packet: bytes) -> list[bytes]:
    """The live message in a packet."""
    return [packet[:TOPIC_BYTES], packet[TOPIC_BYTES:]]
