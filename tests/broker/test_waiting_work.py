"""No job waits beside an agent that may run it: random requests to a Ledger with a real store, judged when at rest."""

from __future__ import annotations

from itertools import chain
from random import Random
from typing import TypeVar

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from airunner.broker.inbox import Pending, Response
from airunner.broker.lifecycle.commands import Expire
from airunner.broker.requests import kind_of
from airunner.broker.store.needs import facts_of, meets
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.protocol.expiry import Expiry
from airunner.protocol.fields import JobSpec
from airunner.protocol.names import JobId, RequestId
from airunner.protocol.replies import JobLease, JobsEnqueued, JobsLeased, QueueMode
from airunner.protocol.requests import CancelJob, DequeueJob, EnqueueJob, RetryJob, StoreRequest, UpdateQueue
from tests.broker.ledgering import Stage
from tests.broker.stage import WALL_MS, dequeue, enqueue
from tests.conformance.counters import require_right
from tests.conformance.driving import Driver, completion, release

pytestmark = pytest.mark.unmeasured

T = TypeVar("T")
QUEUES = ("a", "b", "c")
TAGS: tuple[dict[str, str], ...] = ({}, {"os": "linux"}, {"gpu": "1"}, {"os": "linux", "gpu": "1"})
STEPS = 100
LEASABLE = """SELECT job_id, queue, needs FROM job WHERE state = 'SCHEDULED' AND gate = 0
    AND queue NOT IN (SELECT name FROM queue WHERE mode = 'paused')"""
OVERDUE = "SELECT job_id FROM job WHERE state = 'SCHEDULED' AND due_ms <= ?"


class Traffic:
    """Random requests of users and agents, and what was answered to them."""

    def __init__(self, seed: int, driver: Driver, stage: Stage) -> None:
        self.random, self.driver, self.stage = Random(seed), driver, stage
        self.began_s = anyio.current_time()
        self.alarm_ms: int | None = None
        self.jobs: list[JobId] = []
        self.leases: list[JobLease] = []
        self.agents: dict[RequestId, DequeueJob] = {}  # those that have no answer

    def now_ms(self) -> int:
        return WALL_MS + int((anyio.current_time() - self.began_s) * 1_000)

    def send(self, *requests: StoreRequest) -> None:
        for request in requests:
            command = self.driver.ask(request)
            if isinstance(request, DequeueJob):
                self.agents[command.request_id] = request
            self.stage.asks.send_nowait(Pending(b"peer", command, price=kind_of(request).price(request)))

    def send_any(self) -> None:
        chance, choice = self.random.random(), self.random.choice
        if chance < 0.25:
            self.send(EnqueueJob(jobs=tuple(self.job() for _ in range(choice((1, 1, 2, 6))))))
        elif chance < 0.65:
            queues, wait_ms = self.random.sample(QUEUES, choice((1, 2, 3))), choice((0, 15_000, 25_000))
            self.send(dequeue(*queues, wait_ms=wait_ms, slots=choice((1, 1, 1, 2, 4)), tags=choice(TAGS)))
        elif chance < 0.8 and self.leases:
            lease = self.leases.pop(self.random.randrange(len(self.leases)))
            self.send(choice((completion(lease), completion(lease, exit_code=1), release(lease))))
        elif chance < 0.93 and self.jobs:
            self.send(choice((CancelJob, RetryJob))(job_id=choice(self.jobs[-30:])))
        elif chance < 0.98:
            self.send(UpdateQueue(queue=choice(QUEUES), mode=choice((*QueueMode, QueueMode.OPEN))))
        else:  # more jobs and agents than one batch brings together
            queue, many = choice(QUEUES), (9, 17, 30)
            self.send(UpdateQueue(queue=queue, mode=QueueMode.PAUSED), enqueue(*["true"] * choice(many), queue=queue))
            self.send(*[dequeue(queue, wait_ms=15_000)] * choice(many))
            self.send(UpdateQueue(queue=queue, mode=QueueMode.OPEN))

    def job(self) -> JobSpec:
        choice, soon_ms = self.random.choice, self.now_ms() + self.random.randrange(1, 800)
        job = JobSpec(command="true", queue=choice(QUEUES), require=choice(TAGS), priority=choice((0, 0, 5)))
        late = replace(job, not_before_ms=soon_ms), replace(job, expires=Expiry(at_ms=soon_ms))
        return choice((job, job, job, *late))

    async def hear(self) -> None:
        """Have what was sent gathered, and note what was answered."""
        self.stage.asks.wake()
        await wait_all_tasks_blocked()
        all_of(self.stage.announced)
        for alarm in all_of(self.stage.alarms):
            self.alarm_ms = alarm.due_ms
        for answer in chain.from_iterable(all_of(self.stage.answers)):
            match answer:
                case Response(command=command, reply=JobsLeased(leases=leases)):
                    del self.agents[command.request_id]
                    self.leases += leases
                case Response(reply=JobsEnqueued(job_ids=job_ids)):
                    self.jobs += job_ids

    async def rest(self, engine: SqliteEngine) -> None:
        """Commit all; then no agent without an answer may run a job that waits, and no job's delay is over."""
        self.stage.disk.let_go()
        await self.hear()
        while self.alarm_ms is not None and self.alarm_ms <= self.now_ms():
            self.alarm_ms = None
            self.stage.asks.send_nowait(Expire())
            await self.hear()
        leasable = list(engine._db.execute(LEASABLE))
        for agent in self.agents.values():
            facts = facts_of(agent)
            assert [job for job, queue, needs in leasable if queue in agent.queues and meets(facts, needs)] == []
        assert list(engine._db.execute(OVERDUE, (self.now_ms(),))) == []


def all_of(inbox: MemoryObjectReceiveStream[T]) -> list[T]:
    return [inbox.receive_nowait() for _ in range(inbox.statistics().current_buffer_used)]


@pytest.mark.parametrize("seed", range(20))
async def test_at_rest_no_job_waits_for_an_agent_that_waits_for_it(
    seed: int, engine: SqliteEngine, driver: Driver
) -> None:
    stage = Stage()
    stage.store = driver.store
    async with stage.running():
        traffic = Traffic(seed, driver, stage)
        random = traffic.random
        for _ in range(STEPS):
            if random.random() < 0.3:
                stage.disk.hold()
            for _ in range(random.choice((1, 1, 2, 5, 15))):
                traffic.send_any()
            await traffic.hear()
            await anyio.sleep(random.random() * random.choice((0, 0, 0, 0.1, 1, 5)))  # virtual
            if random.random() < 0.5:
                await traffic.rest(engine)
    require_right(engine)
    assert traffic.leases
