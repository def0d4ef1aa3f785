"""A broker on AWS under faults of every kind, drawn from a seed: messages lost, doubled, late and early; a bus that
refuses; a broker that is killed. Each instant is submitted once, no delay ends early, and no event is missing.

`AWS_SEEDS=1000 pytest tests/broker/aws/test_faults.py` draws more.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from random import Random
from typing import Final

import anyio
import pytest
from anyio.abc import TaskGroup

from airunner.broker import janitor
from airunner.broker.aws.outbox import INVALID
from airunner.broker.aws.ports import AwsFault, Entry, Message, Verdict
from airunner.client.client import Client
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from tests.broker.aws.queues import MemoryQueue
from tests.broker.aws.stage import Agent, AwsStage

pytestmark = pytest.mark.unmeasured

SEEDS: Final = int(os.environ.get("AWS_SEEDS", "8"))
ROUNDS: Final = 4  # in each of which a broker runs, and is killed
ROUND_S: Final = 1_200.0
INSTANTS: Final = 5
AWAY: Final = AwsFault("ServiceUnavailable: drawn from the seed")
WALL_MS: Final = 1_700_000_000_000  # of `wire.edges`, at the start
REFUSALS: Final = ("InternalFailure", "ThrottlingException", "AccessDeniedException")


class World:
    """A stage, and what breaks on it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.stage = AwsStage()
        self.delays_ms: dict[str, int] = {}
        for queue in (self.stage.bells, self.stage.submissions):
            self._break(queue)
        self.refused = self.random.choice([0.0, 0.2, 0.6])
        self.stage.bus.judge = self._judge

    def _break(self, queue: MemoryQueue) -> None:
        rate = self.random.choice([0.0, 0.1, 0.5])
        queue.lose = lambda _message: self.random.random() < rate
        queue.copies = self.random.choice([1, 1, 2, 3])
        queue.late_s = self.random.choice([0.0, 0.0, 30.0, 700.0, -300.0])

    def _judge(self, _entry: Entry) -> Verdict:
        return Verdict(self.random.choice(REFUSALS)) if self.random.random() < self.refused else Verdict()

    async def run(self) -> None:
        """Run and kill brokers; then heal all, and let it drain."""
        for _ in range(ROUNDS):
            with anyio.move_on_after(self.random.uniform(0.1, 1.0) * ROUND_S):
                async with self.stage.opened() as client, anyio.create_task_group() as group:
                    group.start_soon(Agent(client).run)
                    await self._act(client, group)
        self._heal()

    async def _act(self, client: Client, group: TaskGroup) -> None:
        """Submit, send submissions, and break what is around, until cancelled."""
        group.start_soon(self._weather)
        while True:
            await anyio.sleep(self.random.expovariate(1 / 60))  # virtual
            if self.random.random() < 0.5:
                self._send_instant()
            else:
                delay_ms = int(self.random.choice([0, 5, 90, 1_000]) * 1_000)
                due_ms = WALL_MS + int(anyio.current_time() * 1_000) + delay_ms
                job = await client.submit(JobSpec(command="own", not_before_ms=due_ms))
                self.delays_ms[job.id] = due_ms
                if self.random.random() < 0.2:
                    await client.cancel(job)

    def _send_instant(self) -> None:
        name = f"s{self.random.randrange(INSTANTS)}"
        body = {"schedule": name, "instant": "2026-03-22T18:59:43Z", "jobs": [{"command": name}]}
        for _ in range(self.random.choice([1, 1, 2, 3])):
            self.stage.submissions.put(json.dumps(body), self.random.choice([0.0, 1.0, 400.0]))

    async def _weather(self) -> None:
        places = (self.stage.bells, self.stage.submissions, self.stage.bus)
        while True:
            await anyio.sleep(self.random.expovariate(1 / 100))  # virtual
            place = self.random.choice(places)
            place.fault = AWAY if place.fault is None else None

    def _heal(self) -> None:
        self.refused = 0.0
        self.stage.bells.lose = self.stage.submissions.lose = _keep
        for place in (self.stage.bells, self.stage.submissions, self.stage.bus):
            place.fault = None
        for name in range(INSTANTS):  # at least once, as Scheduler sends it
            body = {"schedule": f"s{name}", "instant": "2026-03-22T18:59:43Z", "jobs": [{"command": f"s{name}"}]}
            self.stage.submissions.put(json.dumps(body))


def _keep(_message: Message) -> bool:
    return False


@pytest.fixture(autouse=True)
def _hours_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention is a transaction each minute, and not what this is about."""
    monkeypatch.setattr(janitor, "REST_S", 86_400.0)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_nothing_is_lost_doubled_or_early(seed: int) -> None:
    world = World(seed)
    await world.run()
    stage = world.stage
    async with stage.opened() as client:
        with anyio.move_on_after(2_500):
            await Agent(client).run()
        jobs = [job async for job in client.list()]
        logs = {job.id: [event async for event in client.replay(job.id)] for job in jobs}
    commands = Counter(job.command for job in jobs)
    assert {name: number for name, number in commands.items() if name != "own"} == {
        f"s{at}": 1 for at in range(INSTANTS)
    }
    assert {job.state for job in jobs} <= {JobState.COMPLETED, JobState.CANCELLED}
    for job_id, due_ms in world.delays_ms.items():
        leased = [event.timestamp_ms for event in logs[job_id] if event.kind == "JOB_LEASED"]
        assert all(leased_ms >= due_ms for leased_ms in leased)
        assert len(leased) <= 1 + sum(event.kind == "JOB_EXPIRED" for event in logs[job_id])
    stored = {(job_id, event.sequence, event.kind) for job_id, log in logs.items() for event in log}
    details = [json.loads(entry.detail) for entry in stage.bus.accepted]
    published = {(detail["job_id"], detail["sequence"], detail["kind"]) for detail in details}
    assert published == stored, "each lifecycle event at least once, and no other"
    assert not INVALID.intersection(REFUSALS)
    assert not stage.submissions.stored
    assert not stage.submissions.dead
