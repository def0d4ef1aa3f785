"""ZAP authentication: accepts or rejects each connecting public key.

The Gatekeeper owns the socket at which libzmq requests the authentication of each connection (ZAP, RFC 27); the broker
and its relay process have one each. It is bound before the sockets that it guards; these enforce their ZAP domain, so
no peer connects while the Gatekeeper does not reply. The key has to be on the allow-list now, and its machine may open
a limited number of connections a second. An accepted peer is identified by its key (ZAP's User-Id), not by a name.

Accepted connections are spread: after a restart thousands of agents come back within a second or two, and what they
then send takes several times as long to answer. Replies to libzmq wait, so that requests on open connections do not.
Clients, and other brokers of a fleet, have a pace of their own: nobody who submits a job waits for thousands of agents.
A peer that would wait too long is told to try again: its handshake would be over before the reply, and replies to such
peers would use up the rate for ever.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final

import anyio

from airunner.broker.counts import Counts
from airunner.broker.rates import Bucket, Purpose, Rates
from airunner.certs.allowlist import AllowList, AllowListUnreadable, PeerRole
from airunner.certs.curve import RAW_KEY_BYTES, text_key
from airunner.transport.anyiosocket import AnyioSocket
from airunner.transport.bell import Bell
from airunner.transport.ports import Frames
from airunner.transport.sockets import HANDSHAKE_MS, ZAP_DOMAIN

VERSION: Final = b"1.0"  # version of ZAP
ALLOWED: Final = b"200"
TRY_AGAIN: Final = b"300"  # ZAP status after which the peer's libzmq connects again
REFUSED: Final = b"400"  # ZAP status after which the peer's libzmq does not connect again by itself
ADMITTED_PER_S: Final = 500  # connections, after a burst: their first requests then take a quarter of the broker's time
BURST_S: Final = 0.1  # seconds of that rate that are admitted at once
_ONLY_AGENT: Final = frozenset({PeerRole.AGENT})
WAIT_S: Final = 0.8 * HANDSHAKE_MS / 1_000  # longest wait for a reply: most of the time that a handshake has


class _Pace:
    """Pace at which one kind of peer is admitted: `ADMITTED_PER_S`, after a burst; further replies wait."""

    def __init__(self, send: Callable[[Frames], None]) -> None:
        self._send = send
        self._next_s = -math.inf  # when the next connection may be admitted
        self._waiting: deque[tuple[float, Frames]] = deque()  # replies, and when to send them
        self._joined = Bell()  # rings when a reply has to wait

    def has_room(self, now_s: float) -> bool:
        """Return whether a reply would be sent within `WAIT_S`."""
        return self._next_s <= now_s + WAIT_S

    def send(self, answer: Frames, now_s: float) -> None:
        """Send a reply that admits a peer, or have it wait."""
        due_s = self._next_s
        self._next_s = max(due_s, now_s - BURST_S) + 1 / ADMITTED_PER_S
        if due_s <= now_s:
            self._send(answer)
        else:
            self._waiting.append((due_s, answer))
            self._joined.ring()

    async def run(self) -> None:
        """Send the replies that wait until cancelled."""
        while True:
            while self._waiting:
                due_s, answer = self._waiting.popleft()
                await anyio.sleep_until(due_s)
                self._send(answer)
            await self._joined.wait()


class Gatekeeper:
    """Gatekeeper actor; its socket is bound before the one that it guards, and peers connect only while it runs.

    `admitted` is called after each connection that it accepts.
    """

    def __init__(
        self,
        socket: AnyioSocket,
        allowed: AllowList,
        counts: Counts,
        rates: Rates,
        admitted: Callable[[], None] = lambda: None,
    ) -> None:
        self._socket = socket
        self._allowed = allowed
        self._counts = counts
        self._rates = rates
        self._admitted = admitted
        self._clients = _Pace(socket.send)
        self._agents = _Pace(socket.send)

    async def run(self) -> None:
        """Reply to libzmq's requests until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._clients.run)
            group.start_soon(self._agents.run)
            while True:
                for frames in await self._socket.receive():
                    self._reply(frames)

    def close(self) -> None:
        """Close the socket; no peer can connect any more."""
        self._socket.close()

    def _reply(self, frames: Frames) -> None:
        """Reply to a request of libzmq: envelope, then version, id, domain, mechanism and credentials."""
        match frames:
            case [peer, b"", b"1.0", request_id, domain, _address, _identity, mechanism, *credentials]:
                now_s = anyio.current_time()
                status, key, pace = self._judge(domain, mechanism, credentials, now_s)
                answer = [peer, b"", VERSION, request_id, status, b"", key.encode(), b""]
            case _:
                return  # cannot happen: only libzmq reaches this socket, which is inside this process (inproc)
        if pace is None:
            self._socket.send(answer)
        else:
            pace.send(answer, now_s)

    def _judge(
        self, domain: bytes, mechanism: bytes, credentials: Frames, now_s: float
    ) -> tuple[bytes, str, _Pace | None]:
        """Judge a peer: return the status for it and, if it is admitted, its key and the pace of its kind."""
        if domain != ZAP_DOMAIN or mechanism != b"CURVE" or [len(key) for key in credentials] != [RAW_KEY_BYTES]:
            self._counts.add("peers_refused")
            return REFUSED, "", None
        try:
            entry = self._allowed.entry_for(credentials[0])
        except AllowListUnreadable:
            self._counts.add("peers_deferred")
            return TRY_AGAIN, "", None
        if entry is None:
            self._counts.add("peers_refused")
            return REFUSED, "", None
        key = text_key(credentials[0])
        pace = self._agents if entry.roles == _ONLY_AGENT else self._clients
        if not pace.has_room(now_s) or not self._rates.take(Bucket(key, Purpose.MACHINE), int(now_s * 1_000)):
            self._counts.add("peers_deferred")
            return TRY_AGAIN, "", None
        self._counts.add("peers_admitted")
        self._admitted()
        return ALLOWED, key, pace
