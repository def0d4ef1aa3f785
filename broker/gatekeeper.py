"""ZAP authentication: accepts or rejects each connecting public key.

The Gatekeeper owns the socket at which libzmq requests the authentication of each connection (ZAP, RFC 27); the broker
and its relay process have one each. It is bound before the sockets that it guards; these enforce their ZAP domain, so
no peer connects while the Gatekeeper does not reply. The key has to be on the allow-list now, and its machine may open
a limited number of connections a second. An accepted peer is identified by its key (ZAP's User-Id), not by a name.

Accepted connections are spread: after a restart thousands of agents come back within a second or two, and what they
then send takes several times as long to answer. Replies to libzmq wait, so that requests on open connections do not.
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
from airunner.certs.allowlist import AllowList, AllowListUnreadable
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
WAIT_S: Final = 0.8 * HANDSHAKE_MS / 1_000  # longest wait for a reply: most of the time that a handshake has


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
        self._next_s = -math.inf  # when the next connection may be admitted
        self._waiting: deque[tuple[float, Frames]] = deque()  # replies, and when to send them
        self._joined = Bell()  # rings when a reply has to wait

    async def run(self) -> None:
        """Reply to libzmq's requests until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._send_waiting)
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
                status, key = self._judge(domain, mechanism, credentials)
                answer = [peer, b"", VERSION, request_id, status, b"", key.encode(), b""]
            case _:
                return  # cannot happen: only libzmq reaches this socket, which is inside this process (inproc)
        if status == ALLOWED:
            due_s, now_s = self._next_s, anyio.current_time()
            self._next_s = max(due_s, now_s - BURST_S) + 1 / ADMITTED_PER_S
            if due_s > now_s:
                self._waiting.append((due_s, answer))
                self._joined.ring()
                return
        self._socket.send(answer)

    async def _send_waiting(self) -> None:
        while True:
            while self._waiting:
                due_s, answer = self._waiting.popleft()
                await anyio.sleep_until(due_s)
                self._socket.send(answer)
            await self._joined.wait()

    def _judge(self, domain: bytes, mechanism: bytes, credentials: Frames) -> tuple[bytes, str]:
        if domain != ZAP_DOMAIN or mechanism != b"CURVE" or [len(key) for key in credentials] != [RAW_KEY_BYTES]:
            self._counts.add("peers_refused")
            return REFUSED, ""
        try:
            entry = self._allowed.entry_for(credentials[0])
        except AllowListUnreadable:
            self._counts.add("peers_deferred")
            return TRY_AGAIN, ""
        if entry is None:
            self._counts.add("peers_refused")
            return REFUSED, ""
        key = text_key(credentials[0])
        now_s = anyio.current_time()
        if self._next_s > now_s + WAIT_S or not self._rates.take(Bucket(key, Purpose.MACHINE), int(now_s * 1_000)):
            self._counts.add("peers_deferred")
            return TRY_AGAIN, ""
        self._counts.add("peers_admitted")
        self._admitted()
        return ALLOWED, key
