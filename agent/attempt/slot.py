"""One slot: leases a job, attempts it, and leases the next while the broker hears how it ended.

An agent with N slots runs N of these over one connection. What a slot holds it settles in one of three ways, and
never in two: it completes, it releases, or it has lost the lease and may say nothing. An attempt whose lease ran out
here is still offered back: a broker that was away may have prolonged it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
from msgspec import Struct

from airunner.agent.attempt.attempt import Attempt, Surroundings
from airunner.agent.attempt.supervisor import MESSAGE_CHARS_MAX
from airunner.agent.flag import cancelled_by
from airunner.agent.launcher.contract import LauncherDied, LeaseEnded
from airunner.agent.launcher.refusal import MachineRefused, refusal_in
from airunner.agent.leases.health import Health
from airunner.agent.leases.heldlease import HeldLease
from airunner.agent.leases.leaser import LOST, Leaser, Orders
from airunner.agent.leases.occupancy import Occupancy
from airunner.agent.leases.renewer import Renewer
from airunner.agent.output.journal import Journal
from airunner.agent.output.outputbound import OutputBound
from airunner.agent.output.publisher import EventPublisher
from airunner.agent.output.spool import Spool, SpoolFailed, SpoolHeader
from airunner.agent.plan import Plan
from airunner.agent.workspace.workspace import Workspace, remove_workspace
from airunner.agent.workspace.workspaces import Workspaces
from airunner.protocol.errors import PeerError
from airunner.protocol.events import ProcessError
from airunner.protocol.job import JobState, ProcessType, Result
from airunner.protocol.messages import JobLease
from airunner.protocol.printable import one_line
from airunner.transport.backoff import Backoff
from airunner.transport.ports import Edges

SPOOL_FOLDER: Final = "spool"
DELIVERY_S: Final = 10.0  # for the last events of an attempt, once the agent is told to end
REFUSED_FIRST_MS: Final = 500
REFUSED_LAST_MS: Final = 30_000
LAUNCHER_DIED: Final = (
    "the agent's launcher was killed, and every process of the job with it; the job is given back for another attempt"
)
REFUSED: Final = "this agent's machine cannot run the job now, and gives it back"
UNSETTLED: Final = "is left for the next agent of this home to deliver and release"


class Slot:
    """The actor."""

    def __init__(
        self,
        plan: Plan,
        leaser: Leaser,
        publisher: EventPublisher,
        renewer: Renewer,
        workspaces: Workspaces,
        surroundings: Surroundings,
        edges: Edges,
        orders: Orders,
        occupancy: Occupancy,
        health: Health,
        report: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._leaser = leaser
        self._publisher = publisher
        self._renewer = renewer
        self._workspaces = workspaces
        self._surroundings = surroundings
        self._edges = edges
        self._orders = orders
        self._occupancy = occupancy
        self._health = health
        self._report = report
        self._backoff = Backoff(edges.random, REFUSED_FIRST_MS, REFUSED_LAST_MS)
        self._settled = anyio.Event()
        self._settled.set()

    async def run(self) -> None:
        """Work until told to drain, or until the plan's jobs are done."""
        jobs = 0
        async with anyio.create_task_group() as settling:
            while not self._orders.drain.is_set() and jobs != self._plan.jobs_max:
                await self._health.well(self._orders.drain)
                held = await self._lease()
                if held is not None:
                    with self._occupancy.busy():
                        attempted = await self._work(held)
                        await self._settled.wait()  # of the last job: one at a time waits for the broker
                    self._settled = anyio.Event()
                    settling.start_soon(self._settle, attempted)
                    jobs += not attempted.refused

    async def _lease(self) -> HeldLease | None:
        """The next lease; None when there is none for now."""
        try:
            held = await self._leaser.lease()
        except PeerError as error:
            if not self._backoff.failures:
                self._report(f"no job can be leased now: {error}; trying again")
            with cancelled_by(self._orders.drain):
                await self._backoff.pause()
            return None
        self._backoff.reset()
        return held

    async def _work(self, held: HeldLease) -> _Attempted:
        """Attempt what was leased."""
        lease = held.lease
        self._report(f"job {lease.job_id} attempt {lease.attempt} begins: {one_line(lease.spec.command)}")
        workspace: Workspace | None = None
        attempted = _Attempted(held)
        refusal: MachineRefused | None = None
        try:
            workspace = self._workspaces.acquire(lease.job_id, lease.attempt)
            self._open(attempted)
            await self._perform(attempted, workspace)
        except (MachineRefused, OSError, BaseExceptionGroup) as error:
            refusal = refusal_in(error)
            if refusal is None:
                raise
        finally:
            if workspace is not None and not self._workspaces.reclaim(workspace):
                with anyio.CancelScope(shield=True):
                    await self._clear(workspace)
        if refusal is None:
            self._health.attempt_ended()
        else:
            await self._refuse(attempted, refusal)
        return attempted

    async def _refuse(self, attempted: _Attempted, refusal: MachineRefused) -> None:
        """Nothing can be done for this job here and now: another is to have it."""
        attempted.refused = True
        attempted.result = None
        attempted.counts |= await self._health.refused(refusal, begun=attempted.begun)
        if attempted.journal is not None and not attempted.journal.broken.is_set():
            message = f"{REFUSED}: {refusal.message}"[:MESSAGE_CHARS_MAX]
            attempted.journal.add(ProcessError(timestamp_ms=self._surroundings.wall_ms(), message=message))

    def _close(self, attempted: _Attempted, *, settled: bool) -> None:
        """Let go of it; what is not settled is for the next agent of this home to deliver."""
        self._renewer.drop(attempted.held)
        if attempted.journal is not None:
            self._publisher.close(attempted.journal)
        if attempted.spool is not None:
            try:
                if settled:
                    attempted.spool.remove()
                else:
                    attempted.spool.close()
            except SpoolFailed as failed:  # the next agent of this home finds it, and that it is over
                self._report(str(failed))

    async def _clear(self, workspace: Workspace) -> None:
        for leftover in await self._surroundings.offload(lambda: remove_workspace(workspace.root)):
            self._report(f"could not remove {leftover.path}: {leftover.why}")
        self._workspaces.removed(workspace)

    def _open(self, attempted: _Attempted) -> None:
        """Raises `SpoolFailed`."""
        lease = attempted.held.lease
        header = SpoolHeader(job_id=lease.job_id, attempt=lease.attempt, task_token=lease.task_token)
        spool = Spool.create(self._plan.home / SPOOL_FOLDER / f"{lease.job_id}.{lease.attempt}", header)
        terminal = lease.spec.process_type is ProcessType.PTY
        batcher = self._plan.flush.batcher(terminal=terminal)
        bound = OutputBound(self._plan.log_bytes_max)
        journal = Journal(lease, spool, batcher, self._publisher, bound, attempted.held.cancelled)
        attempted.spool, attempted.journal = spool, journal
        self._publisher.open(journal)

    async def _perform(self, attempted: _Attempted, workspace: Workspace) -> None:
        """Run the attempt until it ends or is ended; a result is on its way to the broker then.

        Raises `MachineRefused`, `OSError`, alone or in a group.
        """
        journal = attempted.journal
        assert journal is not None, "it has been opened"
        attempt = Attempt(attempted.held, workspace, journal, self._surroundings)
        try:
            with cancelled_by(self._orders.stop, attempted.held.lost, journal.lost, journal.broken):
                attempted.result = await attempt.perform()
        except* LeaseEnded:
            pass  # its keeper did what we could not; whether the lease is lost is the broker's to say
        except* LauncherDied:
            attempted.counts = True  # and whatever ran: nobody knows how it went
            journal.add(ProcessError(timestamp_ms=self._surroundings.wall_ms(), message=LAUNCHER_DIED))
        finally:
            attempted.begun = attempt.begun
        if journal.failure is not None:
            raise journal.failure
        if attempted.result is not None:
            journal.finish(attempted.result)

    async def _settle(self, attempted: _Attempted) -> None:
        """See to it that the broker knows how it ended, or may give the job to another."""
        lease = attempted.held.lease
        journal = attempted.journal
        outcome = ""
        if journal is None:
            outcome = await self._leaser.release(lease, lost=attempted.counts)
        else:
            if attempted.result is not None:
                outcome = await self._completed(journal, attempted.result)
            if not outcome and (attempted.result is None or journal.lost.is_set() or journal.broken.is_set()):
                counts = attempted.counts or (journal.broken.is_set() and attempted.begun)
                outcome = await self._give_back(lease, journal, lost=counts)
        self._close(attempted, settled=bool(outcome))
        self._report(f"job {lease.job_id} attempt {lease.attempt} {outcome or UNSETTLED}")
        self._settled.set()

    async def _completed(self, journal: Journal, result: Result) -> str:
        """What became of the job; empty when that is not known, or the lease was lost.

        Nothing runs any more: it may wait for the broker as long as it takes, unless the agent is told to stop.
        """
        state: JobState | None = None
        with cancelled_by(self._orders.stop):
            state = await journal.settled()
        if state is None:
            with anyio.move_on_after(DELIVERY_S):
                state = await journal.settled()
        if state is None:
            return ""
        if state is JobState.SCHEDULED:
            return f"ends with exit status {result.exit_status}, and the job will be tried again"
        return f"ends {state} with exit status {result.exit_status}"

    async def _give_back(self, lease: JobLease, journal: Journal, *, lost: bool) -> str:
        """Deliver what the command has written, then release; empty when a drain did not leave the time for it.

        `lost` counts: a job that kills what starts it is not to do so for ever.
        """
        settled = ""
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_when_draining, group.cancel_scope)
            try:
                await journal.deliver()
            except SpoolFailed as failed:
                self._report(f"job {lease.job_id} attempt {lease.attempt}: {failed}")
            settled = LOST if journal.lost.is_set() else await self._leaser.release(lease, lost=lost)
            group.cancel_scope.cancel()
        return settled

    async def _cancel_when_draining(self, scope: anyio.CancelScope) -> None:
        """Until then there is time: a slot whose broker is away has nothing else to do."""
        await self._orders.drain.wait()
        await anyio.sleep(DELIVERY_S)
        scope.cancel()


class _Attempted(Struct):
    """An attempt and what came of it; without a `result` it was ended before it had one, and is given back.

    `begun`: its command has run. `refused`: by this machine. `counts`: its end is one of the job's `max_attempts`.
    """

    held: HeldLease
    spool: Spool | None = None
    journal: Journal | None = None
    result: Result | None = None
    begun: bool = False
    refused: bool = False
    counts: bool = False
