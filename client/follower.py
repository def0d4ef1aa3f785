"""Follower actor: feeds a monitor with every event of a job, once and in order.

It is the shell around `protocol.follow.Follow`, which decides what is next and when to replay. The monitor iterates
over `Events`.

```
 LiveEvents ──sealed segment──► inbox ──► Follow ──► events ──► the monitor's `async for`
 Channel ─────page────────────►   (bounded)            (bounded)
```

The first page brings the key of live events too, unless the job has finished. WatchJob brings it over a new connection,
and from an older broker. A live segment that arrives while the Follower waits reaches the monitor without it: it is
opened where it is received.

Both queues are bounded. A monitor that is slower than its job makes the Follower wait; then live segments are dropped
at the full inbox, and the Follower replays them later: memory stays flat and nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct

from airunner.client.batches import BatchIterator
from airunner.client.live import LiveEvents
from airunner.client.reach import Reach
from airunner.client.refusals import refusal_of
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import OperatorError, PeerError
from airunner.protocol.events import Event, LiveSegment
from airunner.protocol.follow import Follow
from airunner.protocol.replies import JobEventsReplayed, JobWatched
from airunner.protocol.requests import ReplayJobEvents, WatchJob
from airunner.transport.channel import Channel

INBOX_SEGMENTS_MAX: Final = 128  # live segments of at most 2 KiB, and a page, that wait for the Follower
PAGES_MAX: Final = 32  # pages that a client requests at once; unread ones wait in the broker, up to 1 MiB each
AHEAD_MAX: Final = 2  # pages, decompressed up to 2 MiB each, that wait for the monitor

Failure = PeerError | OperatorError
_Input = JobEventsReplayed | JobWatched | Failure | list[Event] | bytes

_segment_decoder = msgspec.msgpack.Decoder(LiveSegment)


class Connection(Struct, frozen=True):
    """Connection of a client, which its followers share; `pages` bounds how many replays they request at once.

    The functions `closing` are called before it is closed.
    """

    reach: Reach
    group: TaskGroup
    channel: Channel
    live: LiveEvents
    pages: anyio.Semaphore
    closing: set[Callable[[], Awaitable[None]]]


class Follower:
    """Follower actor: puts the events that come over `connection` into `output`; cancel `scope` to end it."""

    def __init__(
        self,
        connection: Connection,
        follow: Follow,
        output: MemoryObjectSendStream[list[Event] | Failure],
        scope: anyio.CancelScope,
    ) -> None:
        self._follow = follow
        self._channel = connection.channel
        self._live = connection.live
        self._pages = connection.pages
        self._output = output
        self._scope = scope
        self._to_inbox, self._inbox = anyio.create_memory_object_stream[_Input](INBOX_SEGMENTS_MAX)
        self._leave: Callable[[], None] | None = None  # ends the subscription
        self._source: tuple[str, bytes] = ("", b"")  # endpoint of the live events, and the watch key
        self._first = True  # whether the first page is still to come: its request asks for the watch key too
        self._watch_in_flight = True  # whether a request for the watch key is in flight
        self._watched_connection = 0  # `Channel.connections` at the last JobWatched
        self._missed = False  # whether live segments were dropped at the full inbox
        # Whether the task waits and its inbox is empty; only then may `_hear` hand events to the monitor past it.
        self._waits = False
        self._waits_to_ms = math.inf  # until when it waits at the latest

    async def run(self) -> None:
        """Feed the monitor until the job's last event, a failure, or `scope` is cancelled."""
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    await self._feed(group)
                    group.cancel_scope.cancel()
        finally:
            if self._leave is not None:
                self._leave()
            for stream in (self._to_inbox, self._inbox, self._output):
                stream.close()

    async def _feed(self, group: TaskGroup) -> None:
        while not self._follow.finished:
            reconnected = self._watched_connection != self._channel.connections  # perhaps to another broker
            if not (self._watch_in_flight or self._follow.job_ended) and (self._leave is None or reconnected):
                self._watch_in_flight = True
                group.start_soon(self._ask, WatchJob(job_id=self._follow.job_id))
            if (request := self._follow.request(self._channel.request_size.bytes_max)) is not None:
                group.start_soon(self._ask, msgspec.structs.replace(request, watch=True) if self._first else request)
            received = await self._next()
            if isinstance(received, (PeerError, OperatorError)):
                await self._hand_over(received)
                return
            try:
                events = self._process(received)
            except PeerError as failure:  # CorruptLog: the stored log is damaged
                await self._hand_over(failure)
                return
            if events and not await self._hand_over(events):
                return

    async def _ask(self, request: WatchJob | ReplayJobEvents) -> None:
        """Send a request, and put the reply or the error into the inbox."""
        answer: _Input
        try:
            if isinstance(request, WatchJob):
                answer = await self._channel.ask(request)
            else:
                size = self._channel.request_size
                async with self._pages:
                    answer = await self._channel.ask(request, smaller=lambda: self._follow.smaller(size.bytes_max))
        except PeerError as error:
            answer = refusal_of(error, request)
        except OperatorError as error:
            answer = error
        self._waits = False  # what is live comes after this answer, and so through the inbox too
        await self._to_inbox.send(answer)

    async def _next(self) -> _Input | None:
        """Receive the next input; None when the deadline came first."""
        with suppress(anyio.WouldBlock):
            return self._inbox.receive_nowait()
        self._waits_to_ms = self._deadline_ms()
        with anyio.CancelScope(deadline=(self._waits_to_ms + 1) / 1_000):
            self._waits = True
            try:
                return await self._inbox.receive()
            finally:
                self._waits = False
        with suppress(anyio.WouldBlock):
            return self._inbox.receive_nowait()  # it came as the deadline did; it may have the last event
        return None

    def _deadline_ms(self) -> float:
        deadline_ms = self._follow.deadline_ms()
        return math.inf if deadline_ms is None else deadline_ms

    def _process(self, received: _Input | None) -> list[Event]:
        """Process an input, and return the events that are next in order."""
        events: list[Event] = []
        match received:
            case None:
                self._follow.tick(self._channel.now_ms())
            case JobWatched():
                self._listen(received)
            case JobEventsReplayed():
                events = self._follow.replayed(received, self._channel.now_ms())
                if self._first:
                    self._first = self._watch_in_flight = False
                    if received.watched is not None:
                        self._listen(received.watched)
            case b"":  # the subscription is confirmed
                self._follow.want_replay()
            case bytes():
                events = self._live_segment(received)
            case list():
                events = received
            case _:
                raise AssertionError("a failure was not handed to the monitor")
        if self._missed:
            self._missed = False
            self._follow.want_replay()
        return events

    def _live_segment(self, sealed: bytes) -> list[Event]:
        """Open a sealed segment and return the events that are next; a forged or broken segment is ignored."""
        from airunner.certs.sealed import open_sealed  # a client that only submits starts 7 ms sooner without it

        try:
            segment = _segment_decoder.decode(open_sealed(self._source[1], sealed))
            return self._follow.live(segment, self._channel.now_ms())
        except (PeerError, *UNDECODABLE):
            return []  # the gap is replayed

    def _listen(self, watched: JobWatched) -> None:
        from airunner.certs.sealed import topic_of

        self._watch_in_flight = False
        self._watched_connection = self._channel.connections
        host = self._channel.endpoint.rpartition(":")[0]  # the broker publishes on another port of the same host
        source = (f"{host}:{watched.events_port}", watched.watch_key)
        if self._leave is not None:
            if source == self._source:
                return  # the socket subscribes again by itself
            self._leave()
        self._source = source
        self._leave = self._live.listen(source[0], topic_of(watched.watch_key), self._hear)

    def _hear(self, sealed: bytes) -> None:
        """Hand the events of a live segment to the monitor at once, while the task waits; otherwise it is queued."""
        received: _Input = sealed
        if self._waits and sealed:
            events = received = self._live_segment(sealed)
            if not self._task_is_due() and self._hand_over_nowait(events):
                return
        self._waits = False
        try:
            self._to_inbox.send_nowait(received)  # never drops events: the task that waits takes them at once
        except anyio.WouldBlock:
            self._missed = True

    def _task_is_due(self) -> bool:
        """Return whether the waiting task has something to do before it was to wake up."""
        return self._follow.finished or self._follow.wants_replay or self._deadline_ms() < self._waits_to_ms

    def _hand_over_nowait(self, events: list[Event]) -> bool:
        """Hand events to the monitor without waiting; False: it reads too slowly, or no more."""
        try:
            if events:
                self._output.send_nowait(events)
        except (anyio.WouldBlock, anyio.BrokenResourceError):
            return False
        return True

    async def _hand_over(self, item: list[Event] | Failure) -> bool:
        """Hand events or a failure to the monitor; False: it has stopped reading."""
        try:
            await self._output.send(item)
        except anyio.BrokenResourceError:
            return False
        return True


