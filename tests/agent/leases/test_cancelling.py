"""A cancelled job is ended with a grace, at once when the broker nudges; one whose lease runs out is offered again."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from airunner.agent.flag import Flag, cancelled_by
from airunner.agent.leases.heldlease import KEEPER_SHARE, MARGIN_S_MAX
from airunner.agent.leases.renewer import RENEWAL_S_MAX, RETRY_S
from airunner.broker.gateway import NUDGE_ID
from airunner.protocol.errors import Unauthenticated
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.jobretry import RetryPolicy
from airunner.protocol.replies import Reply
from airunner.protocol.requests import Request, UpdateJob
from airunner.transport.ports import Sent
from tests.agent.playing import CANCEL_GRACE_S, VISIBILITY_S, Stage, staged

AT_ONCE_S = 0.5


def lose_nudges(stage: Stage) -> None:
    send = stage.wire.send
    stage.wire.send = lambda peer, frames: Sent.DONE if frames[1] == NUDGE_ID else send(peer, frames)


async def test_a_nudge_has_a_job_cancelled_at_once(stage: Stage) -> None:
    job, process = await stage.begun(args=("1000",))
    await anyio.sleep(10)  # virtual
    asked_s = anyio.current_time()
    assert await stage.client.cancel(job.id) is JobState.RUNNING
    kinds = await stage.kinds(job.id)
    assert anyio.current_time() - asked_s < AT_ONCE_S
    assert process.graces_s == [CANCEL_GRACE_S]
    assert kinds[-4:] == ["PROCESS_START", "JOB_CANCEL_REQUESTED", "PROCESS_END", "JOB_FINISHED"]
    found = await stage.client.get(job.id)
    assert (found.state, found.result) == (JobState.CANCELLED, Result(signal=15, reason=Reason.CANCELLED))


@pytest.mark.parametrize("timeout_seconds", [None, 5])
async def test_a_job_chooses_the_signal_of_its_cancel_and_of_its_timeout(
    stage: Stage, timeout_seconds: int | None
) -> None:
    job, _ = await stage.begun(cancel_signal="INT", timeout_seconds=timeout_seconds)
    if timeout_seconds is None:
        await stage.client.cancel(job.id)
    await stage.kinds(job.id)
    result = (await stage.client.get(job.id)).result
    assert result == Result(signal=2, reason=Reason.TIMEOUT if timeout_seconds else Reason.CANCELLED)


async def test_what_a_command_leaves_has_a_grace_of_10_s_whatever_the_agents(stage: Stage) -> None:
    job, process = await stage.begun()
    process.exit(0)
    await stage.kinds(job.id)
    assert process.graces_s == [10]
    assert CANCEL_GRACE_S != 10


async def test_where_the_nudge_is_lost_the_next_heartbeat_brings_the_cancel(stage: Stage) -> None:
    lose_nudges(stage)
    job, _ = await stage.begun()
    asked_s = anyio.current_time()
    await stage.client.cancel(job.id)
    await stage.kinds(job.id)
    assert AT_ONCE_S < anyio.current_time() - asked_s < RENEWAL_S_MAX + AT_ONCE_S
    assert (await stage.client.get(job.id)).state is JobState.CANCELLED


async def test_the_lease_of_a_cancelled_job_is_kept_for_as_long_as_its_grace_takes(stage: Stage) -> None:
    stage.launcher.stubborn = True
    job, process = await stage.begun(command="stubborn")
    process_end_s = process.deadline_s
    await anyio.sleep(10)  # virtual
    await stage.client.cancel(job.id)
    asked_s = anyio.current_time()
    await stage.kinds(job.id)
    assert CANCEL_GRACE_S <= anyio.current_time() - asked_s < CANCEL_GRACE_S + AT_ONCE_S
    assert process.deadline_s >= process_end_s + 10
    assert (await stage.client.get(job.id)).result == Result(signal=9, reason=Reason.CANCELLED)


async def test_a_cancel_during_the_checkout_ends_git_and_starts_nothing(stage: Stage) -> None:
    job, git = await stage.begun(command="make", repository="/srv/project")
    assert git.spec.argv[0] == "git"
    await stage.client.cancel(job.id)
    kinds = await stage.kinds(job.id)
    assert git.closed.is_set()
    assert len(stage.launcher.started) == 1
    assert "PROCESS_START" not in kinds
    assert (await stage.client.get(job.id)).result == Result(reason=Reason.CANCELLED)


async def test_a_cancel_while_the_process_is_being_started_starts_none(stage: Stage) -> None:
    stage.launcher.hesitates = True
    job = await stage.client.submit(command="make")
    await stage.launcher.asking()
    await stage.client.cancel(job.id)
    assert "PROCESS_START" not in await stage.kinds(job.id)
    assert stage.launcher.started == []
    assert (await stage.client.get(job.id)).state is JobState.CANCELLED


async def test_a_command_out_of_time_has_the_same_grace(stage: Stage) -> None:
    stage.launcher.stubborn = True
    job, process = await stage.begun(command="stubborn", timeout_seconds=5)
    started_s = anyio.current_time()
    await stage.kinds(job.id)
    assert process.graces_s == [CANCEL_GRACE_S]
    assert 5 + CANCEL_GRACE_S <= anyio.current_time() - started_s < 5 + CANCEL_GRACE_S + AT_ONCE_S
    assert (await stage.client.get(job.id)).result == Result(signal=9, reason=Reason.TIMEOUT)


async def test_many_nudges_are_one_heartbeat(tmp_path: Path) -> None:
    async with staged(tmp_path, slots=3) as stage:
        jobs = [await stage.client.submit(command="sleep") for _ in range(3)]
        await stage.launcher.process(3)
        for job in jobs:
            await stage.client.cancel(job.id)  # the second and the third come while the first is being settled
        for job in jobs:
            await stage.kinds(job.id)
        assert 1 <= stage.wire.asked.count("UpdateJob") <= 3
        before = stage.wire.asked.count("UpdateJob")
        await stage.begun()
        await anyio.sleep(1)  # virtual
        for _ in range(10):
            stage.agent.channel.nudged()
        await anyio.sleep(1)  # virtual
        assert stage.wire.asked.count("UpdateJob") == before + 1


async def test_a_nudge_before_the_lease_is_held_is_not_forgotten(stage: Stage) -> None:
    await anyio.sleep(1)  # virtual
    stage.agent.channel.nudged()
    await anyio.sleep(1)  # virtual
    assert "UpdateJob" not in stage.wire.asked
    await stage.begun()
    await anyio.sleep(AT_ONCE_S)  # virtual
    assert stage.wire.asked.count("UpdateJob") == 1


async def test_a_heartbeat_that_is_refused_is_repeated_and_brings_the_cancel(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = await stage.begun()
    channel = stage.agent.channel
    ask = channel.ask
    refusals = [Unauthenticated("the token has expired")]

    async def refused_once(request: Request, **how: object) -> Reply:
        if isinstance(request, UpdateJob) and refusals:
            raise refusals.pop()
        return await ask(request, **how)

    monkeypatch.setattr(channel, "ask", refused_once)
    asked_s = anyio.current_time()
    await stage.client.cancel(job.id)
    await stage.kinds(job.id)
    assert not refusals
    assert RETRY_S <= anyio.current_time() - asked_s < RETRY_S + AT_ONCE_S


async def test_a_command_that_will_be_tried_again_is_reported_so(stage: Stage) -> None:
    job = await stage.client.submit(command="false", retry=RetryPolicy(limit=1))
    (await stage.launcher.process(1)).exit(1)
    (await stage.launcher.process(2)).exit(0)
    await stage.kinds(job.id)
    await anyio.sleep(1)  # virtual
    assert f"job {job.id} attempt 1 ends with exit status 1, and the job will be retried" in stage.reports
    assert f"job {job.id} attempt 2 ends COMPLETED with exit status 0" in stage.reports


async def test_an_agent_says_what_it_is(tmp_path: Path) -> None:
    async with staged(tmp_path, slots=2) as stage:
        await stage.begun()
        for _ in range(2):  # by then it was heard of by its DequeueJobs alone, and by its heartbeats too
            (agent,) = [agent async for agent in stage.client.agents()]
            assert (agent.name, agent.slots, agent.leases, agent.version) == ("played", 2, 1, "1.2")
            await anyio.sleep(RENEWAL_S_MAX + 1)  # virtual


async def test_a_cancel_that_came_first_ends_every_later_wait() -> None:
    cancelled = Flag()
    cancelled.set()
    with cancelled_by(cancelled) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_block_that_was_left_is_not_ended_any_more() -> None:
    cancelled = Flag()
    with cancelled_by(cancelled) as scope:
        await anyio.lowlevel.checkpoint()
    cancelled.set()
    assert not scope.cancel_called


KILLED_AFTER_S = VISIBILITY_S - MARGIN_S_MAX / KEEPER_SHARE


async def test_each_renewal_moves_the_deadline_of_what_runs(stage: Stage) -> None:
    leased_s = anyio.current_time()
    _, process = await stage.begun()
    assert leased_s <= process.deadline_s - KILLED_AFTER_S < leased_s + 1
    await anyio.sleep(10 * RENEWAL_S_MAX)  # virtual
    assert process.deadline_s >= leased_s + 9 * RENEWAL_S_MAX + KILLED_AFTER_S
    assert process.deadline_s <= anyio.current_time() + KILLED_AFTER_S


async def test_git_is_bound_by_the_lease_too(stage: Stage) -> None:
    asked_s = anyio.current_time()
    _, git = await stage.begun(command="make", repository="/srv/project")
    assert git.spec.argv[0] == "git"
    assert asked_s <= git.deadline_s - KILLED_AFTER_S < asked_s + 1


@pytest.mark.parametrize("repository", ["", "/srv/project"])
async def test_what_a_keeper_killed_is_given_back_and_never_told_as_an_end(stage: Stage, repository: str) -> None:
    job = await stage.client.submit(command="sleep", repository=repository)
    (await stage.launcher.process()).expire()
    second = await stage.launcher.process(2)
    assert (await stage.client.get(job.id)).attempt == 2
    await stage.client.cancel(job.id)
    kinds = await stage.kinds(job.id)
    assert second.closed.is_set()
    assert kinds.count("JOB_RELEASED") == 1
    first = kinds[: kinds.index("JOB_RELEASED")]
    assert "PROCESS_END" not in first
    assert "GIT_CLONE_ERROR" not in first
    assert f"job {job.id} attempt 1 is released" in stage.reports


async def test_an_agent_that_cannot_renew_has_ended_the_attempt_before_its_keeper_would(stage: Stage) -> None:
    job, process = await stage.begun()
    stage.wire.send = lambda *_: Sent.GONE
    with anyio.fail_after(VISIBILITY_S):
        await process.closed.wait()
    assert process.graces_s[0] == 0
    assert process.deadline_s - MARGIN_S_MAX < anyio.current_time() < process.deadline_s
    del stage.wire.send
    await stage.launcher.process(2)
    found = await stage.client.get(job.id)
    assert (found.state, found.attempt) == (JobState.RUNNING, 2)
