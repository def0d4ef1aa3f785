"""An agent that leaves, by itself or when it is told to, settles what it has; the rest is its successor's."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import anyio
import pytest

from airunner.agent.attempt.slot import DELIVERY_S
from airunner.agent.launcher.contract import LauncherDied
from airunner.agent.leases.settlement import LeftBehind, described
from airunner.agent.output.spool import SPOOL_FOLDER, Spool, SpoolFailed
from airunner.protocol.job import JobState, Reason
from airunner.transport.ports import Sent
from tests.agent.playing import VISIBILITY_S, PlayedProcess, Stage, staged
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture


def stop(stage: Stage) -> None:
    stage.agent.orders.drain.set()
    stage.agent.orders.stop.set()


async def test_a_stopped_agent_releases_what_runs_and_leaves_no_file(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        job, process = await stage.begun()
        stop(stage)
        await stage.ended.wait()
        assert process.graces_s[0] == 0
        assert (await stage.client.get(job.id)).state is JobState.SCHEDULED
        assert list((tmp_path / SPOOL_FOLDER).iterdir()) == []


async def test_what_is_stopped_while_the_broker_is_away_is_delivered_by_the_next_agent(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        job, _ = await stage.begun(command="make", repository="/srv/project")
        stage.wire.send = lambda *_: Sent.GONE
        stage.launcher.started[0].exit(1)  # git, whose words nobody hears now
        await anyio.sleep(1)  # virtual
        stopped_s = anyio.current_time()
        stop(stage)
        await stage.ended.wait()
        assert anyio.current_time() - stopped_s < 2 * DELIVERY_S
        assert f"job {job.id} attempt 1 {described(LeftBehind())}" in stage.reports
        assert len(list((tmp_path / SPOOL_FOLDER).iterdir())) == 1
        del stage.wire.send
        stage.start()
        await stage.launcher.process(2)
        await stage.client.cancel(job.id)
        kinds = await stage.kinds(job.id)
        assert kinds[:5] == ["JOB_SCHEDULED", "JOB_LEASED", "GIT_CLONE_START", "GIT_CLONE_ERROR", "JOB_RELEASED"]


async def test_a_full_disk_costs_the_job_a_moment_and_the_agent_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.mkdir
    full = [True, True]

    def make_if_there_is_room(place: str | Path, mode: int = 0o777) -> None:
        if full:
            full.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        make(place, mode)

    async with staged(tmp_path) as stage:
        monkeypatch.setattr(os, "mkdir", make_if_there_is_room)
        job, process = await stage.begun(command="make", max_attempts=1)
        process.exit(0)
        kinds = await stage.kinds(job.id)
        assert kinds.count("JOB_RELEASED") == 2
        assert (await stage.client.get(job.id)).state is JobState.COMPLETED
        assert any("No space left" in line for line in stage.reports)


@pytest.mark.parametrize(
    ("part", "call", "error"),
    [(Spool, "acknowledge", SpoolFailed("cannot read the spool")), (PlayedProcess, "wait", LauncherDied())],
    ids=["spool", "launcher"],
)
async def test_giving_back_what_has_begun_counts_and_so_ends(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, part: type, call: str, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(part, call, fail)
    job = await stage.client.submit(command="make", max_attempts=2)
    kinds: list[str] = []
    async for event in stage.client.follow(job.id):
        kinds.append(event.kind)
        assert kinds.count("JOB_RELEASED") <= 2
    assert (kinds.count("JOB_RELEASED"), kinds[-1]) == (2, "JOB_FINISHED")
    found = (await stage.client.get(job.id)).result
    assert found is not None
    assert found.reason is Reason.AGENT_LOST
    assert not stage.ended.is_set()


async def test_what_was_asked_for_long_ago_is_renewed_and_run_and_not_wasted(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, anyio.create_task_group() as group:
        await stage.client.list_page()  # from here on the client waits as long as it takes
        stage.wire.send = lambda *_: Sent.DONE  # whatever the broker says is lost
        group.start_soon(partial(stage.client.submit, command="make"))
        await anyio.sleep(2 * VISIBILITY_S)  # virtual
        del stage.wire.send
        process = await stage.launcher.process()
        assert process.deadline_s > anyio.current_time() + VISIBILITY_S / 2
        process.exit(0)
        [job] = (await stage.client.list_page()).jobs
        kinds = await stage.kinds(job.id)
        assert (kinds.count("JOB_LEASED"), kinds.count("JOB_RELEASED"), kinds[-1]) == (1, 0, "JOB_FINISHED")


IDLE_S = 60.0


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
        job, process = await stage.begun(command="make")
        await anyio.sleep(3 * IDLE_S)  # virtual
        assert not stage.ended.is_set()
        process.exit(0)
        ended_s = anyio.current_time()
        await stage.ended.wait()
        assert anyio.current_time() - ended_s >= IDLE_S
        assert (await stage.client.get(job.id)).state is JobState.COMPLETED
