"""Slot: leases a job, runs an attempt at it, and leases the next job while it reports the result to the broker.

An agent with N slots runs N of these over one connection. A slot settles each lease exactly once (see
`leases.settlement`). It also releases a lease that has expired by the agent's clock: a broker that was away may have
extended the lease.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct

from airunner.agent.artifacts.uploading import Uplink
from airunner.agent.attempt.attempt import Attempt
from airunner.agent.attempt.supervisor import MESSAGE_CHARS_MAX
from airunner.agent.attempt.surroundings import BrokerPort, Surroundings
from airunner.agent.caches.shelf import place_of
from airunner.agent.flag import Flag, cancelled_by
from airunner.agent.launcher.contract import LauncherDied, LeaseEnded
from airunner.agent.launcher.refusal import MachineRefused, refusal_in
from airunner.agent.leases.attemptcounts import AttemptCounts
from airunner.agent.leases.health import Health
from airunner.agent.leases.heldlease import HeldLease
from airunner.agent.leases.leaser import Leaser, Orders
from airunner.agent.leases.occupancy import Occupancy
from airunner.agent.leases.renewer import Renewer
from airunner.agent.leases.settlement import Completed, LeftBehind, Lost, Settlement, described
from airunner.agent.output.logsigning import Signer
from airunner.agent.output.outbox import Outbox, nothing
from airunner.agent.output.outputlimit import OutputLimit
from airunner.agent.output.publisher import EventPublisher
from airunner.agent.output.recorder import Recorder
from airunner.agent.output.spool import Spool, SpoolFailed, SpoolHeader
from airunner.agent.plan import Plan
from airunner.agent.saves.restoring import BrokersBlobs
from airunner.agent.workspace.blobcache import CachedBlobs
from airunner.agent.workspace.workspace import Workspace
from airunner.agent.workspace.workspaces import Workspaces
from airunner.protocol.errors import PeerError
from airunner.protocol.events import ProcessError
from airunner.protocol.fields import ProcessType
from airunner.protocol.job import JobState, Result
from airunner.protocol.printable import one_line
from airunner.protocol.replies import JobLease
from airunner.protocol.shownspec import shown_command
from airunner.transport.backoff import Backoff
from airunner.transport.files.pieces import Source
from airunner.transport.ports import Edges

DELIVERY_S: Final = 10.0  # wait for the broker to store a result after `stop`, or to accept a release after `drain`
REFUSED_FIRST_MS: Final = 500  # longest pause after the broker's first refusal of a lease; it doubles each time
REFUSED_LAST_MS: Final = 30_000  # longest pause after any refusal
KILLED: Final = "every process of the job was killed; the job is given back"
REFUSED: Final = "the job is given back, because this agent's machine cannot run it now"


class _Attempted(Struct):
    """An attempt and its outcome; without a `result` the attempt was ended early.

    `prepared_s`: time until the command was started; None: it was not. `refused`: this machine could not run the job.
    `counts`: towards `max_attempts`.
    """

    held: HeldLease
    leased_s: float
    recorder: Recorder | None = None
    result: Result | None = None
    prepared_s: float | None = None
    refused: bool = False
    counts: bool = False

    @property
    def name(self) -> str:
        """The attempt's name in reports."""
        return f"job {self.held.lease.job_id} attempt {self.held.lease.attempt}"


