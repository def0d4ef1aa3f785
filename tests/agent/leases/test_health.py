"""An agent whose machine refuses leases nothing, says why, and goes on by itself when a probe passes."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from airunner.agent.launcher.refusal import MachineRefused, Scarce
from airunner.agent.leases import probes
from airunner.agent.leases.health import PROBE_LAST_MS
from airunner.agent.leases.probes import GROWN_BYTES, ROOM_BYTES, Probes
from airunner.protocol.job import JobState, Reason
from tests.agent.playing import PlayedLauncher, Stage, staged

LONG_S = 3_600.0
SLOTS = 3


async def trouble_of(stage: Stage) -> str:
    [agent] = [one async for one in stage.client.agents()]
    return agent.trouble


async def test_nothing_is_leased_while_nothing_can_be_started_and_the_broker_hears_why(tmp_path: Path) -> None:
    async with staged(tmp_path, slots=SLOTS) as stage:
        stage.launcher.refusal = MachineRefused(Scarce.PROCESSES, "no more processes")
        stage.launcher.refuses_probes = True
        jobs = [await stage.client.submit(command="make", max_attempts=1) for _ in range(2 * SLOTS)]
        await anyio.sleep(LONG_S)  # virtual
        assert "no more processes" in await trouble_of(stage)
        assert stage.wire.asked.count("DequeueJob") <= 3 * SLOTS
        assert stage.launcher.asked <= 1.5 * SLOTS + 2 * LONG_S / (PROBE_LAST_MS / 1_000) + 10
        said = [line for line in stage.reports if line.startswith("no job can be run here now")]
        assert len(said) == 1
        stage.launcher.refusal = None
        for number in range(1, 2 * SLOTS + 1):  # the first is the probe
            (await stage.launcher.process(number)).exit(0)
        (await stage.launcher.process(2 * SLOTS + 1)).exit(0)
        for job in jobs:
            assert "PROCESS_END" in await stage.kinds(job.id)
            assert (await stage.client.get(job.id)).state is JobState.COMPLETED
        assert await trouble_of(stage) == ""


async def test_the_last_hook_runs_for_a_job_that_is_given_back_too(tmp_path: Path) -> None:
    hook = tmp_path / "hooks" / "pre-exit"
    hook.parent.mkdir(mode=0o700)
    hook.touch(mode=0o700)
    async with staged(tmp_path, hooks=hook.parent) as stage:
        stage.launcher.refusal = MachineRefused(Scarce.PROCESSES, "no more processes")
        job = await stage.client.submit(command="make", max_attempts=1)
        assert (await stage.launcher.process()).spec.argv == (str(hook),)
        stage.launcher.refusal = None
        stage.launcher.started[0].exit(0)
        for number in (2, 3, 4):  # the probe, the command, and the hook again
            (await stage.launcher.process(number)).exit(0)
        assert (await stage.kinds(job.id)).count("JOB_RELEASED") == 1
        assert (await stage.client.get(job.id)).state is JobState.COMPLETED


async def test_what_only_words_tell_of_counts_where_the_machine_is_able(stage: Stage) -> None:
    stage.launcher.refusal = MachineRefused(Scarce.DISK, "No space left on device", guessed=True)
    job = await stage.client.submit(command="make", max_attempts=2)
    events = [event async for event in stage.client.follow(job.id)]
    assert [event.kind for event in events].count("PROCESS_ERROR") == 2
    assert "No space left on device" in str(events)
    found = (await stage.client.get(job.id)).result
    assert found is not None
    assert found.reason is Reason.AGENT_LOST
    assert await trouble_of(stage) == ""


async def test_a_full_disk_is_tried_again_when_it_has_more_room_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [ROOM_BYTES // 2]
    monkeypatch.setattr(probes, "free_bytes", lambda _: free[0])
    probe = Probes(PlayedLauncher(), tmp_path)
    refusal = MachineRefused(Scarce.DISK, "No space left on device", guessed=True)
    assert not await probe.passes(refusal)
    probe.raise_bar(refusal)
    assert not await probe.passes(refusal)
    free[0] += GROWN_BYTES
    assert await probe.passes(refusal)
    free[0] = ROOM_BYTES
    assert await probe.passes(MachineRefused(Scarce.DISK, "No space left on device", guessed=True))
    assert [entry async for entry in anyio.Path(tmp_path).iterdir()] == []
