"""How the slots of an agent ask for jobs: each for itself while there are none, together while there are many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from airunner.agent.attempt.slot import DELIVERY_S
from airunner.agent.leases.leaser import GATHER_S
from airunner.agent.leases.settlement import LeftBehind, described
from airunner.protocol.coding import decode_reply, encode, refusal
from airunner.protocol.errors import StaleToken
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobEventsPublished, JobsLeased
from airunner.protocol.requests import DequeueJob
from airunner.transport.ports import Sent
from tests.agent.playing import Stage, staged

SLOTS = 3


def dequeues(stage: Stage) -> list[tuple[int, bool]]:
    """Of each DequeueJob so far: for how many slots, and whether it was to be parked."""
    return [(one.slots, one.wait_ms > 0) for one in stage.wire.requests if isinstance(one, DequeueJob)]


async def submit(stage: Stage, jobs: int) -> list[str]:
    return [job.id for job in await stage.client.submit_many([JobSpec(command="make")] * jobs)]


async def test_an_idle_agent_has_each_of_its_slots_parked(tmp_path: Path) -> None:
    async with staged(tmp_path, SLOTS) as stage:
        await submit(stage, SLOTS)
        await stage.launcher.process(SLOTS)
        assert dequeues(stage) == [(1, True)] * SLOTS


@pytest.mark.parametrize("slots", [1, SLOTS])
async def test_an_idle_agent_parks_again_after_a_lone_job_without_asking_in_vain(tmp_path: Path, slots: int) -> None:
    async with staged(tmp_path, slots) as stage:
        (job,) = await submit(stage, 1)
        (await stage.launcher.process()).exit(0)
        assert (await stage.kinds(job))[-1] == "JOB_FINISHED"
        await anyio.sleep(1)  # virtual
        assert dequeues(stage) == [(1, True)] * (slots + 1)


async def test_an_idle_agent_sends_few_requests_an_hour(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await anyio.sleep(60)  # virtual
        first = len(stage.wire.asked)
        await anyio.sleep(3_600)  # virtual
        asked = Counter(stage.wire.asked[first:])
    assert asked.keys() == {"DequeueJob"}
    assert 240 <= asked["DequeueJob"] <= 320, "each is parked for 11 to 15 s"


async def test_agents_that_start_together_do_not_ask_together_for_ever(tmp_path: Path) -> None:
    async with staged(tmp_path, 8) as stage:
        await anyio.sleep(300)  # virtual
        waits_ms = {request.wait_ms for request in stage.wire.requests if isinstance(request, DequeueJob)}
    assert min(waits_ms) < 12_000
    assert max(waits_ms) > 14_000


async def test_a_busy_agent_parks_nothing_until_it_is_idle_again(tmp_path: Path) -> None:
    async with staged(tmp_path, SLOTS) as stage:
        jobs = await submit(stage, 2 * SLOTS)
        await stage.launcher.process(SLOTS)
        for process in stage.launcher.started:
            process.exit(0)
        await stage.launcher.process(2 * SLOTS)
        assert [parked for _, parked in dequeues(stage)[SLOTS:]].count(True) == 0
        assert sum(slots for slots, _ in dequeues(stage)[SLOTS:]) == SLOTS
        for process in stage.launcher.started:
            process.exit(0)
        assert [(await stage.kinds(job))[-1] for job in jobs] == ["JOB_FINISHED"] * len(jobs)
        await anyio.sleep(1)  # virtual
        assert [parked for _, parked in dequeues(stage)].count(True) == 2 * SLOTS


async def test_who_becomes_free_while_the_broker_is_asked_goes_with_the_next(tmp_path: Path) -> None:
    async with staged(tmp_path, SLOTS) as stage:
        await submit(stage, 2 * SLOTS)
        await stage.launcher.process(SLOTS)
        send, held = stage.wire.send, []
        stage.wire.send = lambda peer, frames: held.append((peer, frames)) or Sent.DONE
        for process in stage.launcher.started[:SLOTS]:
            process.exit(0)
            await anyio.sleep(0.1)  # virtual
        stage.wire.send = send
        for peer, frames in held:
            send(peer, frames)
        await stage.launcher.process(2 * SLOTS)
        assert dequeues(stage)[SLOTS:] == [(1, False), (SLOTS - 1, False)]


async def test_slots_that_become_free_one_shortly_after_another_share_a_request(tmp_path: Path) -> None:
    async with staged(tmp_path, SLOTS) as stage:
        await submit(stage, 2 * SLOTS)
        await stage.launcher.process(SLOTS)
        for process in stage.launcher.started[:SLOTS]:
            process.exit(0)
            await anyio.sleep(GATHER_S / SLOTS)  # virtual
        await stage.launcher.process(2 * SLOTS)
        assert dequeues(stage)[SLOTS:] == [(SLOTS, False)]


async def test_a_slot_takes_the_next_job_while_the_broker_hears_of_the_last_and_no_third(stage: Stage) -> None:
    jobs = await submit(stage, 3)
    first = await stage.launcher.process()
    send = stage.wire.send

    def lose_completions(peer: bytes, frames: list[bytes]) -> Sent:
        reply = decode_reply(frames[-1])
        if isinstance(reply, JobEventsPublished) and reply.completions:
            return Sent.DONE
        return send(peer, frames)

    stage.wire.send = lose_completions
    first.exit(0)
    (await stage.launcher.process(2)).exit(7)
    await anyio.sleep(60)  # virtual
    assert len(stage.launcher.started) == 2
    stage.wire.send = send
    (await stage.launcher.process(3)).exit(0)
    assert [(await stage.kinds(job))[-1] for job in jobs] == ["JOB_FINISHED"] * 3
    states = [(await stage.client.get(job)).state for job in jobs]
    assert states == [JobState.COMPLETED, JobState.FAILED, JobState.COMPLETED]


async def test_an_end_that_the_broker_has_not_heard_of_is_left_to_the_next_agent(stage: Stage) -> None:
    (job,) = await submit(stage, 1)
    process = await stage.launcher.process()
    stage.wire.send = lambda *_: Sent.GONE
    stage.wire.receive = anyio.sleep_forever
    process.exit(0)
    await anyio.sleep(1)  # virtual
    stage.agent.orders.drain.set()
    await anyio.sleep(2 * DELIVERY_S)  # virtual
    assert not stage.ended.is_set(), "one that drains waits for the broker"
    stage.agent.orders.stop.set()
    stopped_s = anyio.current_time()
    await stage.ended.wait()
    assert anyio.current_time() - stopped_s < 2 * DELIVERY_S
    assert f"job {job} attempt 1 {described(LeftBehind())}" in stage.reports


@pytest.mark.parametrize("found", [True, False])
async def test_an_idle_agent_waits_for_no_broker_that_has_gone_or_never_was(tmp_path: Path, *, found: bool) -> None:
    async with staged(tmp_path, SLOTS) as stage:
        if found:
            await idle(stage)
        stage.wire.send = lambda *_: Sent.GONE
        for link in stage.wire.links:
            link.close()
        await anyio.sleep(1)  # virtual
        assert await drained_s(stage) < 1


async def test_an_idle_agent_returns_what_it_parks_to_a_broker_that_comes_back_at_once(tmp_path: Path) -> None:
    async with staged(tmp_path, SLOTS) as stage:
        await idle(stage)
        for link in stage.wire.links:
            link.close()
        await drained_s(stage)
        assert dequeues(stage)[-SLOTS:] == [(1, False)] * SLOTS


async def test_a_job_that_is_leased_as_the_agent_is_stopped_is_given_back(tmp_path: Path) -> None:
    async with staged(tmp_path, SLOTS) as stage:
        await idle(stage)
        send = stage.wire.send

        def stop(peer: bytes, frames: Sequence[bytes]) -> Sent:
            stage.agent.orders.drain.set()
            stage.agent.orders.stop.set()
            return send(peer, frames)

        stage.wire.send = stop
        (job,) = await submit(stage, 1)
        await stage.ended.wait()
        assert (await stage.client.get(job)).state is JobState.SCHEDULED


async def test_an_agent_ends_whatever_the_broker_says_to_what_it_returns(tmp_path: Path) -> None:
    async with staged(tmp_path, SLOTS) as stage:
        await idle(stage)
        send = stage.wire.send

        def refuse(peer: bytes, frames: Sequence[bytes]) -> Sent:
            if isinstance(decode_reply(frames[2]), JobsLeased):
                frames = [*frames[:2], encode(refusal(StaleToken()))]
            return send(peer, frames)

        stage.wire.send = refuse
        await drained_s(stage)


async def drained_s(stage: Stage) -> float:
    """How long the agent takes to end, once it is told to."""
    told_s = anyio.current_time()
    stage.agent.orders.drain.set()
    await stage.ended.wait()
    return anyio.current_time() - told_s


async def idle(stage: Stage) -> None:
    """Return once each slot is parked at the broker."""
    await anyio.sleep(1)  # virtual
    assert dequeues(stage) == [(1, True)] * SLOTS
