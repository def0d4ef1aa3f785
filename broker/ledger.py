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

import anyio
import msgspec

from airunner.broker.bus import EVERY_QUEUE, BatchNews, Bus
from airunner.broker.clock import Clock
from airunner.broker.counts import Counts
from airunner.broker.disk import Disk
from airunner.broker.entries import ALONE, Entry, ToApply, command_of, execution_of, jobs_of, price_of, respond
from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import (
    Adopted,
    Alarm,
    Beaten,
    BetweenBatches,
    Nudged,
    Pending,
    Response,
    Swept,
    ToFleet,
    ToGateway,
    ToJanitor,
)
from airunner.broker.lifecycle.commands import (
    Adopt,
    Beat,
    Done,
    Expire,
    FollowUp,
    JanitorCommand,
    News,
    RenewAll,
    StoreReply,
    TenantRequest,
)
from airunner.broker.offload import Offload, Stepper, Steps
from airunner.broker.outage import Outage
from airunner.broker.parking import Parked, Parking
from airunner.broker.requests import Execution
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import StoreAway, StoreUnsure
from airunner.broker.store.needs import facts_of, meets
from airunner.broker.store.rows import QueueKey
from airunner.broker.transactions import Transactions
from airunner.protocol.coding import refusal
from airunner.protocol.errors import Busy, NoSpace
from airunner.protocol.replies import JobsLeased
from airunner.protocol.requests import DequeueJob

LOCKED_MS: Final = 50  # until jobs that another broker's batch had locked are looked for again: it takes less
NO_SPACE_PAUSE_MS: Final = 1_000  # until an expiry or take-over that was not stored is retried: no peer repeats these
BATCH_UNITS_MAX: Final = 250  # units of work in a batch, and as many again of parked requests: 25 to 50 ms in all
FOLLOW_UPS_MAX: Final = 8  # follow-ups in one batch
READY_JOBS_GUESS: Final = 8  # slots of parked requests to try for a queue that has an unknown number of jobs ready

Charge = Callable[[TenantRequest, int], None]
"""Callback that charges a request the store's work, in the units of `Done.cost`, each time that it was tried."""


