"""Ledger: owns the Store, and with it the queue and the event log.

*Commit, then speak.* The Ledger gathers the waiting commands, up to a bound, applies them in one transaction, and sends
replies and news only when that is on disk. While one batch commits, the next gathers in the inbox: under load hundreds
of commands share the price of an fsync, and on an idle broker a command waits for no other.

It also holds the parked long-polls. A batch that submits jobs includes the DequeueJobs that wait for them, so that
enqueue and lease are one transaction and a job starts one fsync after it was submitted.

```
Gateway ──asks──► inbox ─► batch ─► Store.stage, commit ─┬─► Gateway  (replies)
Timekeeper ─expire─┤         ▲                           ├─► Janitor  (go on, or rest)
Janitor ────retain─┘      Parking ◄── queues ready ── Bus ◄─ news
```
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import anyio.lowlevel
import msgspec

from airunner.broker.bus import BatchNews, Bus
from airunner.broker.clock import Clock
from airunner.broker.counts import Counts
from airunner.broker.disk import Disk
from airunner.broker.fairqueue import FairQueue, Own
from airunner.broker.inbox import Alarm, Between, Nudged, Pending, Response, Swept, ToGateway, ToJanitor
from airunner.broker.lifecycle.commands import (
    Applied,
    Command,
    Done,
    Expire,
    News,
    Resume,
    Retain,
    StoreReply,
    TenantRequest,
)
from airunner.broker.parking import Parked, Parking
from airunner.broker.requests import Run, kind_of, price_of
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import QueueKey
from airunner.broker.store.needs import facts_of, meets, needs_of
from airunner.broker.store.room import Room
from airunner.protocol.coding import refusal
from airunner.protocol.errors import Busy, NoSpace
from airunner.protocol.replies import JobsLeased
from airunner.protocol.requests import DequeueJob, EnqueueJob

NO_SPACE_PAUSE_MS: Final = 1_000  # then an expiry or the take-over, which no peer repeats, is tried again
BATCH_UNITS_MAX: Final = 250  # 25 ms: requests that come meanwhile wait so long for their turn, a Ping too
READY_JOBS_GUESS: Final = 8  # how many parked slots to try on a queue that is ready by an unknown number of jobs

Offload = Callable[[Callable[[], None]], Awaitable[None]]
"""Offload of work that waits for the disk; production uses a thread.

