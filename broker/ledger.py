"""Ledger: owns the Store, and with it the queue and the event log.

*Commit, then speak.* The Ledger gathers the waiting commands, up to a bound, applies those that change something in one
transaction, and sends their replies and news only after the commit. While one batch commits, the next commands gather
in the inbox: under load hundreds of commands share one fsync, and on an idle broker a command waits for no other.

The Ledger also owns the parked DequeueJobs. A batch that submits jobs includes the DequeueJobs that wait for them, so
that enqueue and lease are one transaction and a job starts one fsync after it was submitted.

```
Gateway ──asks──► inbox ─► batch ─► Store.stage, commit ─┬─► Gateway  (replies)
Timekeeper ─expire─┤         ▲                           ├─► Janitor  (whether more is to be removed)
Janitor ────retain─┘      Parking ◄── queues ready ── Bus ◄─ news
```
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from airunner.broker.bus import EVERY_QUEUE, BatchNews, Bus
from airunner.broker.clock import Clock
from airunner.broker.counts import Counts
from airunner.broker.disk import Disk
from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import Alarm, BetweenBatches, Nudged, Pending, Response, Swept, ToGateway, ToJanitor
from airunner.broker.lifecycle.commands import (
    Applied,
    Command,
    Done,
    Expire,
    News,
    RenewAll,
    Retain,
    StoreReply,
    TenantRequest,
)
from airunner.broker.offload import Offload, Stepper, Steps
from airunner.broker.parking import Parked, Parking
from airunner.broker.requests import Execution, kind_of
from airunner.broker.store.batch import Store
from airunner.broker.store.needs import facts_of, meets, needs_of
from airunner.broker.store.room import Room
from airunner.broker.store.rows import QueueKey
from airunner.protocol.coding import refusal
from airunner.protocol.errors import Busy, NoSpace
from airunner.protocol.replies import JobsLeased
from airunner.protocol.requests import DequeueJob, EnqueueJob, EnqueueJobWithStdin

NO_SPACE_PAUSE_MS: Final = 1_000  # until an expiry or take-over that was not stored is retried: no peer repeats these
BATCH_UNITS_MAX: Final = 250  # units of work in a batch, and as many again of parked requests: 25 to 50 ms in all
READY_JOBS_GUESS: Final = 8  # slots of parked requests to try for a queue that has an unknown number of jobs ready

Charge = Callable[[TenantRequest, int], None]
"""Callback that charges a request the store's work for it, in the units of `Done.cost`, also if it was refused."""

_ToApply = Pending | Expire | RenewAll | Retain | Parked
_Entry = _ToApply | BetweenBatches


def no_charge(_command: TenantRequest, _cost: int) -> None:
    """Charge nothing."""


