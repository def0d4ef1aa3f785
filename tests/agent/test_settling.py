"""An agent that is told to stop gives back what it runs; what it cannot deliver then, its successor does."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from trio.testing import MockClock

from airunner.agent.slot import DELIVERY_S, SPOOL_FOLDER, UNSETTLED
from airunner.certs.edges import Sent
from airunner.protocol.job import JobState
from tests.agent.playing import Stage, staged

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def stop(stage: Stage) -> None:
    stage.agent.orders.drain.set()
    stage.agent.orders.stop.set()


async def test_a_stopped_agent_releases_what_runs_and_leaves_no_file(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        job = await stage.client.submit(command="sleep")
        process = await stage.launcher.process()
        stop(stage)
        await stage.ended.wait()
        assert process.graces_s[0] == 0
        assert (await stage.client.get(job.id)).state is JobState.SCHEDULED
        assert list((tmp_path / SPOOL_FOLDER).iterdir()) == []


async def test_what_is_stopped_while_the_broker_is_away_is_delivered_by_the_next_agent(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        job = await stage.client.submit(command="make", repository="/srv/project")
        await stage.launcher.process()
        stage.wire.send = lambda *_: Sent.GONE
        stage.launcher.started[0].exit(1)  # git, whose words nobody hears now
        await anyio.sleep(1)  # virtual
        stopped_s = anyio.current_time()
        stop(stage)
        await stage.ended.wait()
        assert anyio.current_time() - stopped_s < 2 * DELIVERY_S
        assert f"job {job.id} attempt 1 {UNSETTLED}" in stage.reports
        assert len(list((tmp_path / SPOOL_FOLDER).iterdir())) == 1
        del stage.wire.send
        stage.start()
        await stage.launcher.process(2)
        await stage.client.cancel(job.id)
        kinds = await stage.kinds(job.id)
        assert kinds[:5] == ["JOB_SCHEDULED", "JOB_LEASED", "GIT_CLONE_START", "GIT_CLONE_ERROR", "JOB_RELEASED"]