class Slot(Struct, frozen=True):
    """Slot of an agent: runs one job at a time. The slots share this object, each in a task of its own."""

    plan: Plan
    spools: Path
    leaser: Leaser
    publisher: EventPublisher
    renewer: Renewer
    workspaces: Workspaces
    uplink: Uplink
    surroundings: Surroundings
    edges: Edges
    orders: Orders
    occupancy: Occupancy
    counts: AttemptCounts
    health: Health
    report: Callable[[str], None]
    signer: Signer | None = None  # signs the logs of attempts; None: nothing does

    async def run(self) -> None:
        """Run jobs until `orders.drain` is set, or `plan.jobs_max` jobs have run, not counting refused ones."""
        jobs = 0
        backoff = Backoff(self.edges.random, REFUSED_FIRST_MS, REFUSED_LAST_MS)
        settled = Flag()
        settled.set()
        async with anyio.create_task_group() as settling:
            while not self.orders.drain.is_set() and jobs != self.plan.jobs_max:
                await self.health.until_well(self.orders.drain)
                held = await self._lease(backoff)
                if held is not None:
                    with self.occupancy:
                        attempted = await self._work(held)
                        await settled.wait()  # the previous job: at most one lease of a slot waits for the broker
                    settled = self._begin_settling(attempted, settling)
                    jobs += not attempted.refused
            await settled.wait()

    async def _lease(self, backoff: Backoff) -> HeldLease | None:
        """Return the next lease; None: the broker has no job now or refuses, or the agent must not lease."""
        try:
            held = await self.leaser.lease()
        except PeerError as error:
            if not backoff.failures:
                self.report(f"no job can be leased now: {error}; trying again")
            with cancelled_by(self.orders.drain):
                await backoff.pause()
            return None
        backoff.reset()
        return held

    async def _work(self, held: HeldLease) -> _Attempted:
        """Run an attempt at a leased job, and return its outcome."""
        lease = held.lease
        attempted = _Attempted(held, anyio.current_time())
        self.report(f"{attempted.name} begins: {one_line(shown_command(lease.spec))}")
        workspace: Workspace | None = None
        refusal: MachineRefused | None = None
        try:
            workspace = self.workspaces.acquire(self._seat(lease) if lease.spec.caches else None)
            attempted.recorder = self._recorder(held)
            await self._perform(attempted, attempted.recorder, workspace)
        except (MachineRefused, OSError, BaseExceptionGroup) as error:
            refusal = refusal_in(error)
            if refusal is None:
                raise
        finally:
            if workspace is not None and not self.workspaces.reclaim(workspace):
                with anyio.CancelScope(shield=True):
                    await self._clear(workspace)
        if refusal is None:
            self.health.attempt_ended()
        else:
            await self._refuse(attempted, refusal)
        return attempted

    def _seat(self, lease: JobLease) -> str | None:
        """Return the name of the workspace of jobs with the same caches; None: any name. Raises `OSError`."""
        shelf = self.surroundings.shelf
        if shelf is None:
            return None
        names = sorted(f"{cache.label}/{cache.name}" for cache in lease.spec.caches)
        return shelf.seat(place_of(self.plan.tenant, lease.spec.queue, *names), lease.workspace_key)

    def _recorder(self, held: HeldLease) -> Recorder:
        """Create the attempt's spool, outbox and recorder. Raises `SpoolFailed`."""
        lease = held.lease
        header = SpoolHeader(lease=lease.ref)
        spool = Spool.create(self.spools / f"{lease.job_id}.{lease.attempt}", header)
        batcher = self.plan.flush.batcher(terminal=lease.spec.process_type is ProcessType.PTY)
        outbox = Outbox(lease, spool, batcher, self.publisher, held.cancelled, self.signer)
        self.publisher.open(outbox)
        return Recorder(batcher, outbox, OutputLimit(self.plan.log_bytes_max))

    def _blobs(self, say: Callable[[str], None]) -> Source:
        """Make a source of blobs: the broker, through the agent's cache; `say` gets a line if it waits."""
        cache, broker = self.surroundings.blobs, BrokersBlobs(self.uplink, say)
        return broker if cache is None else CachedBlobs(cache, self.plan.tenant, broker, self.surroundings.offload)

    async def _perform(self, attempted: _Attempted, recorder: Recorder, workspace: Workspace) -> None:
        """Run the attempt until it has ended, and pass its result, if it has one, to the outbox.

        Raises `MachineRefused`, `OSError`, alone or in a group.
        """
        outbox = recorder.outbox
        broker = BrokerPort(self.leaser.read_stdin, self._blobs, self.uplink, self.plan.tenant)
        attempt = Attempt(attempted.held, workspace, recorder, self.surroundings, broker)
        try:
            with cancelled_by(self.orders.stop, attempted.held.lost, outbox.lost, outbox.broken):
                attempted.result = await attempt.perform()
        except* LeaseEnded:
            pass  # keepers have killed the job at its deadline; the broker decides whether the lease is lost
        except* LauncherDied as died:
            attempted.counts = True  # the command may have run, and its result is not known
            message = f"{_first(died)}; {KILLED}"
            recorder.add(ProcessError(timestamp_ms=self.surroundings.wall_ms(), message=message))
        finally:
            if attempt.begun_s is not None:
                attempted.prepared_s = attempt.begun_s - attempted.leased_s
        if outbox.failure is not None:
            raise outbox.failure
        if attempted.result is not None:
            outbox.finish(attempted.result)

    async def _refuse(self, attempted: _Attempted, refusal: MachineRefused) -> None:
        """Report to `health` that this machine cannot run the job, and record it; the lease is then released."""
        attempted.refused = True
        attempted.result = None
        attempted.counts |= await self.health.refused(refusal, begun=attempted.prepared_s is not None)
        if attempted.recorder is not None and not attempted.recorder.outbox.broken.is_set():
            message = f"{REFUSED}: {refusal.message}"[:MESSAGE_CHARS_MAX]
            attempted.recorder.add(ProcessError(timestamp_ms=self.surroundings.wall_ms(), message=message))

    async def _clear(self, workspace: Workspace) -> None:
        for leftover in await self.surroundings.offload(lambda: self.workspaces.clear(workspace)):
            self.report(f"could not remove {leftover.path}: {leftover.why}; remove it by hand")
        self.workspaces.removed(workspace)

    def _begin_settling(self, attempted: _Attempted, settling: TaskGroup) -> Flag:
        """Begin to settle the lease, and return the flag that is set when it is settled.

        Usually the broker accepts the result, and its reply settles the lease. All else is done by a task.
        """
        settled = Flag()
        if attempted.recorder is None or attempted.result is None:
            settling.start_soon(self._settle, attempted, settled)
            return settled
        outbox = attempted.recorder.outbox
        outbox.when_over = partial(self._settle_sent, attempted, attempted.result, outbox, settled, settling)
        self.orders.stop.add(outbox.when_over)
        if outbox.over:
            outbox.when_over()
        return settled

    def _settle_sent(
        self, attempted: _Attempted, result: Result, outbox: Outbox, settled: Flag, settling: TaskGroup
    ) -> None:
        """Settle the lease of an attempt whose result was sent: the broker has replied, or the agent is to stop.

        What comes first calls this, and it sees to it that the other does not call it again.
        """
        self.orders.stop.remove(outbox.when_over)
        outbox.when_over = nothing
        if outbox.state is None:
            settling.start_soon(self._settle, attempted, settled)
        else:
            self._end(attempted, Completed(outbox.state, result.exit_status), settled)

    async def _settle(self, attempted: _Attempted, settled: Flag) -> None:
        """Settle the lease."""
        self._end(attempted, await self._settlement(attempted), settled)

    def _end(self, attempted: _Attempted, settlement: Settlement, settled: Flag) -> None:
        """End a settled attempt: remove its spool, or leave it to the home's next agent."""
        self.renewer.drop(attempted.held)
        if attempted.recorder is not None:
            outbox = attempted.recorder.outbox
            self.publisher.close(outbox)
            try:
                if isinstance(settlement, LeftBehind):
                    outbox.spool.close()  # for the next agent of this home
                else:
                    outbox.spool.remove()
            except SpoolFailed as failed:  # the next agent of this home finds the spool, and that its lease is settled
                self.report(str(failed))
        self.counts.record(settlement, attempted.prepared_s)
        self.report(f"{attempted.name} {described(settlement)}")
        settled.set()

    async def _settlement(self, attempted: _Attempted) -> Settlement:
        """Complete the job, release the lease or leave it behind; return which."""
        if attempted.recorder is None:
            return await self.leaser.release(attempted.held.lease, lost=attempted.counts)
        outbox = attempted.recorder.outbox
        if attempted.result is not None:
            if (state := await self._completed(outbox)) is not None:
                return Completed(state, attempted.result.exit_status)
            if not outbox.lost.is_set() and not outbox.broken.is_set():
                return LeftBehind()
        return await self._give_back(attempted, outbox)

    async def _completed(self, outbox: Outbox) -> JobState | None:
        """Wait until the broker has the result, and return the job's state; None: lost, broken, or too late.

        No process of the job runs any more, so only an order to stop limits the wait, to `DELIVERY_S`.
        """
        with cancelled_by(self.orders.stop):
            return await outbox.settled()
        with anyio.move_on_after(DELIVERY_S):
            return await outbox.settled()
        return None

    async def _give_back(self, attempted: _Attempted, outbox: Outbox) -> Settlement:
        """Deliver the attempt's events, then release the lease; after a drain, give up when `DELIVERY_S` has passed.

        If the spool fails after the command has run, the attempt counts: a job that always breaks its agent must end.
        """
        settlement: Settlement = LeftBehind()
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_when_draining, group.cancel_scope)
            try:
                await outbox.deliver()
            except SpoolFailed as failed:
                self.report(f"{attempted.name}: {failed}")
            if outbox.lost.is_set():
                settlement = Lost()
            else:
                counts = attempted.counts or (outbox.broken.is_set() and attempted.prepared_s is not None)
                settlement = await self.leaser.release(attempted.held.lease, lost=counts)
            group.cancel_scope.cancel()
        return settlement

    async def _cancel_when_draining(self, scope: anyio.CancelScope) -> None:
        """Cancel `scope` `DELIVERY_S` after a drain; without a drain, the slot waits for a broker that is away."""
        await self.orders.drain.wait()
        await anyio.sleep(DELIVERY_S)
        scope.cancel()


def _first(group: ExceptionGroup[LauncherDied]) -> LauncherDied:
    """Return the first exception in a group, which may be in an inner group."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