class Ledger:
    """Ledger actor: the only one that uses `store`. When `disk` has little free space, some requests are refused.

    `charge` is called with the store's work each time that a request was tried: also when it was refused or parked.
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
        charge: Charge = no_charge,
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._gateway = gateway
        self._bus = bus
        self._janitor = janitor
        self._clock = clock
        self._steps = Stepper(self._batches(), offload)
        self._disk = disk
        self._counts = counts
        self._charge = charge
        self._parking = Parking()
        self._ready: set[QueueKey] = set()
        self._alarm = Alarm(None)
        self._take_over_ms: int | None = None  # when to retry the take-over of leases; None: it has succeeded

    async def run(self) -> None:
        """Take over the leases of the last broker, and apply batches until cancelled.

        A full disk may prevent the take-over, which is then retried every `NO_SPACE_PAUSE_MS`. No lease expires before
        it succeeds, since it gives each live lease a full visibility timeout; everything else goes on.
        """
        with self._inbox.received_by(self._steps.go_on):
            await self._steps.run()

    def _batches(self) -> Steps[None]:
        """Gather, commit and answer one batch after another; pause while nothing waits, until an entry or an instant.

        A request is gathered in the call of `FairQueue.wake` that ends the Gateway's pass, and so without a task.
        """
        yield from self._take_over()
        while True:
            offloads = self._steps.offloads
            batch = self._gather()
            if self._take_over_ms is not None and self._take_over_ms <= self._clock.now_ms():
                yield from self._take_over()
            yield from self._commit(batch)
            self._answer_timed_out()
            if not self._find_waiting():
                self._steps.due(self._next_s())
                yield None
            elif self._steps.offloads == offloads:
                # This batch waited for nothing, so no other task has had a turn: thousands of such would block them.
                self._steps.due(-math.inf)
                yield None

    def _take_over(self) -> Steps[None]:
        if not (yield from self._commit([RenewAll()])):
            self._take_over_ms = self._clock.now_ms() + NO_SPACE_PAUSE_MS

    def _gather(self) -> list[_Entry]:
        """Gather the next batch; it may be empty, for example when a parked request timed out."""
        batch: list[_Entry] = []
        units = 0
        while (waiting := self._inbox.next()) is not None:
            units += _price(waiting)
            if batch and (units > BATCH_UNITS_MAX or len(batch) == self._store.batch_max):
                break
            batch.append(self._inbox.receive_nowait())
        if self._parking:
            for entry in batch:
                if isinstance(entry, Pending) and isinstance(entry.command.request, DequeueJob):
                    self._parking.discard(entry)  # this is a repeat, if it is parked
            for parked in self._parking.take(self._wanted(batch), BATCH_UNITS_MAX):
                if len(batch) < self._store.batch_max:
                    batch.append(parked)
                else:
                    self._parking.park(parked.pending, parked.until_ms)
        return batch

    def _find_waiting(self) -> bool:
        """Note the queues that have become ready; return whether a request, or jobs for parked ones, wait for a batch.

        Ready queues for which no request is parked are forgotten.
        """
        ready = self._bus.take_ready()
        self._ready |= self._parking.queues() if EVERY_QUEUE in ready else ready
        if not self._parking or not self._parking.waits_on(self._ready):
            self._ready.clear()
        return bool(self._ready) or self._inbox.next() is not None

    def _next_s(self) -> float:
        """Return when a batch is due in which nothing waits: when a parked request ends, or the take-over is due."""
        ends_ms = [end_ms for end_ms in (self._parking.next_end_ms(), self._take_over_ms) if end_ms is not None]
        return self._clock.deadline_s(min(ends_ms)) if ends_ms else math.inf

    def _wanted(self, batch: Sequence[object]) -> Counter[QueueKey]:
        """Count the jobs that parked requests may find, by queue and needs."""
        wanted: Counter[QueueKey] = Counter(dict.fromkeys(self._ready, READY_JOBS_GUESS))
        for entry in batch:
            if isinstance(entry, Pending) and isinstance(entry.command.request, EnqueueJob | EnqueueJobWithStdin):
                jobs = entry.command.request.jobs
                wanted.update(
                    QueueKey(entry.command.tenant, job.queue, needs_of(job))
                    for job in jobs
                    if job.not_before_ms is None
                )
        return wanted

    def _commit(self, batch: Sequence[_Entry]) -> Steps[bool]:
        """Apply a batch and send its replies, those of reads before the commit. False: the changes were not stored."""
        changes: list[_ToApply] = []
        look_ups: list[_ToApply] = []
        lists: list[_ToApply] = []
        for entry in batch:
            if isinstance(entry, BetweenBatches):
                yield entry.work
                entry.done.set()
            elif (execution := _execution(entry)) is Execution.CHANGE:
                changes.append(entry)
            else:
                (look_ups if execution is Execution.LOOK_UP else lists).append(entry)
        if look_ups:
            yield from self._read(look_ups, offloaded=False)
        if lists:
            yield from self._read(lists, offloaded=True)
        return not changes or (yield from self._change(changes))

    def _change(self, changes: Sequence[_ToApply]) -> Steps[bool]:
        """Apply changes and send their replies. False: nothing was stored, and the replies are refusals."""
        kinds = set(map(type, changes))
        offset_ms = self._clock.follow() if RenewAll in kinds else None
        now_ms = self._clock.now_ms()
        # The Timekeeper sends nothing more until it gets an alarm: after an Expire, or a RenewAll in place of one. The
        # Ledger's own RenewAll, at the start, comes before the first alarm.
        timekeeper_waits = Expire in kinds or (RenewAll in kinds and self._alarm.due_ms is not None)
        began_s = time.perf_counter()
        try:
            staged = yield from self._store_all(self._commands(changes), now_ms)
        except (NoSpace, Busy) as refused:
            if offset_ms is not None:
                self._clock.back(offset_ms)
            again_ms = self._clock.now_ms() + NO_SPACE_PAUSE_MS
            alarm = self._next_alarm(again_ms, send_same=True) if timekeeper_waits else None
            self._speak(changes, [Done(refusal(refused), News(), cost=0)] * len(changes), alarm)
            return False
        self._counts.record_batch(len(changes), time.perf_counter() - began_s, staged.timings)
        if offset_ms is not None:
            self._take_over_ms = None
        taken_over = self._take_over_ms is None
        alarm = self._next_alarm(staged.next_due_ms, send_same=timekeeper_waits) if taken_over else None
        self._speak(changes, staged.done, alarm)
        return True

    def _store_all(self, commands: Sequence[Command], now_ms: int) -> Steps[Applied]:
        """Store a batch; on a full disk only ends of jobs and renewals. Raises `NoSpace`, `Busy`: nothing is stored."""
        try:
            applied = yield from self._write(commands, now_ms)
        except NoSpace:
            return (yield from self._store_least([when_full(command) for command in commands], now_ms))
        if any(isinstance(command, TenantRequest) and command.room is Room.AMPLE for command in commands):
            self._disk.record_fit()
        return applied

    def _store_least(self, commands: Sequence[Command], now_ms: int) -> Steps[Applied]:
        """Store a batch on a full disk, in space freed by writing the journal back and, if needed, from the ballast."""
        while True:
            yield self._store.write_back
            try:
                applied = yield from self._write(commands, now_ms)
            except NoSpace:
                if not self._disk.free_ballast():
                    self._disk.record_full(ends_stored=False)
                    raise
            else:
                self._disk.record_full(ends_stored=True)
                return applied

    def _write(self, commands: Sequence[Command], now_ms: int) -> Steps[Applied]:
        """Write a batch in one transaction. Raises `NoSpace`, `Busy`: nothing is stored."""
        applied = self._store.stage(commands, now_ms)
        if applied.wrote:
            yield self._store.commit
        else:
            self._store.commit()
        return applied

    def _read(self, reads: Sequence[_ToApply], *, offloaded: bool) -> Steps[None]:
        requests = [command for entry in reads if isinstance(command := _command(entry), TenantRequest)]
        done: list[Done] = []

        def read() -> None:
            done.extend(self._store.read(requests))

        try:
            if offloaded:
                yield read
            else:
                read()
        except NoSpace as full:  # to make room in its cache, SQLite may have to write changed pages to the disk
            done = [Done(refusal(full), News(), cost=0)] * len(reads)
        self._counts.add("commands", len(reads))
        self._speak(reads, done)

    def _speak(self, batch: Sequence[_Entry], done: Sequence[Done], alarm: Alarm | None = None) -> None:
        """Send the replies and the news of a batch, after its commit if it has changed the store."""
        responses: list[Response] = []
        published = BatchNews(alarm=alarm)
        for entry, outcome in zip(batch, done, strict=True):
            news = outcome.news
            published.ready |= news.ready
            published.appended += news.appended
            pending = entry.pending if isinstance(entry, Parked) else entry
            if isinstance(pending, Pending):
                if outcome.cost:
                    self._charge(pending.command, outcome.cost)
                    paid = 0 if isinstance(entry, Parked) else pending.price  # the inbox charged it once, not each try
                    if unpaid := outcome.cost - paid:
                        self._inbox.charge(pending.command.tenant, unpaid)
                if news.exhausted:
                    self._exhaust(pending, news.exhausted, published.ready)
                if news.nudged:
                    published.nudged.append(Nudged(pending.command.tenant, tuple(news.nudged)))
                reply = outcome.reply
                if isinstance(reply, JobsLeased):
                    reply = self._unless_parked(entry, pending, reply)
                if reply is not None and pending.peer is not None:
                    responses.append(_respond(pending, reply))
            elif isinstance(entry, Retain):
                self._janitor.send_nowait(Swept(news.more))
        if responses:
            self._gateway.send(responses)
        self._counts.add("events", sum([appended.segment.count for appended in published.appended]))
        self._bus.publish(published)

    def _exhaust(self, pending: Pending, queues: set[QueueKey], ready: set[QueueKey]) -> None:
        """Mark the queues in which an agent found no job as not ready, for the needs that its tags meet."""
        assert isinstance(pending.command.request, DequeueJob), "not a DequeueJob, but exhausted queues"
        facts = facts_of(pending.command.request)
        for keys in (self._ready, ready):
            keys -= {key for key in keys if key._replace(needs="") in queues and meets(facts, key.needs)}

    def _unless_parked(self, entry: object, pending: Pending, reply: JobsLeased) -> StoreReply | None:
        """Park a DequeueJob that found no job and may wait, and return None; otherwise return the reply to send."""
        request = pending.command.request
        assert isinstance(request, DequeueJob), "not a DequeueJob, but the reply to one"
        if reply.leases:
            return msgspec.structs.replace(reply, queued=isinstance(entry, Pending))
        if pending.peer is None or not request.wait_ms:
            return reply
        until_ms = entry.until_ms if isinstance(entry, Parked) else self._clock.now_ms() + request.wait_ms
        return None if self._parking.park(pending, until_ms) else refusal(Busy())

    def _answer_timed_out(self) -> None:
        if self._parking.next_end_ms() is None:
            return
        over = self._parking.expired(self._clock.now_ms())
        if responses := [_respond(parked.pending, JobsLeased()) for parked in over if parked.pending.peer is not None]:
            self._gateway.send(responses)

    def _next_alarm(self, due_ms: int | None, *, send_same: bool) -> Alarm | None:
        """Make the alarm for the Timekeeper; None: it will wake at that instant or earlier, and `send_same` is false.

        An Expire that comes too early finds nothing. Otherwise each lease and each end of a job would wake it.
        """
        known_ms = self._alarm.due_ms
        if not send_same and (due_ms is None or (known_ms is not None and known_ms <= due_ms)):
            return None
        self._alarm = Alarm(due_ms)
        return self._alarm

    def _commands(self, entries: Sequence[_ToApply]) -> list[Command]:
        """List the commands for the store, each with the room on the disk once all up to it are stored."""
        space = self._disk.look()
        sizes_bytes = [entry.size_bytes for entry in entries if isinstance(entry, Pending)]
        if self._disk.room(space, sum(sizes_bytes)) is Room.AMPLE:
            return [_command(entry) for entry in entries]
        commands: list[Command] = []
        wanted_bytes = 0
        for entry in entries:
            command = _command(entry)
            if isinstance(command, TenantRequest):
                size_bytes = entry.size_bytes if isinstance(entry, Pending) else 0
                room = self._disk.room(space, wanted_bytes + size_bytes)
                if room is not Room.AMPLE:
                    command = msgspec.structs.replace(command, room=room)
                if room is not Room.ENDING:
                    wanted_bytes += size_bytes
            commands.append(command)
        return commands


def when_full(command: Command) -> Command:
    """Restrict a command for a full disk: it may end a job or renew its lease, but add nothing new."""
    return msgspec.structs.replace(command, room=Room.ENDING) if isinstance(command, TenantRequest) else command


def _command(entry: _ToApply) -> Command:
    match entry:
        case Pending(command=command):
            return command
        case Parked(pending=pending):
            return pending.command
        case Expire() | RenewAll() | Retain():
            return entry


def _respond(pending: Pending, reply: StoreReply) -> Response:
    assert pending.peer is not None, "no peer waits for a reply"
    return Response(pending.peer, pending.command, reply, pending.key, pending.revision)


def _price(entry: _Entry) -> int:
    """Return the price of an entry: its expected work, in units of some 100 µs."""
    return entry.price if isinstance(entry, Pending) else 1


def _execution(entry: _ToApply) -> Execution:
    return kind_of(entry.command.request).execution if isinstance(entry, Pending) else Execution.CHANGE
