"""Socket pair between the broker and its relay process (SOCK_SEQPACKET: each packet arrives whole).

```
 broker ─0[topic (16 bytes)][sealed segment; empty: confirms a subscription]─► relay
         1[topic (16 bytes)][hint; empty: confirms the subscription of a peer]
         2[Peers, as MessagePack]
         3  all listeners are to replay
        ◄──────────────────────── Report, as MessagePack ─────────────────────
```

The first byte of a packet to the relay is its kind. The kernel buffers some 200 KiB in each direction. When the buffer
to the relay is full, the broker drops live events, which monitors replay; when the buffer to the broker is full, the
relay waits, and reads no further subscriptions.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final

import anyio
import anyio.lowlevel
import msgspec
from msgspec import Struct

from airunner.protocol.frames import PEER_TOPIC, PEER_TOPIC_BYTES, TOPIC_BYTES
from airunner.transport.ports import Ending, Subscription
from airunner.transport.reader import DescriptorReader

PACKET_BYTES_MAX: Final = 8_192  # a live segment takes 2 KiB and its seal; the subscriptions of a Report, 5 KiB
LIVE_PACKET: Final = b"\0"
PEERS_PACKET: Final = b"\2"
REPLAY_PACKET: Final = b"\3"
PACKETS_AT_ONCE: Final = 64  # packets received before other tasks run


class Peers(Struct, frozen=True):
    """Peers of the broker, by the endpoints of their live events, and the topic of their hints."""

    endpoints: tuple[str, ...]
    hint_topic: bytes


class PeerState(Struct, frozen=True):
    """State of the connection to a peer: `ending`, the name of the `Ending` of the last one; None: it is connected."""

    endpoint: str
    ending: str | None


class Report(Struct, frozen=True, omit_defaults=True):
    """Report of the relay: its endpoint or failure, changes of subscriptions, counters, a peer's hint or state."""

    endpoint: str = ""
    failure: str = ""
    exit_code: int = 1
    changes: tuple[Subscription, ...] = ()
    counts: dict[str, int] = {}
    hint: bytes = b""
    peer: PeerState | None = None


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
    if len(topic) == PEER_TOPIC_BYTES:
        assert topic.startswith(PEER_TOPIC)
        return topic + payload
    assert len(topic) == TOPIC_BYTES
    return LIVE_PACKET + topic + payload


def unpacked(packet: bytes) -> list[bytes]:
    """Unpack the live message in a packet."""
    start = 0 if packet.startswith(PEER_TOPIC) else len(LIVE_PACKET)
    return [packet[start:PEER_TOPIC_BYTES], packet[PEER_TOPIC_BYTES:]]


def peer_report(endpoint: str, ending: Ending | None) -> Report:
    """Report how the last connection to a peer has ended; None: it is connected."""
    return Report(peer=PeerState(endpoint, None if ending is None else ending.name))
