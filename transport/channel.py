"""Channel to a broker: sends requests with their tokens, and receives replies, over one connection at a time.

`Channel` is the shell around `protocol.reconnect.LazyPirate`, which decides what to send and when. The Channel owns the
socket, the clock and the waiting tasks; it is an actor: `run` is its loop, and `ask` its message. Agents and clients
use the same class. At most `PENDING_MAX` requests are in flight, and `Patience` bounds the wait for a silent broker.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from airunner.protocol.coding import decode_reply, encode, error_of
from airunner.protocol.errors import (
    EXIT_NO_PERMISSION,
    EXIT_UNAVAILABLE,
    BadRequest,
    OperatorError,
    PeerError,
    Unsupported,
)
from airunner.protocol.frames import REVISION, pack_request, unpack_reply, unserved
from airunner.protocol.message import Asking, Message, reply_type
from airunner.protocol.names import RequestId
from airunner.protocol.reconnect import (
    PENDING_MAX,
    PING,
    PING_ID,
    Action,
    Connect,
    Deliver,
    Disconnect,
    LazyPirate,
    Resize,
    Send,
)
from airunner.protocol.replies import Nudge, Pong, Refused, Reply
from airunner.protocol.requestsize import RequestSize
from airunner.transport.bell import Bell
from airunner.transport.endpoints import forged, mismatched, unanswered, unlisted, unresolved
from airunner.transport.patience import NOTICE_S, UNBOUNDED, Patience
from airunner.transport.ports import Dealer, Edges, Ending, Frames, Network

_Reply = TypeVar("_Reply", bound=Message)
_log = logging.getLogger("airunner.channel")
FORGED_MIN: Final = 2  # failed handshakes in a row with a server that greets: one that restarts may greet after one
MISMATCHES_REPORTED: Final = 3  # failed handshakes in a row after which they are reported, once; a restart causes one
ERROR_CHARS_MAX: Final = 500  # of the decoder's message in the error for an undecodable reply


class _Waiter:
    """Call of `ask` in progress; `asked` is the class of the reply."""

    def __init__(self, request_id: RequestId, asked: type[Message], smaller: Callable[[], Message] | None) -> None:
        self.request_id = request_id
        self.asked = asked
        self.smaller = smaller
        self.sized = smaller is not None  # whether its reply is still to be measured for `request_size`
        self.sent_ms = 0
        self.sent_bytes = 0
        self.done = anyio.Event()  # the reply or failure is here
        self.reply: Reply | None = None
        self.failure: OperatorError | None = None


class Channel:
    """Channel for requests to a broker; after a lost connection the next of `endpoints` is tried.

    `token` returns the token to present, at each send. `nudged` is called when the broker asks for a heartbeat.
    Run it in a task group with `await group.start(channel.run)`; cancel the group to end it.
    """

    def __init__(
        self,
        network: Network,
        endpoints: Sequence[str],
        token: Callable[[], bytes],
        edges: Edges,
        patience: Patience = UNBOUNDED,
        nudged: Callable[[], None] = lambda: None,
    ) -> None:
        self._network = network
        self._token = token
        self._edges = edges
        self._patience = patience
        self.nudged = nudged
        self._pirate = LazyPirate(endpoints, edges.random)
        self._waiters: dict[RequestId, _Waiter] = {}
        self._room = anyio.Semaphore(PENDING_MAX, fast_acquire=True)
        self._answered = Bell()  # a request is over, and its id may be used again
        self._changed = Bell()
        self._reachable_changed = Bell()  # a connection's broker was first heard, or the connection ended
        self._asleep_until_ms = -math.inf
        self._clock_s: Callable[[], float] = anyio.current_time
        self._group: TaskGroup | None = None
        self._dealer: Dealer | None = None
        self._progress = 0  # bytes moved on this connection, at the last call of `_bytes_moved`
        self._connection = anyio.CancelScope()
        self._failure: OperatorError | None = None
        self._ever_heard = False
        self.silent = False
        self._mismatches = 0
        self._forged = 0
        self._endpoints = frozenset(endpoints)
        self._refused: set[str] = set()  # endpoints that refused us since a broker was last heard
        self.connections = 0  # number of connections opened; after a change the broker may be another, or restarted
        self.request_size = RequestSize()

    @property
    def endpoint(self) -> str:
        """Endpoint in use."""
        return self._pirate.endpoint

    async def ask(
        self,
        request: Asking[_Reply],
        *,
        request_id: RequestId | None = None,
        wait_ms: int = 0,
        smaller: Callable[[], Asking[_Reply]] | None = None,
    ) -> _Reply:
        """Send `request` and return the broker's reply, of the class that the request names.

        `smaller` is for requests that move `request_size.bytes_max` bytes of a log: after each lost connection it is
        called for a smaller request, which is sent over the next connection instead, and whose reply is returned.

        The broker may hold the request for `wait_ms`. Without a reply for `RESEND_AFTER_MS` more it is sent again.

        Raises `PeerError`: refused; `BadRequest`: reply of another class; `OperatorError`: no broker was heard within
        `Patience`, or none accepts this key or revision.
        """
        request_id = request_id or self._edges.new_request_id()
        waiter = _Waiter(request_id, asked := reply_type(type(request)), smaller)
        async with self._room:
            while request_id in self._waiters:  # the same request is in flight
                await self._answered.wait()
            if self._failure is not None:
                raise self._failure
            self._waiters[request_id] = waiter
            if debugging := _log.isEnabledFor(logging.DEBUG):
                _log.debug("asking %s %s", type(request).__name__, request_id.hex())
            try:
                body = encode(request)
                self._do(self._pirate.ask(request_id, body, self.now_ms(), wait_ms=wait_ms, resizable=waiter.sized))
                self._wake_in_time()
                await waiter.done.wait()
            finally:
                if waiter.sized and waiter.sent_ms and not waiter.done.is_set():  # as by the end of a lease
                    self.request_size.cut_off(self.now_ms() - waiter.sent_ms)
                del self._waiters[waiter.request_id]
                self._pirate.forget(waiter.request_id)
                self._answered.ring()
        if waiter.failure is not None:
            raise waiter.failure
        if debugging:
            _log.debug("%s %s is answered: %s", type(request).__name__, request_id.hex(), _loggable(waiter.reply))
        assert waiter.reply is not None, "the request is done without a reply"
        if isinstance(waiter.reply, Refused):
            raise error_of(waiter.reply)
        if not isinstance(waiter.reply, asked):
            raise BadRequest(f"the broker replied to {type(request).__name__} with {type(waiter.reply).__name__}")
        return waiter.reply

    async def gone(self, silence_s: float) -> None:
        """Return once no broker has been reachable for `silence_s` seconds without interruption."""
        while True:
            while self._pirate.reachable:
                await self._reachable_changed.wait()
            with anyio.move_on_after(silence_s) as silence:
                while not self._pirate.reachable:
                    await self._reachable_changed.wait()
            if silence.cancelled_caught:
                return

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the actor's loop."""
        # The clock itself: `anyio.current_time` finds the event loop first, which it cannot always in a callback.
        self._clock_s = anyio.lowlevel.current_token().backend_class.current_time
        try:
            async with anyio.create_task_group() as self._group:
                task_status.started()
                while True:
                    await self._sleep()
                    self._do(self._pirate.tick(self.now_ms(), moved=self._bytes_moved()))
                    self._notice()
        finally:
            self._disconnect()

    async def _sleep(self) -> None:
        """Sleep until an action of the Lazy Pirate or a bound of the patience is due, or `_wake_in_time` wakes it."""
        self._asleep_until_ms = self._due_ms()
        # + 1: a wake-up that is a fraction of a millisecond early would find nothing due, and this loop would spin.
        with anyio.CancelScope(deadline=(self._asleep_until_ms + 1) / 1_000):
            await self._changed.wait()
        self._asleep_until_ms = -math.inf

    def _wake_in_time(self) -> None:
        """Wake the loop if its next action is due sooner than it planned; usually it is not."""
        if self._due_ms() < self._asleep_until_ms:
            self._changed.ring()

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(request_id, body):
                    self._send(request_id, body)
                case Deliver(request_id, reply):
                    if waiter := self._waiters.get(request_id):
                        waiter.reply = reply
                        waiter.done.set()
                case Connect(endpoint):
                    self._connect(endpoint)
                case Disconnect():
                    _log.debug("leaving %s", self.endpoint)
                    self._disconnect()
                case Resize(request_id):
                    self._resize(self._waiters[request_id])

    def _send(self, request_id: RequestId, body: bytes) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("sending %s, %d bytes, to %s", request_id.hex(), len(body), self.endpoint)
        if self._dealer is not None and (request_id != PING_ID or self._pirate.reachable):
            self._dealer.send(pack_request(request_id, self._token(), body))
        if (waiter := self._waiters.get(request_id)) is not None and waiter.sized:
            waiter.sent_ms = self.now_ms()
            waiter.sent_bytes = len(body)

    def _resize(self, waiter: _Waiter) -> None:
        """Replace a request by a smaller one under another id, because an id always names the same request."""
        assert waiter.smaller is not None, "the request is not resizable"
        was = waiter.request_id
        del self._waiters[was]
        waiter.request_id = self._edges.new_request_id()
        self._waiters[waiter.request_id] = waiter
        self._do(self._pirate.resized(was, waiter.request_id, encode(waiter.smaller()), self.now_ms()))

    def _bytes_moved(self) -> bool:
        """Return whether bytes were received or sent since the last call."""
        progress = 0 if self._dealer is None else self._dealer.progress()
        moved, self._progress = progress > self._progress, progress
        return moved

    def _connect(self, endpoint: str) -> None:
        """Open a socket and send a Ping, which any revision answers; it is the only one until a broker is heard."""
        assert self._group is not None, "the channel does not run"
        _log.debug("connecting to %s", endpoint)
        if any(waiter.sized and waiter.sent_ms for waiter in self._waiters.values()):
            self.request_size.broken()
        self._progress = 0
        self._dealer = self._network.dealer(endpoint)
        self._dealer.send(pack_request(PING_ID, b"", PING))
        self.connections += 1
        self._connection = anyio.CancelScope()
        self._group.start_soon(self._listen, self._dealer, self._connection)

    def _disconnect(self) -> None:
        self._connection.cancel()
        self._dealer = None
        self._reachable_changed.ring()

    async def _listen(self, dealer: Dealer, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(dealer.read, partial(self._accept, dealer))
                    self._ended(await dealer.ended())
        finally:
            dealer.close()

    def _accept(self, dealer: Dealer, frames: Frames) -> None:
        """Process a message from the broker; it must not wait."""
        if dealer is not self._dealer:
            return  # it was read after the connection was given up
        try:
            request_id, body = unpack_reply(frames)
        except PeerError:
            return  # not a reply of this protocol; the request is sent again
        reply = _read_reply(body, self._waiters.get(request_id))
        if message := _incompatible(reply):
            self._refuse_endpoint(f"{message} ({self.endpoint})", EXIT_UNAVAILABLE, may_change=True)
            self._do(self._pirate.dropped(self.now_ms()))
            self._wake_in_time()
            return
        self._ever_heard = True
        self._mismatches = 0
        self._forged = 0
        self._refused.clear()
        if isinstance(reply, Nudge):
            self.nudged()
        reachable = self._pirate.reachable
        self._do(self._pirate.heard(request_id, reply, self.now_ms()))
        self.silent = self.silent and self._pirate.away
        self._measure(request_id, len(body))
        if not reachable:
            self._reachable_changed.ring()
        self._wake_in_time()

    def _measure(self, request_id: RequestId, reply_bytes: int) -> None:
        """Adjust `request_size` after the reply to a request whose size depends on it."""
        waiter = self._waiters.get(request_id)
        if waiter is not None and waiter.sized and waiter.reply is not None:
            waiter.sized = False
            size_bytes = max(waiter.sent_bytes, reply_bytes)
            self.request_size.answered(size_bytes, self.now_ms() - waiter.sent_ms)

    def _ended(self, ending: Ending) -> None:
        _log.debug("the connection to %s has ended: %s", self.endpoint, ending.name)
        self._mismatches = self._mismatches + 1 if ending in (Ending.MISMATCHED, Ending.FORGED) else 0
        self._forged = self._forged + 1 if ending is Ending.FORGED else 0
        if ending is Ending.REFUSED:
            self._refuse_endpoint(unlisted(self.endpoint), EXIT_NO_PERMISSION, may_change=self._ever_heard)
        elif ending is Ending.UNRESOLVED and (self._patience.doubt is not None or not self._ever_heard):
            self._refuse_endpoint(unresolved(self.endpoint), EXIT_UNAVAILABLE, may_change=True)
        elif self._forged == FORGED_MIN and (self._patience.doubt is not None or not self._ever_heard):
            self._refuse_endpoint(forged(self.endpoint), EXIT_NO_PERMISSION, may_change=True)
        elif self._mismatches == MISMATCHES_REPORTED and not self._forged and self._patience.doubt is not None:
            self._patience.doubt(mismatched(self.endpoint))
        self._do(self._pirate.dropped(self.now_ms()))
        self._reachable_changed.ring()
        self._wake_in_time()

    def _notice(self) -> None:
        """Report a silence once, and fail all requests when the patience ends."""
        since_ms = self._pirate.unheard_since_ms
        if since_ms is None:
            return
        bound_s = self._patience.bound_s(heard=self._ever_heard)
        waited_s = (self.now_ms() - since_ms) / 1_000
        if bound_s is not None and waited_s >= bound_s:
            if self._mismatches and not self._ever_heard:
                self._fail(OperatorError(mismatched(self.endpoint), exit_code=EXIT_NO_PERMISSION))
            else:
                words = unanswered(self.endpoint, bound_s, away=self._pirate.away)
                self._fail(OperatorError(words, exit_code=EXIT_UNAVAILABLE))
        elif waited_s >= NOTICE_S and not self.silent and self._patience.notice is not None:
            self.silent = True
            self._patience.notice(self.endpoint, None if bound_s is None else bound_s - waited_s)

    def _due_ms(self) -> float:
        """Return when an action of the Lazy Pirate or a bound of the patience is due."""
        due_ms = math.inf if (at_ms := self._pirate.deadline_ms()) is None else at_ms
        if (since_ms := self._pirate.unheard_since_ms) is not None:
            due_ms = min(due_ms, self._patience.due_ms(since_ms, heard=self._ever_heard, noticed=self.silent))
        return due_ms

    def _refuse_endpoint(self, message: str, exit_code: int, *, may_change: bool) -> None:
        """Record that this endpoint refuses us, and fail all requests if every endpoint does.

        If the refusal `may_change`, an agent (which sets `Patience.doubt`) reports it once and waits on instead.
        """
        reported = bool(self._refused)
        self._refused.add(self.endpoint)
        if may_change and self._patience.doubt is not None:
            if not reported:
                self._patience.doubt(message)
        elif self._refused >= self._endpoints:
            self._failure = OperatorError(message, exit_code=exit_code)
            self._fail(self._failure)

    def _fail(self, failure: OperatorError) -> None:
        for request_id, waiter in self._waiters.items():
            self._pirate.forget(request_id)
            waiter.failure = failure
            waiter.done.set()

    def now_ms(self) -> int:
        """Return the time of the event loop's clock, in ms; a callback of the event loop may call this."""
        return int(self._clock_s() * 1_000)


def _read_reply(body: bytes, waiter: _Waiter | None) -> Reply:
    """Decode a reply; an undecodable one becomes `Refused`, because a repeat would bring the same bytes."""
    try:
        return decode_reply(body, None if waiter is None else waiter.asked)
    except PeerError as error:
        message = f"the broker's reply cannot be decoded: {error.message[:ERROR_CHARS_MAX]}"
        return Refused(code=PeerError.code, message=message)


def _incompatible(reply: Reply) -> str | None:
    """Return why the broker cannot be used, if its reply says that it does not serve our revision; otherwise None."""
    match reply:
        case Pong(revisions=revisions) if REVISION not in revisions:
            return unserved(REVISION, revisions)
        case Refused(code=Unsupported.code, message=message):
            return message
        case _:
            return None


def _loggable(reply: Reply | None) -> str:
    """Return the kind of a reply for the log, and a refusal's message; other content may hold secrets."""
    return f"{reply.code}: {reply.message}" if isinstance(reply, Refused) else type(reply).__name__
