"""Changes of a tenant's jobs as they are committed: what a client needs to keep a list current without asking for it.

```
LiveEvents ─ sealed messages ─► TenantChanges ─ next ─► JobNews: changes; or that the list is to be read (again)
Channel ──── WatchTenant ─────►
```

The list is to be read when the subscription begins, when a message was lost, and when the broker has left some out. The
keys are renewed in time. After a silence, in which not even reminders came, they are asked for again: so a client finds
another broker, and where live events do not arrive at all, its list is still read every `SILENCE_S`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final, Self

import anyio
import msgspec
from msgspec import Struct

from airunner.client.client import Client
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.changes import SILENCE_S, JobChanges, Numbers
from airunner.protocol.errors import BadRequest, Forged
from airunner.protocol.replies import TenantWatched
from airunner.protocol.requests import WatchTenant
from airunner.transport.bell import Bell

INBOX_MAX: Final = 256  # messages of at most some 3 KiB; further ones are lost, and the list is read again
WELCOME_S: Final = 0.5  # seconds until the list is read first, though a subscription is not confirmed yet

_decoder = msgspec.msgpack.Decoder(JobChanges)


class JobNews(Struct, frozen=True):
    """News of a tenant's jobs: messages in order; `again`: the list is to be read, which then includes them."""

    messages: list[JobChanges]
    again: bool


class _Heard(Struct):
    """Stream that is listened to: how to leave it, its key, and the numbers of its messages."""

    leave: Callable[[], None]
    watch_key: bytes
    numbers: Numbers


class TenantChanges:
    """Changes of all jobs that the client may list, or of those in one queue; an async context manager."""

    def __init__(self, client: Client, queue: str | None = None) -> None:
        connection = client._entered  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self._channel = connection.channel
        self._live = connection.live
        self._queue = queue
        self._streams: dict[tuple[str, bytes], _Heard] = {}  # by endpoint and topic
        self._inbox: deque[tuple[_Heard, bytes]] = deque(maxlen=INBOX_MAX)
        self._came = Bell()
        self._again = True
        self._connection = 0  # `Channel.connections` when the streams were asked for
        self._renew_s = 0.0
        self._heard_s = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the streams."""
        self._keep({})

    async def next(self, within_s: float = math.inf) -> JobNews:
        """Wait for news, or until nothing has come `within_s`.

        Raises `PeerError`, `OperatorError`: the streams are refused, or no broker answers.
        """
        end_s = anyio.current_time() + within_s
        while True:
            now_s = anyio.current_time()
            silent = now_s - self._heard_s >= SILENCE_S
            if silent or now_s >= self._renew_s or self._connection != self._channel.connections:
                self._again |= silent
                await self._subscribe()
            news = self._take()
            if news.messages or news.again or now_s >= end_s:
                return news
            with anyio.CancelScope(deadline=min(self._renew_s, self._heard_s + SILENCE_S, end_s)):
                await self._came.wait()

    async def _subscribe(self) -> None:
        """Ask for the streams, and listen to them; a new one is confirmed first, if that takes no longer than usual."""
        try:
            watched = await self._channel.ask(WatchTenant(queue=self._queue))
        except BadRequest as error:
            if WatchTenant.__name__ not in error.message:
                raise
            raise BadRequest("this broker is too old to publish changes of jobs: upgrade it") from error
        self._connection = self._channel.connections
        self._heard_s = anyio.current_time()
        self._renew_s = self._heard_s + watched.valid_ms / 2_000
        if self._listen(watched):
            self._again = False
            with anyio.move_on_after(WELCOME_S):
                while not self._again:
                    await self._came.wait()
                    self._read()  # what came before the list is in the list
            self._again = True

    def _listen(self, watched: TenantWatched) -> bool:
        """Listen to these streams and to no other; return whether there are new ones."""
        from airunner.certs.sealed import topic_of

        host = self._channel.endpoint.rpartition(":")[0]  # the broker publishes on another port of the same host
        endpoint = f"{host}:{watched.events_port}"
        kept: dict[tuple[str, bytes], _Heard] = {}
        new = False
        for stream in watched.streams:
            place = endpoint, topic_of(stream.watch_key)
            heard = self._streams.pop(place, None)
            if heard is None:
                heard, new = _Heard(_nothing, stream.watch_key, Numbers()), True
                heard.leave = self._live.listen(*place, partial(self._hear, heard))
            kept[place] = heard
        self._keep(kept)
        return new

    def _keep(self, kept: dict[tuple[str, bytes], _Heard]) -> None:
        for left in self._streams.values():
            left.leave()
        self._streams = kept

    def _hear(self, heard: _Heard, sealed: bytes) -> None:
        self._inbox.append((heard, sealed))  # the oldest may be lost, which its number shows
        self._came.ring()

    def _take(self) -> JobNews:
        news = JobNews(self._read(), self._again)
        self._again = False
        return news

    def _read(self) -> list[JobChanges]:
        """Open what has come; a message that is forged or broken counts as lost."""
        from airunner.certs.sealed import open_sealed

        messages: list[JobChanges] = []
        while self._inbox:
            heard, sealed = self._inbox.popleft()
            self._heard_s = anyio.current_time()
            if not sealed:  # the subscription has begun, perhaps again
                self._again = True
                continue
            try:
                message = _decoder.decode(open_sealed(heard.watch_key, sealed))
            except (Forged, *UNDECODABLE):
                continue
            self._again |= not heard.numbers.is_next(message)
            if not message.is_reminder:
                messages.append(message)
        return messages


def _nothing() -> None:
    """Leave nothing: the stream is not listened to yet."""
