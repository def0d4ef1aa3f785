"""Taking a hand in what runs, from Python: cancel, retry, queues, agents."""

from __future__ import annotations

import anyio
import pytest

from airunner.broker.lifecycle import reading
from airunner.client.cli.columns import aligned
from airunner.client.cli.listing import (
    AGENT_HEADINGS,
    BROKER_HEADINGS,
    QUEUE_HEADINGS,
    agent_row,
    broker_row,
    job_lines,
    queue_row,
)
from airunner.client.client import Client
from airunner.protocol.errors import BadRequest, Conflict, Draining, NotFinished, NotFound
from airunner.protocol.events import JobScheduled
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, JobSummary
from airunner.protocol.names import JobId, RequestId
from airunner.protocol.replies import AgentSummary, BrokerSummary, JobsListed, QueueMode, QueueSummary
from airunner.protocol.requests import PAGE_SIZE_MAX
from tests.client.wire import brokered
from tests.client.working import Worker


async def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_is_its_agents_to_end() -> None:
    async with brokered() as (_, client):
        job = await client.submit(command="true")
        assert await client.cancel(job.id) is JobState.CANCELLED
        assert await client.cancel(job.id) is JobState.CANCELLED
        assert (await client.get(job.id)).state is JobState.CANCELLED
        for ask in (client.cancel, client.get, lambda unknown: anext(client.follow(unknown))):
            with pytest.raises(NotFound):
                await ask("nothing")
        running = await client.submit(command="true")
        assert [agent async for agent in client.agents()] == []
        await Worker.lease(client)
        assert await client.cancel(running.id) is JobState.RUNNING
        assert (await client.get(running.id)).cancel_requested_ms is not None
        (agent,) = [agent async for agent in client.agents()]
        assert (agent.name, agent.leases) == ("worker", 1)


async def test_only_what_has_ended_is_run_again_and_as_a_job_of_its_own() -> None:
    async with brokered() as (_, client):
        job = await client.submit(command="true", metadata={"build": "42"})
        with pytest.raises(NotFinished):
            await client.retry(job.id)
        await client.cancel(job.id)
        again = await client.retry(job.id, request_id="again")
        assert again.id != job.id
        assert (await client.retry(job.id, request_id="again")).id == again.id
        found = await client.get(again.id)
        assert (found.origin, found.spec.metadata) == (job.id, {"build": "42"})
        assert f"retry of:     {job.id}" in list(job_lines(found))
        first = await anext(client.follow(again.id))
        assert isinstance(first.body, JobScheduled)
        assert first.body.origin == job.id
        listed = (await client.list_page(metadata={"build": "42"})).jobs
        assert [one.id for one in listed] == [again.id, job.id]
        assert (await client.list_page(metadata={"build": "42"}, owner="ada")).jobs == ()


async def test_a_queue_is_paused_drained_and_opened() -> None:
    async with brokered() as (_, client):
        await client.update_queue("default", QueueMode.PAUSED)
        await client.submit(command="true")
        (queue,) = [queue async for queue in client.queues()]
        assert (queue.mode, queue.waiting, queue.running) == (QueueMode.PAUSED, 1, 0)
        await client.update_queue("default", QueueMode.DRAINING)
        with pytest.raises(Draining, match="queue default is being drained"):
            await client.submit(command="true")
        await client.update_queue("default", QueueMode.OPEN)
        await client.submit(command="true")


async def test_every_queue_is_listed_page_by_page() -> None:
    async with brokered() as (_, client):
        names = [f"q{number:03}" for number in range(PAGE_SIZE_MAX + 5)]
        for at in range(0, len(names), 50):
            await client.submit_many([JobSpec(command="true", queue=name) for name in names[at : at + 50]])
        assert [queue.queue async for queue in client.queues()] == names


async def test_a_list_that_the_broker_gives_in_pieces_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LOOKED_MAX", 3)
    async with brokered() as (_, client):
        specs = [JobSpec(command="true", queue="ab"[number % 4 > 0], owner="o") for number in range(16)]
        submitted = await client.submit_many(specs)
        newest = [job.id for job in reversed(submitted[::4])]

        async def page(number: int, page_size: int) -> list[str]:
            listed = await client.list_page(owner="o", queue="a", page=number, page_size=page_size)
            return [job.id for job in listed.jobs]

        assert await page(1, 20) == newest
        assert (await client.list_page(owner="o", queue="a", before=newest[0], page_size=1)).jobs[0].id == newest[1]
        assert [await page(number, 3) for number in (1, 2, 3)] == [newest[:3], newest[3:], []]
        assert [job.id for job in (await client.list_page(page=5, page_size=3)).jobs] == [
            job.id for job in reversed(submitted[1:4])
        ]


