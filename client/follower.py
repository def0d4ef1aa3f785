"""The Follower: follows one job's log to its end, for one consumer.

The shell around `protocol.follow.Follow`: it owns the ear on the live socket and the waiting, and decides
nothing. What it delivers goes into a small bounded stream; a consumer that is slow holds up only this follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectSendStream

from airunner.certs.channel import Channel
from airunner.certs.sealed import open_sealed, topic_of
from airunner.client.listener import Ear, Listener
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import BadRequest, Forged, OperatorError, PeerError
from airunner.protocol.events import Event, EventRun
from airunner.protocol.follow import Follow
from airunner.protocol.messages import JobEventsReplayed, JobWatched, WatchJob

DELIVERIES_MAX: Final = 16  # lists of events that wait for the consumer

Delivery = Sequence[Event] | PeerError | OperatorError
_run_decoder: msgspec.msgpack.Decoder[EventRun] = msgspec.msgpack.Decoder(EventRun)


class Follower:
    """The actor; ends by itself after the job's last event, or after telling `out` why it cannot go on."""

    def __init__(
        self, follow: Follow, channel: Channel, listener: Listener, out: MemoryObjectSendStream[Delivery]
    ) -> None:
        self._follow = follow
        self._channel = channel
        self._listener = listener
        self._out = out

    async def run(self, scope: anyio.CancelScope) -> None:
        """Follow until the end, or until `scope` is cancelled."""
        with scope, self._out:
            try:
                while not self._follow.finished:
                    await self._watch()
            except (PeerError, OperatorError) as error:
                await self._out.send(error)

    async def _watch(self) -> None:
        """Listen at one broker, until the end or until the channel has gone to another."""
        watched = await self._channel.ask(WatchJob(job_id=self._follow.job_id))
        assert isinstance(watched, JobWatched), "the answer to WatchJob"
        connection = self._channel.connections
        host = self._channel.endpoint.rpartition(":")[0]
        with self._listener.listen(f"{host}:{watched.events_port}", topic_of(watched.watch_key)) as ear:
            self._follow.subscribed()
            while not self._follow.finished and self._channel.connections == connection:
                await self._turn(ear, watched.watch_key)

    async def _turn(self, ear: Ear, watch_key: bytes) -> None:
        """Ask, where a replay is wanted, or else wait for what comes live; deliver what is next in order."""
        if (request := self._follow.request()) is not None:
            page = await self._channel.ask(request)
            assert isinstance(page, JobEventsReplayed), "the answer to ReplayJobEvents"
            events = self._follow.replayed(page, _now_ms())
        else:
            deadline_ms = self._follow.deadline_ms()
            assert deadline_ms is not None, "it is not finished, and asks for nothing"
            with anyio.move_on_at(deadline_ms / 1_000):
                await ear.wait()
            events = self._heard(ear, watch_key)
            self._follow.tick(_now_ms())
        if events:
            await self._out.send(events)

    def _heard(self, ear: Ear, watch_key: bytes) -> list[Event]:
        payloads, missed = ear.take()
        if missed:
            self._follow.subscribed()
        events: list[Event] = []
        for payload in payloads:
            if not payload:
                self._follow.subscribed()
                continue
            try:
                run = _run_decoder.decode(open_sealed(watch_key, payload))
                events += self._follow.live(run, _now_ms())
            except (Forged, BadRequest, *UNDECODABLE):
                continue  # not our broker's: the log itself is asked for, and answers over its own connection
        return events


def _now_ms() -> int:
    return int(anyio.current_time() * 1_000)
