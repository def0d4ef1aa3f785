"""The Ledger: owns the Store, and with it the queue and the event log.

*Commit, then speak.* It takes the commands that wait, up to a bound, applies them in one transaction, and only when
that is on disk are replies sent and news told. While one batch commits, the next gathers in the inbox: under load the
price of an fsync is shared by hundreds, and idle nobody waits for company.

It also holds the parked long-polls. A batch that submits jobs takes along those who wait for them, so that enqueue and
lease are one transaction and a job starts one fsync after it was submitted.

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
import msgspec

from airunner.broker.bus import BatchNews, Bus
from airunner.broker.clock import Clock
from airunner.broker.counts import Counts
from airunner.broker.disk import Disk
from airunner.broker.fairqueue import Own, Turns
from airunner.broker.inbox import Alarm, Answer, Asked, Between, Nudged, Swept, ToGateway, ToJanitor
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

NO_SPACE_PAUSE_MS: Final = 1_000  # then what nobody asks for again, an expiry or the start, is tried again
BATCH_UNITS_MAX: Final = 250  # 25 ms: what is asked meanwhile waits so long for its turn, a ping too
READY_JOBS_GUESS: Final = 8  # how many parked slots to try on a queue that is ready by an unknown number of jobs

Offload = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs what waits for the disk; production uses a thread.

The statements before are run where we are: a thread that runs many short ones beside a busy loop waits for the
interpreter between any two of them, and takes ten times as long.
"""

Charge = Callable[[TenantRequest, int], None]
"""Is told what a request has cost the store, in the units of `Done.cost`, whatever became of it."""

_Applied = Asked | Expire | Resume | Retain | Parked
_Entry = _Applied | Between


def free(_ask: TenantRequest, _cost: int) -> None:
    """Nobody pays."""


