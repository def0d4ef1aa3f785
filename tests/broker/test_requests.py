"""The table of requests is all that the broker knows of a kind, and what docs/PROTOCOL.md says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker import requests
from airunner.broker.broker import Broker
from airunner.broker.counts import Counts
from airunner.broker.ledger import BATCH_UNITS_MAX
from airunner.broker.lifecycle.commands import Done, TenantRequest
from airunner.broker.lifecycle.world import World
from airunner.broker.requests import KINDS, Kind
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Engine, JobFilter
from airunner.broker.store.quotas import Quotas
from airunner.certs.principal import Role
from airunner.protocol.job import JobState
from airunner.protocol.message import Asking, Message, reply_type
from airunner.protocol.names import JobId, Name
from airunner.protocol.replies import JobCancelled, JobsEnqueued, JobsListed, Refused
from airunner.protocol.requests import Request, StoreRequest
from airunner.transport.memory import MemoryPublisher
from tests.broker.stage import Disk, FakeAuthority, FakeRouter, acting, dequeue, edges, enqueue
from tests.conformance.memory import MemoryEngine
from tests.protocol.test_documented import PAGE, tag_of


def test_every_request_is_in_the_table_and_nothing_else_is() -> None:
    assert set(KINDS) == set(get_args(StoreRequest))


@pytest.mark.parametrize("request_type", KINDS)
def test_the_documents_say_of_a_request_what_the_table_does(request_type: type[Asking[Any]]) -> None:
    name, replies = tag_of(request_type), reply_type(request_type)
    reply = " or ".join(map(tag_of, get_args(replies) or (replies,)))
    roles = " or ".join(f"`{role}`" for role in KINDS[request_type].roles)
    assert f"\n### {name} → {reply} (role {roles})\n" in PAGE


class CountJobs(Asking[JobsListed], frozen=True, kw_only=True):
    """A made-up request."""

    queue: Name


def count_jobs(engine: Engine, command: TenantRequest, request: CountJobs) -> JobsListed:
    """What would stand in `lifecycle/`."""
    wanted = JobFilter(tenant=command.tenant, queue=request.queue)
    return JobsListed(jobs=(), more=False, total=engine.count(wanted, 1_000, 1_000)[0])


COUNTING = Kind[CountJobs](
    role=Role.READ, look_up=count_jobs, price=lambda _: BATCH_UNITS_MAX, queues=lambda request: (request.queue,)
)


class PromoteJob(Asking[JobCancelled], frozen=True, kw_only=True):
    """A made-up request that changes something."""

    job_id: JobId


def promote(world: World, command: TenantRequest, request: PromoteJob) -> JobCancelled:
    job = world.job(command.tenant, request.job_id)
    world.change(job)
    job.priority = 9
    return JobCancelled(state=JobState(job.state))


PROMOTING = Kind[PromoteJob](
    role=Role.SUBMIT, change=promote, load=lambda keys, command, request: keys.add_job(command.tenant, request.job_id)
)


class Reading(Store):
    """Counts the requests of each batch that is read."""

    def __init__(self) -> None:
        super().__init__(MemoryEngine())
        self.sizes: list[int] = []

    def read(self, commands: Sequence[TenantRequest]) -> list[Done]:
        self.sizes.append(len(commands))
        return super().read(commands)


async def test_a_request_that_is_added_to_the_table_is_refused_without_its_role_priced_and_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "request_decoder", requests.request_decoder.__wrapped__)
    monkeypatch.setitem(KINDS, CountJobs, COUNTING)
    monkeypatch.setitem(KINDS, PromoteJob, PROMOTING)
    router, disk, store = FakeRouter(), Disk(), Reading()
    quotas = Quotas(requests_per_s=4)
    broker = Broker(store, router, MemoryPublisher(), FakeAuthority(), edges(), disk, Counts(), quotas=quotas)

    async def reply() -> Message:
        return (await router.said.receive())[2]

    async def ask(request: Request, number: int, role: str) -> Message:
        router.hear(request, number, token=role.encode())
        return await reply()

    async with acting(broker.run):
        refused = await ask(CountJobs(queue="ci"), 1, "work,submit")
        assert (refused.code, "read" in refused.message, store.sizes) == ("forbidden", True, [])
        submitted = await ask(enqueue("a", "b"), 2, "submit@other")
        promotion = PromoteJob(job_id=submitted.job_ids[1])
        assert isinstance(await ask(promotion, 3, "read@other"), Refused)
        assert await ask(promotion, 4, "submit@other") == JobCancelled(state=JobState.SCHEDULED)
        leased = await ask(dequeue(), 5, "work@other")
        assert [lease.job_id for lease in leased.leases] == [promotion.job_id]
        disk.hold()
        router.hear(enqueue("a", "b"), 6, token=b"submit")
        await disk.committing.wait()
        for number in (7, 8, 9):
            router.hear(CountJobs(queue="default"), number, token=b"read")
        await wait_all_tasks_blocked()
        disk.let_go()
        assert isinstance(await reply(), JobsEnqueued)
        assert [await reply() for _ in range(3)] == [JobsListed(jobs=(), more=False, total=2)] * 3
        assert store.sizes == [1, 1, 1], "each is as dear as a whole batch"
        for number in range(10, 16):
            router.hear(CountJobs(queue="default"), number, token=b"read")
        refusals = [said for _ in range(6) if isinstance(said := await reply(), Refused)]
        assert refusals[-1].code == "quota", "what they cost was charged"
    router.close()