class Events(BatchIterator[Event]):
    """Events of a job, for `async for`; the iteration ends after JOB_FINISHED.

    Following starts when the first event is awaited. A caller that leaves the loop earlier must drop the object,
    call `close`, or use `async with`. Only one task at a time may iterate.

    The loop raises `PeerError` (`NotFound` for a job that does not exist) and `OperatorError`.
    """

    def __init__(self, connection: Connection, follow: Follow) -> None:
        super().__init__()
        self._connection = connection
        self._follow = follow
        self._scope = anyio.CancelScope()
        self._input: MemoryObjectReceiveStream[list[Event] | Failure] | None = None
        self._closed = False

    async def _receive(self) -> list[Event]:
        if self._closed:
            return []
        if self._input is None:
            output, self._input = anyio.create_memory_object_stream[list[Event] | Failure](AHEAD_MAX)
            follower = Follower(self._connection, self._follow, output, self._scope)
            self._connection.group.start_soon(follower.run, name=f"follow {self._follow.job_id}")
        try:
            batch = await self._input.receive()
        except anyio.EndOfStream:
            self.close()
            return []
        if isinstance(batch, (PeerError, OperatorError)):
            self.close()
            raise batch
        return batch

    async def aclose(self) -> None:
        """Close, for `contextlib.aclosing`."""
        self.close()

    @property
    def job_ended(self) -> bool:
        """Whether the job has ended, as far as the broker has said."""
        return self._follow.job_ended

    def close(self) -> None:
        """Stop following."""
        self._closed = True
        self._ready = []
        if self._input is not None:
            self._input.close()
        self._scope.cancel()

    def __del__(self) -> None:
        if not self._closed:
            with suppress(RuntimeError):  # the event loop has ended, and the follower with it
                self.close()