class Ledger:
    """The actor; the only one that touches `store`. Where `disk` has little room, some requests are refused.

    What the store did for a request is put to the account of whoever asked, by `charge`: also where it was refused, and
    each time that a parked one was tried again.
    """

    def __init__(
        self,
        store: Store,
        inbox: Turns,
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
        """Take over what the last broker left, and apply for ever.

        A full disk may hold up the first: it is tried again and again, and meanwhile everything else is done but that
        no lease expires, for those who hold them are owed a full period first.
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
        """What is to be done next, at least one thing unless a wait ended."""
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
            if isinstance(entry, Asked) and isinstance(entry.ask.request, DequeueJob):
                self._parking.discard(entry)
        for parked in self._parking.take(self._wanted(batch), BATCH_UNITS_MAX):
            if len(batch) < self._store.batch_max:
                batch.append(parked)
            else:
                self._parking.park(parked.asked, parked.until_ms)
        return batch

    async def _next(self) -> Asked | Own | None:
        """The next command, or None when a parked wait ended first, or a start is to be tried again."""
        ends_ms = [end_ms for end_ms in (self._parking.next_end_ms(), self._resume_ms) if end_ms is not None]
        if not ends_ms:
            return await self._inbox.receive()
        with anyio.CancelScope(deadline=self._clock.deadline_s(min(ends_ms))):
            return await self._inbox.receive()
        return None

    def _wanted(self, batch: Sequence[object]) -> Counter[QueueKey]:
        """The queues where parked requests may find something, and how many jobs."""
        wanted: Counter[QueueKey] = Counter(dict.fromkeys(self._ready, READY_JOBS_GUESS))
        for entry in batch:
            if isinstance(entry, Asked) and isinstance(entry.ask.request, EnqueueJob):
                jobs = entry.ask.request.jobs
                wanted.update(
                    QueueKey(entry.ask.tenant, job.queue, needs_of(job.require))
                    for job in jobs
                    if job.not_before_ms is None
                )
        return wanted

    async def _commit(self, batch: Sequence[_Entry]) -> bool:
        """Apply and tell; False when the disk has room for nothing, and that is told. Reads wait for no commit."""
        for entry in batch:
            if isinstance(entry, Between):
                await self._offload(entry.work)
                entry.done.set()
        applied = [entry for entry in batch if not isinstance(entry, Between)]
        changes = [entry for entry in applied if _run(entry) is Run.CHANGE]
        for run, call in ((Run.LOOK_UP, self._at_once), (Run.LIST, self._offload)):
            if reads := [entry for entry in applied if _run(entry) is run]:
                await self._read(reads, call)
        stored = not changes or await self._change(changes)
        await self._release_expired()
        return stored

    async def _change(self, changes: Sequence[_Applied]) -> bool:
        """Apply what changes something, and tell; False when nothing of it is stored, and that is told."""
        offset_ms = self._clock.follow() if any(isinstance(entry, Resume) for entry in changes) else None
        now_ms = self._clock.now_ms()
        woken = any(isinstance(entry, Expire) for entry in changes)
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
        """Have a batch on disk; on a full one, what ends or keeps something. Raises `NoSpace`, `Busy`: nothing is."""
        try:
            applied = await self._write(commands, now_ms)
        except NoSpace:
            return await self._store_least([when_full(command) for command in commands], now_ms)
        if any(isinstance(command, TenantRequest) and command.room is Room.AMPLE for command in commands):
            self._disk.fits()
        return applied

    async def _store_least(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Have a batch on a full disk: in what the journal gives back, and in the ballast as far as it takes that."""
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
        """Raises `NoSpace`, `Busy`: nothing of it is stored."""
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
        """Send replies, and tell the news of what is on disk now."""
        answers: list[Answer | Nudged] = []
        told = BatchNews(alarm=alarm)
        for entry, one in zip(batch, done, strict=True):
            news = one.news
            told.ready |= news.ready
            told.appended += news.appended
            asked = entry.asked if isinstance(entry, Parked) else entry
            if isinstance(asked, Asked):
                if one.cost:
                    self._charge(asked.ask, one.cost)
                    paid = 0 if isinstance(entry, Parked) else price_of(asked.ask.request)
                    self._inbox.charge(asked.ask.tenant, one.cost - paid)
                if news.exhausted:
                    self._exhaust(asked, news.exhausted, told.ready)
                if news.nudged:
                    told.nudged.append(Nudged(asked.ask.tenant, tuple(news.nudged)))
                reply = None if one.reply is None else self._unless_parked(entry, asked, one.reply)
                if reply is not None and asked.peer is not None:
                    answers.append(Answer(asked.peer, asked.ask, reply, asked.key, asked.revision))
            if isinstance(entry, Retain):
                await self._janitor.send(Swept(news.more))
        if answers:
            await self._gateway.send(answers)
        self._counts.add("events", sum(appended.run.count for appended in told.appended))
        await self._bus.tell(told)

    def _exhaust(self, asked: Asked, queues: set[QueueKey], ready: set[QueueKey]) -> None:
        """These queues have nothing more for an agent with the asker's tags; for others they may."""
        assert isinstance(asked.ask.request, DequeueJob), "nothing else looks through queues"
        facts = facts_of(asked.ask.request.tags)
        for keys in (self._ready, ready):
            keys -= {key for key in keys if key._replace(needs="") in queues and meets(facts, key.needs)}

    def _unless_parked(self, entry: object, asked: Asked, reply: StoreReply) -> StoreReply | None:
        """The reply, or None where the asker waits on for its first job."""
        request = asked.ask.request
        if not isinstance(request, DequeueJob) or not isinstance(reply, JobsLeased):
            return reply
        if reply.leases or asked.peer is None or not request.wait_ms:
            return reply
        until_ms = entry.until_ms if isinstance(entry, Parked) else self._clock.now_ms() + request.wait_ms
        return None if self._parking.park(asked, until_ms) else refusal(Busy())

    async def _release_expired(self) -> None:
        over = self._parking.expired(self._clock.now_ms())
        answers = [
            Answer(parked.asked.peer, parked.asked.ask, JobsLeased(), parked.asked.key, parked.asked.revision)
            for parked in over
            if parked.asked.peer is not None
        ]
        if answers:
            await self._gateway.send(answers)

    def _next_alarm(self, due_ms: int | None, *, expired: bool) -> Alarm | None:
        """The alarm to be told; None where it is as before."""
        alarm = Alarm(due_ms)
        if alarm == self._alarm and not expired:
            return None
        self._alarm = alarm
        return alarm

    def _commands(self, entries: Sequence[_Applied]) -> list[Command]:
        """What is asked of the store, each with the room that the ones before leave it."""
        space = self._disk.look()
        commands: list[Command] = []
        wanted_bytes = 0
        for entry in entries:
            command = _command(entry)
            if isinstance(command, TenantRequest):
                size_bytes = entry.size_bytes if isinstance(entry, Asked) else 0
                room = self._disk.room(space, wanted_bytes + size_bytes)
                if room is not Room.AMPLE:
                    command = msgspec.structs.replace(command, room=room)
                if room is not Room.KEEPING:
                    wanted_bytes += size_bytes
            commands.append(command)
        return commands


def when_full(command: Command) -> Command:
    """What is tried of a command where the disk is full: it adds nothing new then, and ends or keeps what is there."""
    return msgspec.structs.replace(command, room=Room.KEEPING) if isinstance(command, TenantRequest) else command


def _command(entry: _Applied) -> Command:
    match entry:
        case Asked(ask=ask):
            return ask
        case Parked(asked=asked):
            return asked.ask
        case Expire() | Resume() | Retain():
            return entry


def _price(entry: _Entry) -> int:
    """How much work it is expected to be, in units of some 100 µs."""
    return price_of(entry.ask.request) if isinstance(entry, Asked) else 1


def _run(entry: _Applied) -> Run:
    return kind_of(entry.ask.request).run if isinstance(entry, Asked) else Run.CHANGE