class Ledger:
    """Ledger actor: the only one that uses `store`. When `disk` has little free space, some requests are refused."""

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
        charge: Charge,
        outage: Outage,
        fleet: ToFleet,
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._gateway = gateway
        self._bus = bus
        self._janitor = janitor
        self._clock = clock
        self._fleet = fleet
        self._remote = store.remote
        self._apply = self._change_through_outages if store.remote else self._change
        self._steps = Stepper(self._batches(), offload, self._answer_meanwhile)
        self._transactions = Transactions(store, disk)
        self._outage = outage
        self._disk = disk
        self._counts = counts
        self._charge = charge
        self._parking = Parking()
        self._follow_ups: dict[str, FollowUp] = {}  # by job: one that is made again takes the place of the first
        self._ready: set[QueueKey] = set()
        self._locked: set[QueueKey] = set()  # queues in which other brokers' batches had locked jobs
        self._locked_until_ms: int | None = None  # when they are ready again
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

    def _gather(self) -> list[Entry]:
        """Gather the next batch; it may be empty, for example when a parked request timed out."""
        batch: list[Entry] = []
        while self._follow_ups and len(batch) < FOLLOW_UPS_MAX:
            batch.append(self._follow_ups.pop(next(iter(self._follow_ups))))
        units = 0
        while (waiting := self._inbox.next()) is not None:
            price = price_of(waiting)
            if batch and (units + price > BATCH_UNITS_MAX or len(batch) == self._store.batch_max):
                break
            units += price
            batch.append(self._inbox.receive_nowait())
        if self._parking and units < ALONE:
            for entry in batch:
                if isinstance(entry, Pending) and isinstance(entry.command.request, DequeueJob):
                    self._parking.discard(entry)  # this is a repeat, if it is parked
            for parked in self._parking.take(self._wanted(batch), BATCH_UNITS_MAX):
                if len(batch) < self._store.batch_max:
                    batch.append(parked)
                else:
                    self._parking.park(parked.pending, parked.until_ms, parked.turn)
        return batch

    def _find_waiting(self) -> bool:
        """Note the queues that have become ready; return whether a request, or jobs for parked ones, wait for a batch.

        Ready queues for which no request is parked are forgotten.
        """
        if self._locked_until_ms is not None and self._locked_until_ms <= self._clock.now_ms():
            self._ready |= self._locked
            self._locked, self._locked_until_ms = set(), None
        ready = self._bus.take_ready()
        self._ready |= self._parking.queues() if EVERY_QUEUE in ready else ready
        if not self._parking or not self._parking.waits_on(self._ready):
            self._ready.clear()
        return bool(self._ready or self._follow_ups) or self._inbox.next() is not None

    def _next_s(self) -> float:
        """Return when a batch is due in which nothing waits: when a parked request ends, or something is retried."""
        ends_ms = self._parking.next_end_ms(), self._take_over_ms, self._locked_until_ms
        known_ms = [end_ms for end_ms in ends_ms if end_ms is not None]
        return self._clock.deadline_s(min(known_ms)) if known_ms else math.inf

    def _wanted(self, batch: Sequence[Entry]) -> Counter[QueueKey]:
        """Count the jobs that parked requests may find, by queue and needs."""
        wanted: Counter[QueueKey] = Counter(dict.fromkeys(self._ready, READY_JOBS_GUESS))
        wanted.update(jobs_of(batch))
        return wanted

    def _commit(self, batch: Sequence[Entry]) -> Steps[bool]:
        """Apply a batch and send its replies, those of reads before the commit. False: the changes were not stored."""
        if self._remote:
            self._steps.due(self._parked_s())
        changes: list[ToApply] = []
        look_ups: list[ToApply] = []
        lists: list[ToApply] = []
        for entry in batch:
            if isinstance(entry, BetweenBatches):
                yield entry.work
                entry.done.set()
            elif (execution := execution_of(entry)) is Execution.CHANGE:
                changes.append(entry)
            else:  # over a network all reads share a transaction: the line takes the longest
                (look_ups if execution is Execution.LOOK_UP and not self._remote else lists).append(entry)
        if look_ups:
            yield from self._read(look_ups, long=False)
        if lists:
            yield from self._read(lists, long=True)
        return not changes or (yield from self._apply(changes))

    def _change_through_outages(self, changes: Sequence[ToApply]) -> Steps[bool]:
        """Apply changes, again after each outage of the store, and send their replies. False: they are refusals."""
        unsure = False
        while True:
            try:
                return (yield from self._change(changes))
            except StoreAway as away:
                unsure |= isinstance(away, StoreUnsure)
                if not unsure:
                    changes = self._park_again(changes)
                yield from self._wait_out(away)
                if unsure:  # the copy before may have been stored, with news that were never published
                    self._bus.replay_all()

    def _park_again(self, changes: Sequence[ToApply]) -> list[ToApply]:
        """Park those requests again that were parked, so that they may time out; return the other changes."""
        for entry in changes:
            if isinstance(entry, Parked):
                parked = self._parking.park(entry.pending, entry.until_ms, entry.turn)
                assert parked, "no place for a request that had one"
        return [entry for entry in changes if not isinstance(entry, Parked)]

    def _change(self, changes: Sequence[ToApply]) -> Steps[bool]:
        """Apply changes and send their replies. False: nothing was stored, and the replies are refusals.

        Raises `StoreAway`, `StoreUnsure`: nothing was sent.
        """
        kinds = set(map(type, changes))
        offset_ms = self._clock.follow() if RenewAll in kinds else None
        now_ms = self._clock.now_ms()
        # The Timekeeper sends nothing more until it gets an alarm: after an Expire, or a RenewAll in place of one. The
        # Ledger's own RenewAll, at the start, comes before the first alarm.
        timekeeper_waits = Expire in kinds or (RenewAll in kinds and self._alarm.due_ms is not None)
        began_s = time.perf_counter()
        try:
            staged = yield from self._transactions.write(self._transactions.commands(changes), now_ms)
        except (NoSpace, Busy) as refused:
            if offset_ms is not None:
                self._clock.back(offset_ms)
            again_ms = self._clock.now_ms() + NO_SPACE_PAUSE_MS
            alarm = self._next_alarm(again_ms, send_same=True) if timekeeper_waits else None
            self._speak(changes, [Done(refusal(refused), News(), cost=0)] * len(changes), BatchNews(alarm=alarm))
            return False
        self._counts.record_batch(len(changes), time.perf_counter() - began_s, staged.timings)
        if offset_ms is not None:
            self._take_over_ms = None
        alarm = None if self._take_over_ms else self._next_alarm(staged.next_due_ms, send_same=timekeeper_waits)
        self._speak(changes, staged.done, BatchNews(alarm=alarm, changes=staged.changes))
        return True

    def _read(self, reads: Sequence[ToApply], *, long: bool) -> Steps[None]:
        requests = [command for entry in reads if isinstance(command := command_of(entry), TenantRequest)]
        while True:
            try:
                done = yield from self._transactions.read(requests, long=long)
            except NoSpace as full:  # to make room in its cache, SQLite may have to write changed pages to the disk
                done = [Done(refusal(full), News(), cost=0)] * len(reads)
            except StoreAway as away:
                yield from self._wait_out(away)
                continue
            break
        self._counts.add("commands", len(reads))
        self._speak(reads, done, BatchNews())

    def _wait_out(self, away: StoreAway) -> Steps[None]:
        """Wait for the end of an outage. Then everything is ready: hints of other brokers may have been lost."""
        self._counts.add("outages")
        yield from self._outage.wait_out(away, self._pause_until)
        self._bus.ready_all()

    def _pause_until(self, instant_s: float) -> Steps[None]:
        """Pause, and answer the parked requests whose wait ends meanwhile."""
        while anyio.current_time() < instant_s:
            self._answer_timed_out()
            self._steps.due(min(instant_s, self._parked_s()))
            yield None

    def _speak(self, batch: Sequence[Entry], done: Sequence[Done], published: BatchNews) -> None:
        """Send the replies and the news of a batch, after its commit if it has changed the store."""
        responses: list[Response] = []
        for entry, outcome in zip(batch, done, strict=True):
            news = outcome.news
            published.ready |= news.ready
            published.appended += news.appended
            for follow_up in news.follow_ups:
                self._follow_ups[follow_up.job_id] = follow_up
            pending = entry.pending if isinstance(entry, Parked) else entry
            if isinstance(pending, Pending):
                if outcome.cost:
                    self._charge(pending.command, outcome.cost)
                    paid = 0 if isinstance(entry, Parked) else pending.price  # the inbox charged it once, not each try
                    if unpaid := outcome.cost - paid:
                        self._inbox.charge(pending.command.tenant, unpaid)
                if news.locked:
                    self._note_locked(news.locked)
                if news.exhausted:
                    self._exhaust(pending, news.exhausted, published.ready)
                if news.nudged:
                    published.nudged.append(Nudged(pending.command.tenant, tuple(news.nudged)))
                reply = outcome.reply
                if isinstance(reply, JobsLeased):
                    reply = self._unless_parked(entry, pending, reply)
                if reply is not None and pending.peer is not None:
                    responses.append(respond(pending, reply, news))
            else:
                self._tell(entry, news)
        if responses:
            self._gateway.send(responses)
        self._counts.add("events", sum([appended.segment.count for appended in published.appended]))
        self._bus.publish(published)

    def _tell(self, entry: Entry, news: News) -> None:
        """Tell the actor that waits for the end of its command."""
        if isinstance(entry, JanitorCommand):
            self._janitor.send_nowait(Swept(news.more, news.gone))
        elif isinstance(entry, Beat):
            self._fleet.send_nowait(Beaten(tuple(news.brokers)))
        elif isinstance(entry, Adopt):
            self._fleet.send_nowait(Adopted(frozenset(news.adopted)))
            if news.adopted:
                self._counts.add("adoptions", len(news.adopted))
                self._bus.ready_all()  # the dead broker may have told nobody of its last jobs

    def _note_locked(self, queues: set[QueueKey]) -> None:
        """Note that other brokers' batches had locked jobs in these queues: they are asked again a little later."""
        self._locked |= queues
        until_ms = self._clock.now_ms() + max(LOCKED_MS, self._store.locked_ms)
        if self._locked_until_ms is None or until_ms < self._locked_until_ms:
            self._locked_until_ms = until_ms

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
        waits = entry if isinstance(entry, Parked) else None
        until_ms = self._clock.now_ms() + request.wait_ms if waits is None else waits.until_ms
        return None if self._parking.park(pending, until_ms, waits.turn if waits else None) else refusal(Busy())

    def _answer_timed_out(self) -> None:
        if self._parking.next_end_ms() is None:
            return
        over = self._parking.expired(self._clock.now_ms())
        if responses := [respond(parked.pending, JobsLeased()) for parked in over if parked.pending.peer is not None]:
            self._gateway.send(responses)

    def _answer_meanwhile(self) -> None:
        """Answer parked requests whose wait ends while a batch over a network is under way, which may take long."""
        self._answer_timed_out()
        self._steps.due(self._parked_s())

    def _parked_s(self) -> float:
        end_ms = self._parking.next_end_ms()
        return math.inf if end_ms is None else self._clock.deadline_s(end_ms)

    def _next_alarm(self, due_ms: int | None, *, send_same: bool) -> Alarm | None:
        """Make the alarm for the Timekeeper; None: it will wake early enough, and `send_same` is false."""
        if due_ms is not None and self._store.remote:
            due_ms = max(due_ms, self._clock.now_ms() + LOCKED_MS)  # another broker may lock what is due
        if not send_same and (due_ms is None or (self._alarm.due_ms is not None and self._alarm.due_ms <= due_ms)):
            return None
        self._alarm = Alarm(due_ms)
        return self._alarm
