"""Lazy Pirate: ask, wait, on silence go to the next broker and ask the same again.

One `LazyPirate` is the state of one connection that carries many requests at once. It owns no socket and
no clock: every method takes `now_ms`, any steadily rising count of milliseconds, and returns what is to be
done. The laws it keeps:

- A request is asked under one request id until it is answered or forgotten. The broker makes a repeat
  harmless, so nothing here has to guess whether the first was heard.
- A request that stays unanswered on a living connection is asked again after its patience, then twice it, …:
  a single message can be lost too.
- Any traffic proves life. Silence for `HEARTBEAT_MS` while something is owed brings a Ping, `MISSES_MAX` of
  them unanswered end the connection, so a parked request may wait long and a dead broker not. Each Ping has
  its full time, however late `tick` is called: a process that was stopped for a while loses no connection.
- On a slow link a message that is on its way for long is no silence: bytes that move meanwhile are signs of life, for
  as long as the largest message can take, and each piece of a large request earns the time that it takes unseen.
- What can be asked in smaller pieces is not sent again as it was over the next connection (`Resize`), and what is small
  goes first.
- Between two connections lies a pause with full jitter, so a thousand agents do not return at once.

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
from airunner.protocol.messages import Ping, Refused, Reply
from airunner.protocol.names import RequestId

HEARTBEAT_MS: Final = 2_000  # any traffic counts; three misses mean: next endpoint
MISSES_MAX: Final = 3
BACKOFF_FIRST_MS: Final = 50
BACKOFF_LAST_MS: Final = 5_000
PATIENCE_MS: Final = 10_000  # for an answer on a living connection; a parked request adds its own wait
PATIENCE_LAST_MS: Final = 120_000
PENDING_MAX: Final = 4_096  # requests in flight on one connection
SLOWEST_BYTES_A_S: Final = 8_192  # of a link that is provided for
MISS_BYTES: Final = SLOWEST_BYTES_A_S * HEARTBEAT_MS // 1_000  # of requests owed, each for one more miss
HIDDEN_BYTES_MAX: Final = 131_072  # of these: a batch of events, which a proxy may have swallowed at once
MOVING_MS_MAX: Final = 1_000 * BODY_BYTES_MAX // SLOWEST_BYTES_A_S  # within which a whole message comes over any link

_NEVER_MS: Final = 2**63
PING_ID: Final = NO_REQUEST
PING: Final = encode(Ping())


class Connect(Struct, frozen=True):
    """Open a socket to `endpoint`; there is none now."""

    endpoint: str


class Disconnect(Struct, frozen=True):
    """Close the socket."""


class Send(Struct, frozen=True):
    """Send this request on the open socket."""

    request_id: RequestId
    body: bytes


class Resize(Struct, frozen=True):
    """Ask this again in a smaller piece, by `LazyPirate.resized`: the connection that it was sent on has ended."""

    request_id: RequestId


class Deliver(Struct, frozen=True):
    """The answer to a request; it is owed no more."""

    request_id: RequestId
    reply: Reply


Action = Connect | Disconnect | Send | Resize | Deliver


class _Pending(Struct):
    body: bytes
    patience_ms: int
    resend_ms: int
    resizable: bool = False
    sent: bool = False
    busy: bool = False  # answered so, and not asked again since
    busy_count: int = 0


def full_jitter_ms(random: Callable[[], float], failures: int, first_ms: int, last_ms: int) -> int:
    """A pause drawn evenly from nothing to an exponentially growing bound; `random` gives [0, 1)."""
    return int(random() * min(last_ms, first_ms * 2 ** min(failures, 32)))


class LazyPirate:
    """The requests that one connection owes an answer to, and the state of that connection."""

    def __init__(self, endpoints: Sequence[str], random: Callable[[], float]) -> None:
        assert endpoints, "a broker's endpoint is needed"
        self._endpoints = tuple(endpoints)
        self._random = random
        self._turn = 0
        self._pending: dict[RequestId, _Pending] = {}
        self._open = False
        self._reopen_ms = 0
        self._ping_ms = 0
        self._pings = 0
        self._heard_ms = 0
        self._moving = False  # since the last Ping
        self._failures = 0
        self._heard = False
        self._unheard_since_ms: int | None = None
        self._resend_ms = _NEVER_MS

    @property
    def endpoint(self) -> str:
        """The endpoint in use, or the next to be tried."""
        return self._endpoints[self._turn % len(self._endpoints)]

    @property
    def reachable(self) -> bool:
        """Whether the broker has said anything since this connection was opened."""
        return self._open and self._heard

    @property
    def unheard_since_ms(self) -> int | None:
        """Since when an answer is owed and no broker has been heard; None while all is well."""
        return self._unheard_since_ms

    @property
    def pending(self) -> int:
        """How many requests are owed an answer; `PENDING_MAX` is the most."""
        return len(self._pending)

    def ask(
        self,
        request_id: RequestId,
        body: bytes,
        now_ms: int,
        patience_ms: int = PATIENCE_MS,
        *,
        resizable: bool = False,
    ) -> list[Action]:
        """Take on one request; `patience_ms` is how long an answer may take on a living connection, beside its way.

        With `resizable` each further connection brings a `Resize` for it.
        """
        assert request_id not in self._pending, "one id, one request"
        assert request_id != PING_ID, "the id of our own Pings"
        assert len(self._pending) < PENDING_MAX, "the shell bounds what is in flight"
        if not self._pending:
            self._quiet(now_ms)
            self._resend_ms = _NEVER_MS
        if not self.reachable and self._unheard_since_ms is None:
            self._unheard_since_ms = now_ms
        patience_ms += 1_000 * min(len(body), HIDDEN_BYTES_MAX) // SLOWEST_BYTES_A_S
        pending = self._pending[request_id] = _Pending(body, patience_ms, now_ms + patience_ms, resizable)
        self._resend_ms = min(self._resend_ms, now_ms + patience_ms)
        if self._open:
            return [self._send(request_id, pending, now_ms)]
        return self._reopen(now_ms) if now_ms >= self._reopen_ms else []

    def resized(self, request_id: RequestId, smaller_id: RequestId, body: bytes, now_ms: int) -> list[Action]:
        """Have `body` asked under another id, in the place of a request that was to be resized."""
        assert smaller_id not in self._pending, "one id, one request"
        pending = self._pending[smaller_id] = self._pending.pop(request_id)
        pending.body = body
        return [self._send(smaller_id, pending, now_ms)] if self._open else []

    def forget(self, request_id: RequestId) -> None:
        """Nobody waits for this answer any more."""
        self._pending.pop(request_id, None)
        if not self._pending:
            self._unheard_since_ms = None

    def heard(self, request_id: RequestId, reply: Reply, now_ms: int) -> list[Action]:
        """Take in one reply; one that nobody waits for only proves life."""
        self._quiet(now_ms)
        self._heard = True
        self._heard_ms = now_ms
        self._unheard_since_ms = None
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
        """The connection ended, or could not be made."""
        if not self._open:
            return []
        self._open = False
        self._turn += 1
        if self._pending and self._unheard_since_ms is None:
            self._unheard_since_ms = now_ms
        self._reopen_ms = now_ms + self._pause_ms(self._failures)
        self._failures += 1
        return [Disconnect()]

    def tick(self, now_ms: int, *, moved: bool = False) -> list[Action]:
        """Do what is due at `now_ms`; `moved`: since the last call bytes have come from the broker or gone to it."""
        if not self._pending:
            return []
        if not self._open:
            return self._reopen(now_ms) if now_ms >= self._reopen_ms else []
        if moved:
            self._moving = True
            self._unheard_since_ms = None
        if now_ms < self._ping_ms:
            return self._resend(now_ms)
        moving, self._moving = self._moving, False
        self._ping_ms = now_ms + HEARTBEAT_MS
        if moving and self._pings and now_ms - self._heard_ms < MOVING_MS_MAX:
            self._pings = 1
            self._put_off(now_ms)
            return []
        if self._pings >= self._misses_max():
            return [*self.dropped(now_ms), *self.tick(now_ms)]
        self._pings += 1
        return [Send(PING_ID, PING), *self._resend(now_ms)]

    def deadline_ms(self) -> int | None:
        """When `tick` is next to be called; None while nothing is owed."""
        if not self._pending:
            return None
        if not self._open:
            return self._reopen_ms
        return min(self._ping_ms, self._resend_ms)

    def _reopen(self, now_ms: int) -> list[Action]:
        self._open = True
        self._heard = False
        self._heard_ms = now_ms
        self._quiet(now_ms)
        by_size = sorted(self._pending.items(), key=lambda owed: len(owed[1].body))
        asks = [
            Resize(request_id) if pending.resizable and pending.sent else self._send(request_id, pending, now_ms)
            for request_id, pending in by_size
        ]
        self._resend_ms = min(pending.resend_ms for pending in self._pending.values())
        return [Connect(self.endpoint), *asks]

    def _misses_max(self) -> int:
        """How many Pings may stay unanswered: some more while the link may have to carry what shows no movement."""
        owed_bytes = sum(len(pending.body) for pending in self._pending.values())
        return MISSES_MAX + min(owed_bytes, HIDDEN_BYTES_MAX) // MISS_BYTES

    def _put_off(self, now_ms: int) -> None:
        """Ask nothing again that may still be on its way."""
        for pending in self._pending.values():
            if not pending.busy:
                pending.resend_ms = max(pending.resend_ms, now_ms + pending.patience_ms)
        self._resend_ms = min(pending.resend_ms for pending in self._pending.values())

    def _resend(self, now_ms: int) -> list[Action]:
        if now_ms < self._resend_ms:
            return []
        due: list[Action] = []
        for request_id, pending in self._pending.items():
            if now_ms >= pending.resend_ms:
                if not pending.busy:
                    pending.patience_ms = max(pending.patience_ms, min(PATIENCE_LAST_MS, 2 * pending.patience_ms))
                due.append(self._send(request_id, pending, now_ms))
        self._resend_ms = min(pending.resend_ms for pending in self._pending.values())
        return due

    def _send(self, request_id: RequestId, pending: _Pending, now_ms: int) -> Send:
        pending.resend_ms = now_ms + pending.patience_ms
        pending.sent = True
        pending.busy = False
        return Send(request_id, pending.body)

    def _quiet(self, now_ms: int) -> None:
        self._ping_ms = now_ms + HEARTBEAT_MS
        self._pings = 0
        self._moving = False

    def _pause_ms(self, failures: int) -> int:
        return full_jitter_ms(self._random, failures, BACKOFF_FIRST_MS, BACKOFF_LAST_MS)
