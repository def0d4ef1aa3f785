"""Events of a job from Python: followed live, or replayed as they are stored; a part of `Client`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import anyio

from airunner.client.batches import Batches, BatchIterator
from airunner.client.follower import Events
from airunner.client.jobref import JobRef, id_of
from airunner.client.session import Session
from airunner.protocol.errors import BadRequest
from airunner.protocol.events import EVENT_KINDS, Event
from airunner.protocol.follow import Follow


class Replaying(Session):
    """Methods of `Client` that read events."""

    def follow(
        self, job: JobRef, from_sequence: int = 1, from_timestamp_ms: int | None = None, kinds: Sequence[str] = ()
    ) -> Events:
        r"""Follow a job's events live, from a sequence on, or from the first event not older than an instant.

        Each event comes once and in order, whatever the network does; JOB_FINISHED is the last. With `kinds`, such as
        `["PROCESS_END"]`, only events of these kinds come, and the broker does not send most of the others.

        >>> job = await client.submit(command="echo", args=["hello"])
        >>> async for event in client.follow(job):
        ...     match event.body:
        ...         case Output(stream=stream, data=data):
        ...             print(stream, data)
        ...         case JobFinished(state=state, exit_code=exit_code):
        ...             print(state, exit_code)
        stdout b'hello\n'
        COMPLETED 0
        """
        return Events(self._entered, _follow(job, from_sequence, from_timestamp_ms, kinds))

    def replay(
        self, job: JobRef, from_sequence: int = 1, from_timestamp_ms: int | None = None, kinds: Sequence[str] = ()
    ) -> BatchIterator[Event]:
        """Replay the events stored so far, without waiting for more. The arguments are those of `follow`.

        >>> job = await client.wait(await client.submit(command="true"))
        >>> [event.kind async for event in client.replay(job)][-1]
        'JOB_FINISHED'
        """
        return Batches(self._pages(_follow(job, from_sequence, from_timestamp_ms, kinds)))

    async def _pages(self, follow: Follow) -> AsyncGenerator[Sequence[Event]]:
        """Yield the events of each page of a log."""
        size = self._entered.channel.request_size
        while (request := follow.request(size.bytes_max)) is not None:
            page = await self._ask(request, smaller=lambda: follow.smaller(size.bytes_max))
            yield follow.replayed(page, 0)


def _follow(job: JobRef, from_sequence: int, from_timestamp_ms: int | None, kinds: Sequence[str]) -> Follow:
    """Make a `Follow`. Raises `BadRequest` for an invalid sequence or instant, and for an unknown kind of event."""
    if wrong := [kind for kind in kinds if kind not in EVENT_KINDS]:
        raise BadRequest(f"{wrong[0]!r} is not a kind of event; the kinds are {', '.join(EVENT_KINDS)}")
    if from_sequence < 1:
        raise BadRequest(f"sequences count from 1, not from {from_sequence}")
    if from_timestamp_ms is not None and from_timestamp_ms < 0:
        raise BadRequest("an instant is in milliseconds since the epoch, never negative")
    return Follow(
        id_of(job),
        int(anyio.current_time() * 1_000),
        from_sequence=from_sequence,
        from_timestamp_ms=from_timestamp_ms,
        kinds=tuple(kinds),
    )
