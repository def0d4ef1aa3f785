"""One slot: leases a job, attempts it, settles it, and leases the next.

An agent with N slots runs N of these over one connection, each with one parked DequeueJob: no slot waits for
another, and a free one is known to the broker the moment it is free. What a slot holds it settles in one of
three ways, and never in two: it completes, it releases, or it has lost the lease and may say nothing. An attempt
whose lease ran out here is still offered back: a broker that was away may have prolonged it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
from msgspec import Struct

from airunner.agent.attempt import Attempt, Surroundings
from airunner.agent.batching import PIPE_WINDOW_MS, TERMINAL_WINDOW_MS, Batcher
from airunner.agent.flag import Flag, unless
from airunner.agent.journal import Journal
from airunner.agent.launcher.contract import LauncherDied, LeaseEnded, NoLauncher
from airunner.agent.occupancy import Occupancy
from airunner.agent.outputbound import OutputBound
from airunner.agent.plan import Plan
from airunner.agent.publisher import Publisher
from airunner.agent.renewer import Renewer
from airunner.agent.spool import Spool, SpoolFailed, SpoolHeader
from airunner.agent.tenure import Tenure
from airunner.agent.workspace import Workspace, WorkspaceFailed, make_workspace, remove_if_empty, remove_workspace
from airunner.certs.channel import Channel
from airunner.certs.edges import Edges
from airunner.protocol.errors import NotFound, PeerError, StaleToken
from airunner.protocol.events import ProcessError
from airunner.protocol.job import JobState, ProcessType, Result
from airunner.protocol.messages import (
    WAIT_MS_MAX,
    DequeueJob,
    JobCompleted,
    JobLease,
    JobsLeased,
    JobsUpdated,
    LeaseRef,
    ReleaseJob,
    UpdateJob,
    Verdict,
)
from airunner.protocol.names import REQUEST_ID_BYTES, SEED_BYTES, RequestId
from airunner.protocol.printable import one_line
from airunner.protocol.retry import PATIENCE_MS, full_jitter_ms

SPOOL_FOLDER: Final = "spool"
RETURN_S: Final = 5.0  # for ending a parked request; with the broker away there is nothing to end
STALE_SHARE: Final = 2  # a grant that half of its time has passed on is renewed before it is begun
DELIVERY_S: Final = 10.0  # for the last events of a released attempt, once the agent is told to drain
REFUSED_FIRST_MS: Final = 500
REFUSED_LAST_MS: Final = 30_000
LOST: Final = "has lost its lease; its processes are ended"
LAUNCHER_DIED: Final = (
    "the agent's launcher was killed, and every process of the job with it; the job is given back for another attempt"
)
UNSETTLED: Final = "is left for the next agent of this home to deliver and release"


class Orders(Struct):
    """What the agent has been told: `drain` leases no more, `stop` also ends what runs."""

    drain: Flag
    stop: Flag


class Slot:
    """The actor."""

    def __init__(
        self,
        plan: Plan,
        channel: Channel,
        publisher: Publisher,
        renewer: Renewer,
        surroundings: Surroundings,
        edges: Edges,
        orders: Orders,
        occupancy: Occupancy,
        report: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._channel = channel
        self._publisher = publisher
        self._renewer = renewer
        self._surroundings = surroundings
        self._edges = edges
        self._orders = orders
        self._occupancy = occupancy
        self._report = report

    async def run(self) -> None:
        """Work until told to drain, or until the plan's jobs are done."""
        failures = jobs = 0
        while not self._orders.drain.is_set() and jobs != self._plan.jobs_max:
            try:
                leased = await self._lease()
                if leased is not None:
                    with self._occupancy.taken():
                        await self._work(leased)
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

    async def _lease(self) -> Tenure | None:
        """The next lease; None when the wait was in vain or a drain came."""
        wait_ms = min(WAIT_MS_MAX, self._plan.visibility_ms // 3)
        request_id = RequestId(self._edges.random_bytes(REQUEST_ID_BYTES))
        seed = self._edges.random_bytes(SEED_BYTES)
        asked_s = anyio.current_time()
        reply: JobsLeased | None = None
        with unless(self._orders.drain):
            reply = await self._dequeue(request_id, seed, wait_ms)
        if reply is None:
            with anyio.move_on_after(RETURN_S), unless(self._orders.stop):
                await self._return_parked(request_id, seed)
            return None
        if not reply.leases:
            return None
        lease = reply.leases[0]
        while anyio.current_time() - asked_s > self._plan.visibility_ms / 1_000 / STALE_SHARE:
            # It was asked for again and again while the broker was away: it has to be renewed before it is begun.
            asked_s = anyio.current_time()
            if not await self._is_kept(lease):
                return None
        return self._renewer.hold(lease, asked_s)

    async def _is_kept(self, lease: JobLease) -> bool:
        """Renew a lease before it is begun; whether it is still ours."""
        ref = LeaseRef(job_id=lease.job_id, attempt=lease.attempt, task_token=lease.task_token)
        reply = await self._channel.ask(UpdateJob(leases=(ref,), visibility_ms=self._plan.visibility_ms))
        assert isinstance(reply, JobsUpdated), "the answer to UpdateJob"
        return reply.leases[0].verdict is not Verdict.LOST

    async def _dequeue(self, request_id: RequestId, seed: bytes, wait_ms: int) -> JobsLeased:
        request = DequeueJob(
            agent=self._plan.name,
            agent_slots=self._plan.slots,
            version=self._plan.version,
            tags=dict(self._plan.tags),
            queues=self._plan.queues,
            visibility_ms=self._plan.visibility_ms,
            wait_ms=wait_ms,
            token_seed=seed,
        )
        reply = await self._channel.ask(request, request_id=request_id, patience_ms=wait_ms + PATIENCE_MS)
        assert isinstance(reply, JobsLeased), "the answer to DequeueJob"
        return reply

    async def _return_parked(self, request_id: RequestId, seed: bytes) -> None:
        """Ask the parked request again, now without a wait: it ends the parking, and what it holds goes back."""
        reply = await self._dequeue(request_id, seed, 0)
        for lease in reply.leases:
            await self._release(lease)

    async def _work(self, tenure: Tenure) -> None:
        """Attempt what was leased, and settle it."""
        lease = tenure.lease
        self._report(f"job {lease.job_id} attempt {lease.attempt} begins: {one_line(lease.spec.command)}")
        workspace: Workspace | None = None
        try:
            workspace = make_workspace(self._plan.home, lease.job_id, lease.attempt)
            await self._attempt(tenure, workspace)
        except (WorkspaceFailed, SpoolFailed, NoLauncher, BaseExceptionGroup) as error:
            failed = _passing_failure(error)
            if failed is None:
                raise
            self._report(f"job {lease.job_id} attempt {lease.attempt} {await self._release(lease)}")
            raise failed from error
        finally:
            self._renewer.drop(tenure)
            if workspace is not None:
                with anyio.CancelScope(shield=True):
                    await self._clear(workspace)

    async def _clear(self, workspace: Workspace) -> None:
        if remove_if_empty(workspace):
            return
        for leftover in await self._surroundings.offload(lambda: remove_workspace(workspace.root)):
            self._report(f"could not remove {leftover.path}: {leftover.why}")

    async def _attempt(self, tenure: Tenure, workspace: Workspace) -> None:
        lease = tenure.lease
        header = SpoolHeader(job_id=lease.job_id, attempt=lease.attempt, task_token=lease.task_token)
        spool = Spool.create(self._plan.home / SPOOL_FOLDER / f"{lease.job_id}.{lease.attempt}", header)
        terminal = lease.spec.process_type is ProcessType.PTY
        batcher = Batcher(TERMINAL_WINDOW_MS if terminal else PIPE_WINDOW_MS)
        journal = Journal(lease, spool, batcher, self._publisher, OutputBound(self._plan.log_bytes_max))
        self._publisher.open(journal)
        leave = spool.close  # for the next agent of this home to deliver, unless the attempt is settled here
        try:
            outcome = await self._perform(Attempt(tenure, workspace, journal, self._surroundings), tenure, journal)
            if outcome:
                leave = spool.remove
            self._report(f"job {lease.job_id} attempt {lease.attempt} {outcome or UNSETTLED}")
        except (SpoolFailed, NoLauncher, BaseExceptionGroup) as error:
            if _passing_failure(error) is not None:
                leave = spool.remove
            raise
        finally:
            self._publisher.close(journal)
            leave()

    async def _perform(self, attempt: Attempt, tenure: Tenure, journal: Journal) -> str:
        """Run the attempt until it ends or is ended; says how it was settled, and nothing if it was not."""
        result: Result | None = None
        completed = ""
        died = False
        try:
            with unless(self._orders.stop, tenure.lost, journal.lost, journal.broken):
                result = await attempt.perform()
        except* LeaseEnded:
            pass  # its keeper did what we could not; whether the lease is lost is the broker's to say
        except* LauncherDied:
            died = True  # and whatever ran: nobody knows how it went
            journal.add(ProcessError(timestamp_ms=self._surroundings.wall_ms(), message=LAUNCHER_DIED))
        if journal.failure is not None:
            raise journal.failure
        if result is not None:  # nothing runs any more: what came of it may wait for the broker as long as it takes
            with unless(self._orders.stop):
                completed = await self._complete(journal, result)
        return completed or await self._give_back(tenure.lease, journal, lost=died)

    async def _give_back(self, lease: JobLease, journal: Journal, *, lost: bool) -> str:
        """Deliver what the command has written, then release; empty when a drain did not leave the time for it.

        `lost` counts: a job that kills what starts it is not to do so for ever.
        """
        settled = ""
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_when_draining, group.cancel_scope)
            await journal.deliver()
            settled = LOST if journal.lost.is_set() else await self._release(lease, lost=lost)
            group.cancel_scope.cancel()
        return settled

    async def _cancel_when_draining(self, scope: anyio.CancelScope) -> None:
        """Until then there is time: a slot whose broker is away has nothing else to do."""
        await self._orders.drain.wait()
        await anyio.sleep(DELIVERY_S)
        scope.cancel()

    async def _complete(self, journal: Journal, result: Result) -> str:
        """Settle the attempt; empty when the lease was lost instead."""
        request = await journal.completion(result)
        if journal.lost.is_set():
            return ""
        failures = 0
        while True:
            try:
                with self._publisher.answering():
                    reply = await self._channel.ask(request)
            except (StaleToken, NotFound):
                journal.lose()
                return ""
            except PeerError as error:
                if not failures:
                    self._report(f"job {request.job_id} cannot be completed yet: {error.message}")
                failures += 1
                pause_ms = full_jitter_ms(self._edges.random, failures, REFUSED_FIRST_MS, REFUSED_LAST_MS)
                await anyio.sleep(pause_ms / 1_000)
                continue
            assert isinstance(reply, JobCompleted), "the answer to CompleteJob"
            if reply.state is JobState.SCHEDULED:
                return f"ends with exit status {result.exit_status}, and the job will be tried again"
            return f"ends {reply.state} with exit status {result.exit_status}"

    async def _release(self, lease: JobLease, *, lost: bool = False) -> str:
        """Give an attempt back; says what became of it."""
        token = lease.task_token
        try:
            await self._channel.ask(ReleaseJob(job_id=lease.job_id, attempt=lease.attempt, task_token=token, lost=lost))
        except (StaleToken, NotFound):
            return LOST
        except PeerError as error:
            return f"is not released, its lease will expire: {error.message}"
        return "is released"


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
