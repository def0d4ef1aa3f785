"""CurveDealer: a client's or an agent's connection to one broker, for requests.

Behaviour of libzmq that was measured, and what follows from it
- With `RECONNECT_IVL` -1 a DEALER socket tries to connect once, and its monitor reports a failure within a
  millisecond. The Lazy Pirate decides when to try again.
- The monitor reports the descriptor of each new connection. libzmq owns the descriptor: `tcp_info` reads its counts and
  does not duplicate it, because a duplicate would keep the connection open.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import anyio
import zmq

from airunner.transport.anyiosocket import AnyioSocket
from airunner.transport.endpoints import Address
from airunner.transport.ports import QUEUE_MESSAGES_MAX, Ending, Frames
from airunner.transport.resolver import Resolver, is_numeric
from airunner.transport.tcpinfo import tcp_info

_MONITORED: Final = struct.Struct("=Hi")  # first frame of a monitor's message: event and value, zmq_socket_monitor(3)
_ENDINGS: Final = zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED
_BROKEN: Final = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_REFUSED: Final = zmq.EVENT_HANDSHAKE_FAILED_AUTH
_MADE: Final = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED


class CurveDealer:
    """DEALER socket to one broker; see `ports.Dealer`."""

    def __init__(self, raw: zmq.Socket[bytes], address: Address, resolver: Resolver) -> None:
        raw.reconnect_ivl = -1
        monitor = raw.get_monitor_socket(_MADE | _ENDINGS | _BROKEN | _REFUSED)
        self._descriptor = -1
        self._trusted = False  # the handshake has proved that the other end is the broker
        self._ending = Ending.DROPPED
        self._reached = address
        self._carried_bytes = 0  # bytes acknowledged while later bytes were outstanding
        self._socket = AnyioSocket(raw)
        self._monitor = AnyioSocket(monitor)
        self._address = address
        self._resolver = resolver
        self._unsent: list[Sequence[bytes]] | None = None  # messages that wait until the name is resolved
        if is_numeric(address):
            connect(raw, address, ipv6=address.is_ipv6)
        else:
            self._unsent = []

    def send(self, frames: Sequence[bytes]) -> bool:
        """Queue a message without waiting; False when the queue is full."""
        if self._unsent is not None:
            if len(self._unsent) >= QUEUE_MESSAGES_MAX:
                return False
            self._unsent.append(frames)
            return True
        try:
            self._socket.send(frames)
        except zmq.Again:
            return False
        return True

    async def read(self, accept: Callable[[Frames], None]) -> None:
        """Receive messages until cancelled, and call `accept` with each."""
        await self._socket.read(accept)

    async def ended(self) -> Ending:
        """Wait until the connection has ended, and return why."""
        if self._unsent is not None and not await self._resolve():
            return Ending.UNRESOLVED
        with anyio.CancelScope() as connected:
            await self._monitor.read(partial(self._watch, connected))
        if self._ending is Ending.MISMATCHED:
            from airunner.transport.greeting import greets

            return Ending.FORGED if await greets(self._reached) else Ending.MISMATCHED
        return self._ending

    def _watch(self, connected: anyio.CancelScope, frames: Frames) -> None:
        """Process an event of the socket's monitor: an event of a connection that has ended cancels `connected`."""
        happened, value = _MONITORED.unpack(frames[0])
        if happened == zmq.EVENT_CONNECTED:
            self._descriptor = value
        elif happened == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._trusted = True
        elif happened & _REFUSED:
            self._ending = Ending.REFUSED
        elif happened & _BROKEN:
            self._ending = Ending.MISMATCHED
        elif happened & _ENDINGS:
            if self._descriptor < 0:
                self._resolver.failed(self._address)
            self._trusted = False  # the descriptor may already belong to another connection
            connected.cancel()

    async def _resolve(self) -> bool:
        """Look the name up, connect, and send what has waited; return whether the name resolves."""
        try:
            address = await self._resolver.resolve(self._address)
        except OSError:
            return False
        self._reached = address
        connect(self._socket.raw, address, ipv6=address.is_ipv6)
        unsent, self._unsent = self._unsent or [], None
        for frames in unsent:
            self.send(frames)
        return True

    def progress(self) -> int:
        """Return the bytes known to have moved since the broker's handshake.

        Acknowledged bytes count only while later bytes are outstanding: the link is carrying data then. Once all are
        acknowledged, they are in the other end's buffers and do not show whether its program reads them.
        """
        found = tcp_info(self._descriptor) if self._trusted else None
        if found is None:
            return 0
        if found.outstanding:
            self._carried_bytes = found.acked_bytes
        return found.received_bytes + self._carried_bytes

    def close(self) -> None:
        """Close at once."""
        if not self._socket.raw.closed:
            self._socket.raw.disable_monitor()
            self._monitor.close()
            self._socket.close()


def connect(raw: zmq.Socket[bytes], address: Address, *, ipv6: bool) -> None:
    """Begin to connect a socket."""
    raw.ipv6 = ipv6  # with it, libzmq would find only IPv6 addresses of a name that has both
    raw.connect(f"tcp://{address}")
