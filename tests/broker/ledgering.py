"""A Ledger on stage: its store is told what to say, and its neighbours' inboxes are in the test's hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
from trio.testing import wait_all_tasks_blocked

from airunner.broker.bus import Bus, LocalBus
from airunner.broker.clock import Clock
from airunner.broker.counts import Counts
from airunner.broker.fairqueue import FairQueue, OwnCommand
from airunner.broker.health import Health
from airunner.broker.inbox import Alarm, Beaten, Nudged, Pending, Response, Swept
from airunner.broker.ledger import Ledger
from airunner.broker.lifecycle.commands import Appended, Command, Done, Expire, News, Retain, TenantRequest
from airunner.broker.outage import Outage
from airunner.broker.store.room import Room, Space
from airunner.broker.store.rows import QueueKey
from airunner.protocol.events import EventSegment
from airunner.protocol.job import JobState
from airunner.protocol.names import JobId, WatchKey
from airunner.protocol.replies import JobCancelled, JobsEnqueued, JobsLeased, JobsListed
from airunner.protocol.requests import CancelJob, DequeueJob, EnqueueJob
from tests.broker.stage import LEASE, WALL_MS, Disk, Inbox, ScriptedStore, acting

DEFAULT = QueueKey("default", "default")
RUN = Appended(WatchKey(bytes(32)), EventSegment(first_sequence=1, count=1, attempt=0, events=b"\x90"))

MORE, LAST = Retain(finished_before_ms=2), Retain(finished_before_ms=1)


class Queue:
    """Counts jobs, and no more."""

    def __init__(self) -> None:
        self.waiting = 0

    def __call__(self, command: Command) -> Done:
        match command:
            case TenantRequest(request=EnqueueJob(jobs=jobs)):
                self.waiting += len(jobs)
                ids = tuple(JobId("j") for _ in jobs)
                return Done(JobsEnqueued(job_ids=ids), News(appended=[RUN], ready={DEFAULT}))
            case TenantRequest(request=DequeueJob(slots=slots)):
                granted = min(slots, self.waiting)
                self.waiting -= granted
                exhausted = set() if self.waiting else {DEFAULT}
                return Done(JobsLeased(leases=(LEASE,) * granted), News(exhausted=exhausted))
            case TenantRequest(request=CancelJob(job_id=job_id)):
                reply = JobCancelled(state=JobState.RUNNING)
                return Done(reply, News(appended=[RUN], nudged=[JobId(job_id)]))
            case Retain():
                return Done(None, News(more=command == MORE))
            case TenantRequest():
                return Done(JobsListed(jobs=(), more=False), News())
            case Expire():
                self.waiting += 1
                return Done(None, News(ready={DEFAULT}))
            case _:
                return Done(None, News())


class Left:
    """A disk double: has the `room` that it is told, and so many pieces of ballast."""

    def __init__(self) -> None:
        self.left = Room.AMPLE
        self.pieces = 0
        self.told: list[bool | None] = []

    def look(self) -> Space:
        return Space(free_bytes=0)

    def room(self, space: Space, wanted_bytes: int) -> Room:
        del space, wanted_bytes
        return self.left

    def free_ballast(self) -> bool:
        self.pieces -= 1
        return self.pieces >= 0

    def record_full(self, *, ends_stored: bool) -> None:
        self.told.append(ends_stored)

    def record_fit(self) -> None:
        if self.told[-1:] not in ([], [None]):
            self.told.append(None)


class Stage:
    """A Ledger with its neighbours' inboxes in the test's hand."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.store = ScriptedStore(Queue())
        self.counts = Counts()
        self.asks = FairQueue()
        self.to_gateway, self.to_announcer = Inbox[Sequence[Response | Nudged]](), Inbox[Sequence[Appended]]()
        self.answers, self.announced = self.to_gateway.received, self.to_announcer.received
        self.to_timekeeper, self.alarms = anyio.create_memory_object_stream[Alarm](100)
        self.to_janitor, self.swept = anyio.create_memory_object_stream[Swept](100)
        self.left = Left()
        self.health = Health()
        self.charged: list[tuple[int, int]] = []  # by request id

        self.to_fleet, self.beaten = anyio.create_memory_object_stream[Beaten](100)
        self.bus: Bus = LocalBus(self.to_gateway, self.to_announcer, self.to_timekeeper)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        clock = Clock(lambda: WALL_MS)
        ledger = Ledger(
            self.store,
            self.asks,
            self.to_gateway,
            self.bus,
            self.to_janitor,
            clock,
            self.disk,
            self.left,
            self.counts,
            charge=lambda ask, cost: self.charged.append((int.from_bytes(ask.request_id, "big"), cost)),
            outage=Outage(self.store, clock, self.health),
            fleet=self.to_fleet,
        )
        try:
            async with acting(ledger.run):
                yield
        finally:
            inboxes = (self.answers, self.announced, self.alarms, self.swept, self.beaten)
            ends = (self.to_gateway, self.to_announcer, self.to_timekeeper, self.to_janitor, self.to_fleet)
            for stream in (*ends, *inboxes):
                stream.close()

    def ask(self, *entries: Pending | OwnCommand) -> None:
        for entry in entries:
            self.asks.send_nowait(entry)
        self.asks.wake()

    async def hold(self, *entries: Pending | OwnCommand) -> None:
        """Ask these, whose commit waits until `disk.let_go`."""
        self.disk.hold()
        self.ask(*entries)
        await self.disk.committing.wait()
        await wait_all_tasks_blocked()

    async def reply(self) -> Response:
        return (await self.answers.receive())[0]

    async def news(self) -> list[Response]:
        """The next answers that are told together, without nudges."""
        while not (answers := [answer for answer in await self.answers.receive() if isinstance(answer, Response)]):
            pass
        return answers

    def silent(self) -> bool:
        inboxes = (self.answers, self.announced, self.alarms, self.swept)
        waiting = [inbox.statistics() for inbox in inboxes]
        return not any(inbox.current_buffer_used for inbox in waiting)