async def test_all_jobs_are_listed_once_while_others_come_and_go() -> None:
    async with brokered() as (_, client):
        submitted = [job.id for job in await client.submit_many([JobSpec(command="true", owner="o")] * 8)]
        listed: list[str] = []
        async for job in client.list(owner="o", before=submitted[-1], page_size=3):
            listed.append(job.id)
            await client.submit(command="true", owner="o")
        assert listed == submitted[-2::-1]
        with pytest.raises(NotFound):
            [job async for job in client.list(before="no-such-job")]


async def test_a_job_that_was_removed_between_two_pages_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, gone = [f"{number}" for number in range(9, 0, -1)], {"7"}

    async def list_page(*, before: str | None, **_: object) -> JobsListed:
        if before in gone:
            raise NotFound
        rest = [job_id for job_id in ids if before is None or (job_id < before and job_id not in gone)][:3]
        jobs = tuple(
            JobSummary(id=JobId(j), state=JobState.RUNNING, submitted_ms=0, queue="q", command="c") for j in rest
        )
        return JobsListed(jobs=jobs, more=rest[-1] != ids[-1])

    client = Client()
    monkeypatch.setattr(client, "list_page", list_page)
    assert [job.id async for job in client.list()] == ids
    gone.update("89")
    with pytest.raises(NotFound):
        [job async for job in client.list()]


async def test_two_who_submit_under_one_request_id_submit_one_job() -> None:
    ids: list[str] = []
    async with brokered() as (_, client):

        async def submit() -> None:
            ids.append((await client.submit(command="true", request_id="same")).id)

        async with anyio.create_task_group() as group:
            group.start_soon(submit)
            group.start_soon(submit)
        assert len(ids) == 2
        assert len(set(ids)) == 1
        with pytest.raises(Conflict):
            await client.submit(command="false", request_id="same")
        with pytest.raises(BadRequest, match="zeros"):
            await client.submit(command="true", request_id=RequestId(bytes(16)))


def test_queues_brokers_and_agents_are_shown_in_columns() -> None:
    queue = QueueSummary(queue="default", mode=QueueMode.OPEN, waiting=3, running=1, oldest_ms=1_000)
    assert list(aligned([QUEUE_HEADINGS, queue_row(queue, 62_000)])) == [
        "QUEUE    MODE  WAITING  DELAYED  RUNNING  OLDEST",
        "default  open  3        0        1        1 min 01 s",
    ]
    tags = {"os": "linux", "arch": "arm"}
    known = AgentSummary(
        name="a", slots=2, leases=1, seen_ms=9_000, silent_ms=350, version="1.0", tags=tags, queues=("gpu", "x")
    )
    broker = BrokerSummary(id="0f3a5c7e9b1d", endpoint="tcp://b1:7070", leases=3, asked=True, still_ms=420, missed=0)
    dead = BrokerSummary(id="a1b2c3d4e5f6", endpoint="tcp://b2:7070", leases=0, version="1.0", dead=True, missed=4)
    assert list(aligned([BROKER_HEADINGS, broker_row(broker), broker_row(dead)])) == [
        "BROKER          ENDPOINT       BEAT        LEASES  LAG  VERSION",
        "0f3a5c7e9b1d *  tcp://b1:7070  420 ms ago  3       0    -",
        "a1b2c3d4e5f6    tcp://b2:7070  dead        0       -    1.0",
    ]
    unheard = AgentSummary(name="b", slots=0, leases=1, seen_ms=0, trouble="out of disk")
    assert list(aligned([AGENT_HEADINGS, agent_row(known, 1_350), agent_row(unheard, 1_350)])) == [
        "AGENT  SLOTS  LEASES  SEEN        VERSION  QUEUES  TAGS               TROUBLE",
        "a      2      1       350 ms ago  1.0      gpu x   os=linux arch=arm",
        "b      -      1       -           -        -                          out of disk",
    ]
