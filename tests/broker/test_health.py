"""What the broker says of itself: named conditions, a disk that does not answer, and counters."""

from __future__ import annotations

import os
import resource

import anyio
import pytest

from airunner.broker.conditions import judge_descriptors, judge_durability, judge_store
from airunner.broker.counts import Counts
from airunner.broker.health import LOOK_S, Health, Status
from airunner.broker.stalls import DISK, SERVER, STALLED_S, Stalls
from airunner.protocol.requests import Ping
from tests.broker.gatewaystage import Stage
from tests.broker.stage import Disk, dequeue


def test_a_condition_is_said_once_when_it_begins_and_once_when_it_is_over() -> None:
    said: list[str] = []
    health = Health(said.append)
    assert health.status is Status.OK
    health.degrade("disk", "4 MiB are free")
    health.degrade("disk", "3 MiB are free")
    assert (health.status, health.conditions) == (Status.DEGRADED, {"disk": "3 MiB are free"})
    health.clear("disk")
    health.clear("disk")
    assert (health.status, health.conditions) == (Status.OK, {})
    assert said == ["degraded: disk: 4 MiB are free", "condition over: disk"]


def test_a_process_without_a_descriptor_left_is_said_to_accept_no_connection() -> None:
    said: list[str] = []
    health = Health(said.append)
    health.watch(lambda: judge_descriptors(health))
    assert health.status is Status.OK
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        judge_descriptors(health, may_clear=False)
        assert said == [f"degraded: descriptors: {health.conditions['descriptors']}"]
        assert f"all {free} descriptors are in use" in said[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    judge_descriptors(health, may_clear=False)
    assert len(said) == 1
    assert health.status is Status.OK
    assert said[1:] == ["condition over: descriptors"]


def test_counters_rise() -> None:
    counts = Counts()
    counts.add("events")
    counts.add("events", 4)
    assert counts["events"] == 5
    assert counts.values()["airunner_events"] == {(): 5}
    with pytest.raises(KeyError):
        counts.add("nonsense")


@pytest.mark.parametrize(
    ("subject", "words"),
    [(DISK, "the store's disk has not finished a read or write for 10 s"), (SERVER, "the store is away: its server")],
)
async def test_a_store_that_does_not_answer_is_said_by_the_broker_itself_until_it_does(
    subject: str, words: str
) -> None:
    said: list[str] = []
    health = Health(said.append)
    disk = Disk()
    done: list[object] = []
    disk.hold()
    async with anyio.create_task_group() as group:
        Stalls(disk, health, subject)(lambda: done.append("committed"), done.append)
        group.start_soon(health.run)
        await anyio.sleep(STALLED_S - 0.5)  # virtual
        assert (said, health.is_ready) == ([], True)
        await anyio.sleep(LOOK_S + 1)  # virtual
        assert (len(said), health.is_ready) == (1, False)
        assert said[0].startswith(f"unavailable: stall: {words}")
        disk.let_go()
        await anyio.sleep(LOOK_S)  # virtual
        assert (done, health.is_ready) == (["committed", None], True)
        assert said[1:] == ["condition over: stall"]
        group.cancel_scope.cancel()


async def test_while_the_store_is_away_agents_hear_so_and_no_request_waits_whose_agent_may_be_gone_later() -> None:
    stage = Stage()
    async with stage.running():
        for fails, ready in ((True, False), (False, True)):
            (stage.health.fail if fails else stage.health.degrade)("away", "the store is away")
            stage.router.hear(Ping())
            assert (await stage.reply()).ready is ready
            stage.router.hear(dequeue(), token=b"work")
            if fails:
                assert await stage.code() == "busy"
        assert (await stage.asked()).command.request == dequeue()
        assert stage.nothing_asked()


@pytest.mark.parametrize(
    ("damage", "harm"),
    [((1, 0), "some requests are refused"), ((3, 1), "1 job is out of use"), ((9, 2), "2 jobs are out of use")],
)
def test_damage_is_reported_with_the_jobs_that_it_takes_out_of_use(damage: tuple[int, int], harm: str) -> None:
    health = Health()
    judge_store(damage, health)
    assert health.conditions["store"].startswith(f"the store is damaged: {harm}; stop the broker")


def test_what_may_lose_acknowledged_work_is_a_condition_while_it_is_so() -> None:
    health = Health()
    judge_durability(["fsync is off", "a standby is attached asynchronously"], health)
    assert health.conditions == {"durability": "fsync is off; a standby is attached asynchronously"}
    judge_durability([], health)
    assert health.status is Status.OK
