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

from airunner.agent.attempt import Attempt, Surroundings
from airunner.agent.batching import PIPE_WINDOW_MS, TERMINAL_WINDOW_MS, Batcher
from airunner.agent.flag import unless
from airunner.agent.journal import Journal
from airunner.agent.launcher.contract import LauncherDied, LeaseEnded, NoLauncher
from airunner.agent.leaser import LOST, Leaser, Orders
from airunner.agent.occupancy import Occupancy
from airunner.agent.outputbound import OutputBound
from airunner.agent.plan import Plan
from airunner.agent.publisher import Publisher
from airunner.agent.renewer import Renewer
from airunner.agent.spool import Spool, SpoolFailed, SpoolHeader
from airunner.agent.tenure import Tenure
from airunner.agent.workspace import Workspace, WorkspaceFailed, remove_workspace
from airunner.agent.workspaces import Workspaces
from airunner.certs.edges import Edges
from airunner.protocol.errors import PeerError
from airunner.protocol.events import ProcessError
from airunner.protocol.job import JobState, ProcessType, Result
from airunner.protocol.messages import JobLease
from airunner.protocol.printable import one_line
from airunner.protocol.retry import full_jitter_ms

SPOOL_FOLDER: Final = "spool"
DELIVERY_S: Final = 10.0  # for the last events of an attempt, once the agent is told to end
REFUSED_FIRST_MS: Final = 500
REFUSED_LAST_MS: Final = 30_000
LAUNCHER_DIED: Final = (
    "the agent's launcher was killed, and every process of the job with it; the job is given back for another attempt"
)
UNSETTLED: Final = "is left for the next agent of this home to deliver and release"