The statements before the commit run in the event loop: a thread that runs many short statements beside a busy loop
waits for the interpreter between any two of them, and takes ten times as long.
"""

Charge = Callable[[TenantRequest, int], None]
"""Charge of a request: receives what it has cost the store, in the units of `Done.cost`, also where it was refused."""

_Applied = Pending | Expire | Resume | Retain | Parked
_Entry = _Applied | Between


def free(_command: TenantRequest, _cost: int) -> None:
    """Charge nothing."""


class Ledger:
    """Ledger actor: the only one that touches `store`. Where `disk` has little room, some requests are refused.

    `charge` receives the store's work for each request: also for a refused one, and each time that a parked one was
    tried again.
    """

    def __init__(
        self,
        store: Store,
        inbox: FairQueue,
        gateway: ToGateway,
        bus: Bus,
        janitor: ToJanitor,
        clock: Clock,
        offload: Offload,
        disk: Disk,
        counts: Counts,
        charge: Charge = free,
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._gateway = gateway
        self._bus = bus
        self._janitor = janitor
        self._clock = clock
        self._offload = offload
        self._disk = disk
        self._counts = counts
        self._charge = charge
        self._parking = Parking()
        self._ready: set[QueueKey] = set()
        self._alarm = Alarm(None)
        self._resume_ms: int | None = None  # when to try again to take over; None once that is done

    async def run(self) -> None:
        """Take over the leases of the last broker, and apply batches until cancelled.

        A full disk may prevent the take-over: it is tried again and again. Until it succeeds no lease expires, since
        each live lease gets a full period first; everything else goes on.
        """
        await self._take_over()
        while True:
            batch = await self._gather()
            if self._resume_ms is not None and self._resume_ms <= self._clock.now_ms():
                await self._take_over()
            await self._commit(batch)

    async def _take_over(self) -> None:
        if not await self._commit([Resume()]):
            self._resume_ms = self._clock.now_ms() + NO_SPACE_PAUSE_MS

    async def _gather(self) -> list[_Entry]:
        """Gather the next batch: at least one entry, unless a parked wait ended."""
        batch: list[_Entry] = []
        self._ready |= self._bus.take_ready()
        if not self._parking.waits_on(self._ready):
            self._ready.clear()
            if (first := await self._next()) is not None:
                batch.append(first)
        units = sum(map(_price, batch))
        while (waiting := self._inbox.next()) is not None:
            units += _price(waiting)
            if batch and (units > BATCH_UNITS_MAX or len(batch) == self._store.batch_max):
                break
            batch.append(self._inbox.receive_nowait())
        for entry in batch:
            if isinstance(entry, Pending) and isinstance(entry.command.request, DequeueJob):
                self._parking.discard(entry)
        for parked in self._parking.take(self._wanted(batch), BATCH_UNITS_MAX):
            if len(batch) < self._store.batch_max:
                batch.append(parked)
            else:
                self._parking.park(parked.pending, parked.until_ms)
        return batch

    async def _next(self) -> Pending | Own | None:
        """Receive the next command; None when a parked wait ended first, or the take-over is due again."""
        ends_ms = [end_ms for end_ms in (self._parking.next_end_ms(), self._resume_ms) if end_ms is not None]
        if not ends_ms:
            return await self._inbox.receive()
        with anyio.CancelScope(deadline=self._clock.deadline_s(min(ends_ms))):
            return await self._inbox.receive()
        return None

    def _wanted(self, batch: Sequence[object]) -> Counter[QueueKey]:
        """Count the jobs that parked requests may find, by queue."""
        wanted: Counter[QueueKey] = Counter(dict.fromkeys(self._ready, READY_JOBS_GUESS))
        for entry in batch:
            if isinstance(entry, Pending) and isinstance(entry.command.request, EnqueueJob):
                jobs = entry.command.request.jobs
                wanted.update(
                    QueueKey(entry.command.tenant, job.queue, needs_of(job.require))
                    for job in jobs
                    if job.not_before_ms is None
                )
        return wanted

    async def _commit(self, batch: Sequence[_Entry]) -> bool:
        """Apply a batch and send its replies; False when the disk had no room for it. Reads wait for no commit."""
        applied: dict[Run, list[_Applied]] = {run: [] for run in Run}
        for entry in batch:
            if isinstance(entry, Between):
                await self._offload(entry.work)
                entry.done.set()
            else:
                applied[_run(entry)].append(entry)
        for run, call in ((Run.LOOK_UP, self._at_once), (Run.LIST, self._offload)):
            if reads := applied[run]:
                await self._read(reads, call)
        changes = applied[Run.CHANGE]
        stored = not changes or await self._change(changes)
        if not changes:
            await anyio.lowlevel.checkpoint()  # reads by a key wait for nothing, and there may be thousands
        await self._release_expired()
        return stored

    async def _change(self, changes: Sequence[_Applied]) -> bool:
        """Apply changes and send their replies; False when nothing was stored: then the replies are refusals."""
        kinds = set(map(type, changes))
        offset_ms = self._clock.follow() if Resume in kinds else None
        now_ms = self._clock.now_ms()
        woken = Expire in kinds
        woken |= offset_ms is not None and self._alarm.due_ms is not None
        try:
            staged = await self._store_all(self._commands(changes), now_ms)
        except (NoSpace, Busy) as refused:
            if offset_ms is not None:
                self._clock.back(offset_ms)
            # The Timekeeper waits for the next instant.
            alarm = self._next_alarm(self._clock.now_ms() + NO_SPACE_PAUSE_MS, expired=True) if woken else None
            await self._speak(changes, [Done(refusal(refused), News(), cost=0)] * len(changes), alarm)
            return False
        self._counts.add("commits")
        self._counts.add("commands", len(changes))
        if offset_ms is not None:
            self._resume_ms = None
        alarm = self._next_alarm(staged.next_due_ms, expired=woken) if self._resume_ms is None else None
        await self._speak(changes, staged.done, alarm)
        return True

    async def _store_all(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Store a batch; on a full disk only what ends or keeps a job. Raises `NoSpace`, `Busy`: nothing is stored."""
        try:
            applied = await self._write(commands, now_ms)
        except NoSpace:
            return await self._store_least([when_full(command) for command in commands], now_ms)
        if any(isinstance(command, TenantRequest) and command.room is Room.AMPLE for command in commands):
            self._disk.fits()
        return applied

    async def _store_least(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Store a batch on a full disk, in space that the journal gives back and, where needed, in the ballast's."""
        while True:
            await self._offload(self._store.write_back)
            try:
                applied = await self._write(commands, now_ms)
            except NoSpace:
                if not self._disk.spare():
                    self._disk.full(kept=False)
                    raise
            else:
                self._disk.full(kept=True)
                return applied

    async def _write(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Write a batch in one transaction. Raises `NoSpace`, `Busy`: nothing of it is stored."""
        applied = self._store.stage(commands, now_ms)
        await self._offload(self._store.commit)
        return applied

    async def _read(self, reads: Sequence[_Applied], call: Offload) -> None:
        requests = [command for entry in reads if isinstance(command := _command(entry), TenantRequest)]
        done: list[Done] = []
        try:
            await call(lambda: done.extend(self._store.read(requests)))
        except NoSpace as full:  # a read writes no row, but may have to make room in the cache
            done = [Done(refusal(full), News(), cost=0)] * len(reads)
        self._counts.add("commands", len(reads))
        await self._speak(reads, done)

    @staticmethod
    async def _at_once(call: Callable[[], None]) -> None:
        call()

    async def _speak(self, batch: Sequence[_Entry], done: Sequence[Done], alarm: Alarm | None = None) -> None:
        """Send the replies and the news of a batch that is on disk."""
        responses: list[Response | Nudged] = []
        published = BatchNews(alarm=alarm)
        for entry, outcome in zip(batch, done, strict=True):
            news = outcome.news
            published.ready |= news.ready
            published.appended += news.appended
            pending = entry.pending if isinstance(entry, Parked) else entry
            if isinstance(pending, Pending):
                if outcome.cost:
                    self._charge(pending.command, outcome.cost)
                    paid = 0 if isinstance(entry, Parked) else price_of(pending.command.request)
                    self._inbox.charge(pending.command.tenant, outcome.cost - paid)
                if news.exhausted:
                    self._exhaust(pending, news.exhausted, published.ready)
                if news.nudged:
                    published.nudged.append(Nudged(pending.command.tenant, tuple(news.nudged)))
                reply = None if outcome.reply is None else self._unless_parked(entry, pending, outcome.reply)
                if reply is not None and pending.peer is not None:
                    responses.append(Response(pending.peer, pending.command, reply, pending.key, pending.revision))
            if isinstance(entry, Retain):
                await self._janitor.send(Swept(news.more))
        if responses:
            await self._gateway.send(responses)
        self._counts.add("events", sum(appended.segment.count for appended in published.appended))
        await self._bus.publish(published)

    def _exhaust(self, pending: Pending, queues: set[QueueKey], ready: set[QueueKey]) -> None:
        """Remove exhausted queues from the ready ones, for the needs that the requesting agent's tags meet."""
        assert isinstance(pending.command.request, DequeueJob), "nothing else looks through queues"
        facts = facts_of(pending.command.request.tags)
        for keys in (self._ready, ready):
            keys -= {key for key in keys if key._replace(needs="") in queues and meets(facts, key.needs)}

    def _unless_parked(self, entry: object, pending: Pending, reply: StoreReply) -> StoreReply | None:
        """Return the reply, or None where the request is parked until a job comes."""
        request = pending.command.request
        if not isinstance(request, DequeueJob) or not isinstance(reply, JobsLeased):
            return reply
        if reply.leases or pending.peer is None or not request.wait_ms:
            return reply
        until_ms = entry.until_ms if isinstance(entry, Parked) else self._clock.now_ms() + request.wait_ms
        return None if self._parking.park(pending, until_ms) else refusal(Busy())

    async def _release_expired(self) -> None:
        over = self._parking.expired(self._clock.now_ms())
        responses = [
            Response(
                parked.pending.peer, parked.pending.command, JobsLeased(), parked.pending.key, parked.pending.revision
            )
            for parked in over
            if parked.pending.peer is not None
        ]
        if responses:
            await self._gateway.send(responses)

    def _next_alarm(self, due_ms: int | None, *, expired: bool) -> Alarm | None:
        """Make the alarm for the Timekeeper; None where it is as before."""
        alarm = Alarm(due_ms)
        if alarm == self._alarm and not expired:
            return None
        self._alarm = alarm
        return alarm

    def _commands(self, entries: Sequence[_Applied]) -> list[Command]:
        """List the commands for the store, each with the room that the commands before leave on the disk."""
        space = self._disk.look()
        commands: list[Command] = []
        wanted_bytes = 0
        for entry in entries:
            command = _command(entry)
            if isinstance(command, TenantRequest):
                size_bytes = entry.size_bytes if isinstance(entry, Pending) else 0
                room = self._disk.room(space, wanted_bytes + size_bytes)
                if room is not Room.AMPLE:
                    command = msgspec.structs.replace(command, room=room)
                if room is not Room.KEEPING:
                    wanted_bytes += size_bytes
            commands.append(command)
        return commands


def when_full(command: Command) -> Command:
    """Restrict a command to a full disk: it adds nothing new, but may end or keep a job."""
    return msgspec.structs.replace(command, room=Room.KEEPING) if isinstance(command, TenantRequest) else command


def _command(entry: _Applied) -> Command:
    match entry:
        case Pending(command=command):
            return command
        case Parked(pending=pending):
            return pending.command
        case Expire() | Resume() | Retain():
            return entry


def _price(entry: _Entry) -> int:
    """Price of an entry: its expected work, in units of some 100 µs."""
    return price_of(entry.command.request) if isinstance(entry, Pending) else 1


def _run(entry: _Applied) -> Run:
    return kind_of(entry.command.request).run if isinstance(entry, Pending) else Run.CHANGE
