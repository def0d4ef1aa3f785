"""An agent that is to leave by itself does, and settles first what it has."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from airunner.protocol.job import JobState
from tests.agent.playing import staged
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture

pytestmark = pytest.mark.anyio

IDLE_S = 600.0


async def test_each_slot_ends_after_one_job_and_the_agent_with_the_last(tmp_path: Path) -> None:
    async with staged(tmp_path, slots=2, jobs_max=1) as stage:
        jobs = [await stage.client.submit(command="make") for _ in range(3)]
        for number in (1, 2):
            (await stage.launcher.process(number)).exit(0)
        await stage.ended.wait()
        states = [(await stage.client.get(job.id)).state for job in jobs]
        assert states == [JobState.COMPLETED, JobState.COMPLETED, JobState.SCHEDULED]


async def test_an_idle_agent_leaves_after_its_time(tmp_path: Path) -> None:
    async with staged(tmp_path, slots=2, idle_s_max=IDLE_S) as stage:
        began_s = anyio.current_time()
        await stage.ended.wait()
        assert anyio.current_time() - began_s >= IDLE_S
        job = await stage.client.submit(command="make")
        assert (await stage.client.get(job.id)).state is JobState.SCHEDULED


async def test_a_job_is_no_idleness_however_long_it_runs(tmp_path: Path) -> None:
    async with staged(tmp_path, slots=2, idle_s_max=IDLE_S) as stage:
        job = await stage.client.submit(command="make")
        process = await stage.launcher.process()
        await anyio.sleep(3 * IDLE_S)  # virtual
        assert not stage.ended.is_set()
        process.exit(0)
        ended_s = anyio.current_time()
        await stage.ended.wait()
        assert anyio.current_time() - ended_s >= IDLE_S
        assert (await stage.client.get(job.id)).state is JobState.COMPLETED
