"""An attempt whose lease runs out is ended, told as nothing but that, and offered back."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from airunner.agent.leases.heldlease import KEEPER_SHARE, MARGIN_S_MAX
from airunner.agent.leases.renewer import RENEWAL_S_MAX
from airunner.protocol.job import JobState
from airunner.transport.ports import Sent
from tests.agent.playing import VISIBILITY_S, staged

pytestmark = pytest.mark.anyio

KILLED_AFTER_S = VISIBILITY_S - MARGIN_S_MAX / KEEPER_SHARE


async def test_each_renewal_moves_the_deadline_of_what_runs(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        leased_s = anyio.current_time()
        await stage.client.submit(command="sleep")
        process = await stage.launcher.process()
        assert leased_s <= process.deadline_s - KILLED_AFTER_S < leased_s + 1
        await anyio.sleep(10 * RENEWAL_S_MAX)  # virtual
        assert process.deadline_s >= leased_s + 9 * RENEWAL_S_MAX + KILLED_AFTER_S
        assert process.deadline_s <= anyio.current_time() + KILLED_AFTER_S


async def test_git_is_bound_by_the_lease_too(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        asked_s = anyio.current_time()
        await stage.client.submit(command="make", repository="/srv/project")
        git = await stage.launcher.process()
        assert git.spec.argv[0] == "git"
        assert asked_s <= git.deadline_s - KILLED_AFTER_S < asked_s + 1


@pytest.mark.parametrize("repository", ["", "/srv/project"])
async def test_what_a_keeper_killed_is_given_back_and_never_told_as_an_end(tmp_path: Path, repository: str) -> None:
    async with staged(tmp_path) as stage:
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


async def test_an_agent_that_cannot_renew_has_ended_the_attempt_before_its_keeper_would(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        job = await stage.client.submit(command="sleep")
        process = await stage.launcher.process()
        stage.wire.send = lambda *_: Sent.GONE
        with anyio.fail_after(VISIBILITY_S):
            await process.closed.wait()
        assert process.graces_s[0] == 0
        assert process.deadline_s - MARGIN_S_MAX < anyio.current_time() < process.deadline_s
        del stage.wire.send
        await stage.launcher.process(2)
        found = await stage.client.get(job.id)
        assert (found.state, found.attempt) == (JobState.RUNNING, 2)
