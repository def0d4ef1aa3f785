"""Lazy Pirate: sends a request, waits, and on silence sends the same request to the next broker.

One `LazyPirate` is the state of one channel: many requests, and one connection at a time. It owns no socket and no
clock: methods take `now_ms`, any steadily rising count of milliseconds, and return the actions to carry out. Its rules:

- A request keeps its request id until it is answered, forgotten or resized. The broker makes a repeat harmless, so
  this code never has to guess whether the first request arrived.
- A request without an answer on a living connection is sent again after `RESEND_AFTER_MS`, then after twice that, and
  so on up to `RESEND_AFTER_LAST_MS`, because a single message can be lost too.
- Any traffic proves life. Silence for `HEARTBEAT_MS` while an answer is owed causes a Ping, and `MISSES_MAX`
  unanswered Pings end the connection: so a parked request may wait long, and a dead broker is noticed soon. Each Ping
  has its full time, however late `tick` is called: a process that was stopped for a while loses no connection.
- A broker that says in a Pong that its store is away is left for the next one, if there are several.
- While the broker may hold all requests that are owed, silence is expected: then the first Ping comes later, by the
  shortest time for which it may hold one. So thousands of idle agents do not keep a broker busy with Pings.
- On a slow link a long transfer does not count as silence: bytes that move are signs of life, for as long as the
  largest message can take. A large request in flight also allows more misses, because a proxy may hide its bytes.
- A request that can be made smaller is not sent unchanged over the next connection (`Resize`), and small requests go
  first.
- Between two connections lies a pause with full jitter, so that a thousand agents do not return at once.

```
          ask                       dropped, or MISSES_MAX × HEARTBEAT_MS of silence
CLOSED ────────► OPEN (Connect, Send…) ────────────────────────────► WAITING (Disconnect)
                  ▲                                                     │ pause over: next endpoint,
                  └───────────── Connect, Send all that is owed ◄───────┘
```

Sources: "Reliable Request-Reply Patterns" in the ZeroMQ guide, https://zguide.zeromq.org/docs/chapter4/;
"Exponential Backoff And Jitter", AWS Architecture Blog (full jitter).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from airunner.protocol.coding import encode
from airunner.protocol.errors import Busy
from airunner.protocol.frames import BODY_BYTES_MAX, NO_REQUEST
from airunner.protocol.names import RequestId
from airunner.protocol.replies import Pong, Refused, Reply
from airunner.protocol.requests import Ping

HEARTBEAT_MS: Final = 2_000  # of silence before a Ping, and then for its reply
MISSES_MAX: Final = 3  # unanswered Pings, after which the next endpoint is tried
BACKOFF_FIRST_MS: Final = 50  # bound of the pause after the first failure
BACKOFF_LAST_MS: Final = 5_000  # bound of the pause after many failures
RESEND_AFTER_MS: Final = 10_000  # without an answer on a living connection; a parked request adds its own wait
RESEND_AFTER_LAST_MS: Final = 120_000  # bound of that time, which doubles when a request is sent again
PENDING_MAX: Final = 4_096  # requests in flight on one connection
SLOWEST_BYTES_A_S: Final = 8_192  # speed of the slowest link that is supported
MISS_BYTES: Final = SLOWEST_BYTES_A_S * HEARTBEAT_MS // 1_000  # of unanswered requests that allow one more miss
HIDDEN_BYTES_MAX: Final = 131_072  # of requests that a proxy may have buffered, so that their progress is not seen
MOVING_MS_MAX: Final = 1_000 * BODY_BYTES_MAX // SLOWEST_BYTES_A_S  # for the largest message on the slowest link

_NEVER_MS: Final = 2**63
PING_ID: Final = NO_REQUEST
PING: Final = encode(Ping())


class Connect(Struct, frozen=True):
    """Action: open a socket to `endpoint`; none is open."""

    endpoint: str


class Disconnect(Struct, frozen=True):
    """Action: close the socket."""


class Send(Struct, frozen=True):
    """Action: send this request on the open socket."""

    request_id: RequestId
    body: bytes


class Resize(Struct, frozen=True):
    """Action: replace this request by a smaller one with `LazyPirate.resized`; its connection has ended."""

    request_id: RequestId


class Deliver(Struct, frozen=True):
    """Action: hand the reply to the caller; the request is no longer pending."""

    request_id: RequestId
    reply: Reply


Action = Connect | Disconnect | Send | Resize | Deliver


class _Pending(Struct):
    body: bytes
    resend_after_ms: int
    resend_ms: int
    wait_ms: int = 0  # for which the broker may hold the request
    resizable: bool = False
    sent: bool = False
    busy: bool = False  # refused as busy, and not sent again since
    busy_count: int = 0


def full_jitter_ms(random: Callable[[], float], failures: int, first_ms: int, last_ms: int) -> int:
    """Draw a pause evenly from zero to an exponentially growing bound; `random` returns a number in [0, 1)."""
    return int(random() * min(last_ms, first_ms * 2 ** min(failures, 32)))


class LazyPirate:
    """State of a channel: its unanswered requests, its connection, and whether the broker is alive."""

    def __init__(self, endpoints: Sequence[str], random: Callable[[], float]) -> None:
        assert endpoints, "no endpoint is given"
        self._endpoints = tuple(endpoints)
        self._random = random
        self._turn = 0
        self._pending: dict[RequestId, _Pending] = {}
        self._open = False
        self._reopen_ms = 0
        self._ping_ms = 0
        self._silent_since_ms = 0  # when a reply was first owed, the connection opened, or anything heard
        self._pings = 0
        self._heard_ms = 0  # when anything was heard, or the connection was opened
        self._moving = False  # whether bytes have moved since the last Ping
        self._failures = 0
        self._heard = False
        self.unheard_since_ms: int | None = None  # since when a reply is owed in silence; None: not at present
        self.away = False  # whether the store of the broker that was heard last is away: it answers nothing but Pings
        self._resend_ms = _NEVER_MS

    @property
    def endpoint(self) -> str:
        """Endpoint in use, or the next to be tried."""
        return self._endpoints[self._turn % len(self._endpoints)]

    @property
    def reachable(self) -> bool:
        """Whether the broker has sent anything since this connection was opened."""
        return self._open and self._heard

    def ask(
        self,
        request_id: RequestId,
        body: bytes,
        now_ms: int,
        resend_after_ms: int = RESEND_AFTER_MS,
        *,
        wait_ms: int = 0,
        resizable: bool = False,
    ) -> list[Action]:
        """Add a request, which the broker may hold for `wait_ms`.

        Without a reply it is sent again after that, `resend_after_ms` and its transfer, on a living connection.
        A `resizable` request causes a `Resize` at each further connection.
        """
        assert request_id not in self._pending, "a request of this id is in flight"
        assert request_id != PING_ID, "this id is reserved for Pings"
        assert len(self._pending) < PENDING_MAX, "too many requests are in flight"
        if not self._pending:
            self._begin_silence(now_ms)
            self._resend_ms = _NEVER_MS
        if not self.reachable and self.unheard_since_ms is None:
            self.unheard_since_ms = now_ms
        self._ping_ms = min(self._ping_ms, now_ms + HEARTBEAT_MS)
        after_ms = resend_after_ms + wait_ms + 1_000 * min(len(body), HIDDEN_BYTES_MAX) // SLOWEST_BYTES_A_S
        pending = self._pending[request_id] = _Pending(body, after_ms, now_ms + after_ms, wait_ms, resizable)
        self._resend_ms = min(self._resend_ms, now_ms + after_ms)
        if self._open:
            return [self._send(request_id, pending, now_ms)]
        return self._reopen(now_ms) if now_ms >= self._reopen_ms else []

    def resized(self, request_id: RequestId, smaller_id: RequestId, body: bytes, now_ms: int) -> list[Action]:
        """Send `body` under another id instead of a request that was to be resized."""
        assert smaller_id not in self._pending, "a request of this id is in flight"
        pending = self._pending[smaller_id] = self._pending.pop(request_id)
        pending.body = body
        return [self._send(smaller_id, pending, now_ms)] if self._open else []

    def forget(self, request_id: RequestId) -> None:
        """Forget a request: its caller no longer waits for the reply."""
        self._pending.pop(request_id, None)
        if not self._pending:
            self.unheard_since_ms = None

    def heard(self, request_id: RequestId, reply: Reply, now_ms: int) -> list[Action]:
        """Process a reply: deliver it, or plan a repeat if the broker is busy; an unexpected one only proves life."""
        self._begin_silence(now_ms)
        self._heard = True
        self._heard_ms = now_ms
        self.away = isinstance(reply, Pong) and not reply.ready
        if not self.away:
            self.unheard_since_ms = None
        elif self._pending and self.unheard_since_ms is None:
            self.unheard_since_ms = now_ms
        if self.away and len(self._endpoints) > 1:
            return self.dropped(now_ms)  # it counts as a failure: if no broker is ready, the pauses grow
        self._failures = 0
        pending = self._pending.get(request_id)
        if pending is None:
            return []
        if isinstance(reply, Refused) and (reply.code == Busy.code or reply.retry_ms is not None):
            pending.resend_ms = now_ms + 1 + (reply.retry_ms or 0) + self._pause_ms(pending.busy_count)
            pending.busy = True
            pending.busy_count += 1
            self._resend_ms = min(self._resend_ms, pending.resend_ms)
            return []
        del self._pending[request_id]
        return [Deliver(request_id, reply)]

    def dropped(self, now_ms: int) -> list[Action]:
        """Return the actions after the connection ended or could not be made."""
        if not self._open:
            return []
        self._open = False
        self._turn += 1
        if self._pending and self.unheard_since_ms is None:
            self.unheard_since_ms = now_ms
        self._reopen_ms = now_ms + self._pause_ms(self._failures)
        self._failures += 1
        return [Disconnect()]

    def tick(self, now_ms: int, *, moved: bool = False) -> list[Action]:
        """Return the actions due at `now_ms`; `moved`: bytes were received or sent since the last call."""
        if not self._pending:
            return []
        if not self._open:
            return self._reopen(now_ms) if now_ms >= self._reopen_ms else []
        if moved:
            self._moving = True
            self.unheard_since_ms = self.unheard_since_ms if self.away else None
        if now_ms < self._ping_ms:
            return self._resend(now_ms)
        if now_ms < (expected_ms := self._silent_since_ms + HEARTBEAT_MS + self._expected_ms()):
            self._ping_ms = expected_ms
            return self._resend(now_ms)
        moving, self._moving = self._moving, False
        self._ping_ms = now_ms + HEARTBEAT_MS
        if moving and self._pings and now_ms - self._heard_ms < MOVING_MS_MAX:
            self._pings = 1
            self._postpone(now_ms)
            return []
        if self._pings >= self._misses_max():
            return [*self.dropped(now_ms), *self.tick(now_ms)]
        self._pings += 1
        return [Send(PING_ID, PING), *self._resend(now_ms)]

    def deadline_ms(self) -> int | None:
        """Return when to call `tick` next; None while no reply is owed."""
        if not self._pending:
            return None
        if not self._open:
            return self._reopen_ms
        return min(self._ping_ms, self._resend_ms)

    def _reopen(self, now_ms: int) -> list[Action]:
        self._open = True
        self._heard = False
        self._heard_ms = now_ms
        self._begin_silence(now_ms)
        by_size = sorted(self._pending.items(), key=lambda owed: len(owed[1].body))
        asks = [
            Resize(request_id) if pending.resizable and pending.sent else self._send(request_id, pending, now_ms)
            for request_id, pending in by_size
        ]
        self._resend_ms = min(pending.resend_ms for pending in self._pending.values())
        return [Connect(self.endpoint), *asks]

    def _expected_ms(self) -> int:
        """Return how much longer a silence may be than usual before the first Ping."""
        if self._pings or not self._heard:
            return 0
        return min(pending.wait_ms for pending in self._pending.values())

    def _misses_max(self) -> int:
        """Return how many Pings may stay unanswered: more while bytes may move unseen."""
        owed_bytes = sum(len(pending.body) for pending in self._pending.values())
        return MISSES_MAX + min(owed_bytes, HIDDEN_BYTES_MAX) // MISS_BYTES

    def _postpone(self, now_ms: int) -> None:
        """Postpone the repeats of requests that may still be in transit."""
        for pending in self._pending.values():
            if not pending.busy:
                pending.resend_ms = max(pending.resend_ms, now_ms + pending.resend_after_ms)
        self._resend_ms = min(pending.resend_ms for pending in self._pending.values())

    def _resend(self, now_ms: int) -> list[Action]:
        if now_ms < self._resend_ms:
            return []
        due: list[Action] = []
        for request_id, pending in self._pending.items():
            if now_ms >= pending.resend_ms:
                if not pending.busy:
                    doubled_ms = min(RESEND_AFTER_LAST_MS, 2 * pending.resend_after_ms)
                    pending.resend_after_ms = max(pending.resend_after_ms, doubled_ms)
                due.append(self._send(request_id, pending, now_ms))
        self._resend_ms = min(pending.resend_ms for pending in self._pending.values())
        return due

    def _send(self, request_id: RequestId, pending: _Pending, now_ms: int) -> Send:
        pending.resend_ms = now_ms + pending.resend_after_ms
        pending.sent = True
        pending.busy = False
        return Send(request_id, pending.body)

    def _begin_silence(self, now_ms: int) -> None:
        self._silent_since_ms = now_ms
        self._ping_ms = now_ms + HEARTBEAT_MS
        self._pings = 0
        self._moving = False

    def _pause_ms(self, failures: int) -> int:
        return full_jitter_ms(self._random, failures, BACKOFF_FIRST_MS, BACKOFF_LAST_MS)