class Slot:
    """The actor."""

    def __init__(
        self,
        plan: Plan,
        leaser: Leaser,
        publisher: Publisher,
        renewer: Renewer,
        workspaces: Workspaces,
        surroundings: Surroundings,
        edges: Edges,
        orders: Orders,
        occupancy: Occupancy,
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
        self._report = report
        self._settled = anyio.Event()
        self._settled.set()

    async def run(self) -> None:
        """Work until told to drain, or until the plan's jobs are done."""
        failures = jobs = 0
        async with anyio.create_task_group() as settling:
            while not self._orders.drain.is_set() and jobs != self._plan.jobs_max:
                try:
                    tenure = await self._leaser.lease()
                    if tenure is not None:
                        with self._occupancy.taken():
                            attempted = await self._work(tenure)
                            await self._settled.wait()  # of the last job: one at a time waits for the broker
                        self._settled = anyio.Event()
                        settling.start_soon(self._settle, attempted)
                        jobs += 1
                except (PeerError, SpoolFailed, WorkspaceFailed, NoLauncher) as error:
                    if not failures:
                        self._report(f"no job can be worked on now: {error}; trying again")
                    failures += 1
                    pause_ms = full_jitter_ms(self._edges.random, failures, REFUSED_FIRST_MS, REFUSED_LAST_MS)
                    with anyio.move_on_after(pause_ms / 1_000):
                        await self._orders.drain.wait()
                else:
                    failures = 0

    async def _work(self, tenure: Tenure) -> _Attempted:
        """Attempt what was leased.

        Raises `SpoolFailed`, `WorkspaceFailed`, `NoLauncher`; then it has been given back.
        """
        lease = tenure.lease
        self._report(f"job {lease.job_id} attempt {lease.attempt} begins: {one_line(lease.spec.command)}")
        workspace: Workspace | None = None
        attempted: _Attempted | None = None
        try:
            workspace = self._workspaces.take(lease.job_id, lease.attempt)
            attempted = self._open(tenure)
            await self._perform(Attempt(tenure, workspace, attempted.journal, self._surroundings), attempted)
        except (WorkspaceFailed, SpoolFailed, NoLauncher, BaseExceptionGroup) as error:
            failed = _passing_failure(error)
            if failed is None:
                raise
            await self._give_up(tenure, attempted)
            raise failed from error
        finally:
            if workspace is not None and not self._workspaces.reclaim(workspace):
                with anyio.CancelScope(shield=True):
                    await self._clear(workspace)
        return attempted

    async def _give_up(self, tenure: Tenure, attempted: _Attempted | None) -> None:
        """Nothing can be done for this job here and now: let another have it."""
        lease = tenure.lease
        self._report(f"job {lease.job_id} attempt {lease.attempt} {await self._leaser.release(lease)}")
        self._close(tenure, attempted, settled=True)

    def _close(self, tenure: Tenure, attempted: _Attempted | None, *, settled: bool) -> None:
        """Let go of it; what is not settled is for the next agent of this home to deliver."""
        self._renewer.drop(tenure)
        if attempted is not None:
            self._publisher.close(attempted.journal)
            if settled:
                attempted.spool.remove()
            else:
                attempted.spool.close()

    async def _clear(self, workspace: Workspace) -> None:
        for leftover in await self._surroundings.offload(lambda: remove_workspace(workspace.root)):
            self._report(f"could not remove {leftover.path}: {leftover.why}")

    def _open(self, tenure: Tenure) -> _Attempted:
        lease = tenure.lease
        header = SpoolHeader(job_id=lease.job_id, attempt=lease.attempt, task_token=lease.task_token)
        spool = Spool.create(self._plan.home / SPOOL_FOLDER / f"{lease.job_id}.{lease.attempt}", header)
        terminal = lease.spec.process_type is ProcessType.PTY
        batcher = Batcher(TERMINAL_WINDOW_MS if terminal else PIPE_WINDOW_MS)
        journal = Journal(lease, spool, batcher, self._publisher, OutputBound(self._plan.log_bytes_max))
        self._publisher.open(journal)
        return _Attempted(tenure, spool, journal)

    async def _perform(self, attempt: Attempt, attempted: _Attempted) -> None:
        """Run the attempt until it ends or is ended; a result is on its way to the broker then."""
        journal = attempted.journal
        try:
            with unless(self._orders.stop, attempted.tenure.lost, journal.lost, journal.broken):
                attempted.result = await attempt.perform()
        except* LeaseEnded:
            pass  # its keeper did what we could not; whether the lease is lost is the broker's to say
        except* LauncherDied:
            attempted.launcher_died = True  # and whatever ran: nobody knows how it went
            journal.add(ProcessError(timestamp_ms=self._surroundings.wall_ms(), message=LAUNCHER_DIED))
        if journal.failure is not None:
            raise journal.failure
        if attempted.result is not None:
            journal.finish(attempted.result)

    async def _settle(self, attempted: _Attempted) -> None:
        """See to it that the broker knows how it ended, or may give the job to another."""
        tenure = attempted.tenure
        lease = tenure.lease
        outcome = ""
        try:
            if attempted.result is not None:
                outcome = await self._completed(attempted.journal, attempted.result)
            if attempted.result is None or attempted.journal.lost.is_set():
                outcome = await self._give_back(lease, attempted.journal, lost=attempted.launcher_died)
        except SpoolFailed as failed:
            self._report(f"job {lease.job_id} attempt {lease.attempt}: {failed}")
            outcome = await self._leaser.release(lease)
        self._close(tenure, attempted, settled=bool(outcome))
        self._report(f"job {lease.job_id} attempt {lease.attempt} {outcome or UNSETTLED}")
        self._settled.set()

    async def _completed(self, journal: Journal, result: Result) -> str:
        """What became of the job; empty when that is not known, or the lease was lost.

        Nothing runs any more: it may wait for the broker as long as it takes, unless the agent is told to stop.
        """
        state: JobState | None = None
        with unless(self._orders.stop):
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
            await journal.deliver()
            settled = LOST if journal.lost.is_set() else await self._leaser.release(lease, lost=lost)
            group.cancel_scope.cancel()
        return settled

    async def _cancel_when_draining(self, scope: anyio.CancelScope) -> None:
        """Until then there is time: a slot whose broker is away has nothing else to do."""
        await self._orders.drain.wait()
        await anyio.sleep(DELIVERY_S)
        scope.cancel()


class _Attempted(Struct):
    """An attempt and what came of it; without a `result` it was ended before it had one."""

    tenure: Tenure
    spool: Spool
    journal: Journal
    result: Result | None = None
    launcher_died: bool = False


def _passing_failure(
    error: SpoolFailed | WorkspaceFailed | NoLauncher | BaseExceptionGroup[BaseException],
) -> SpoolFailed | WorkspaceFailed | NoLauncher | None:
    """What this machine refuses now, alone or among what a task group raised, if that is what went wrong."""
    if isinstance(error, (SpoolFailed, WorkspaceFailed, NoLauncher)):
        return error
    failures = error.subgroup((SpoolFailed, NoLauncher))
    if failures is None:
        return None
    first = failures.exceptions[0]
    assert isinstance(first, (SpoolFailed, NoLauncher, BaseExceptionGroup)), "the subgroup says so"
    return _passing_failure(first)
