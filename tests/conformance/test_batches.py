"""A batch does what its commands do one by one: each sees what those before it have changed."""

from __future__ import annotations

from contextlib import closing
from random import Random

import pytest

from airunner.broker.lifecycle.commands import Command, Done, Expire, Retain, TenantRequest
from airunner.broker.store.batch import Store
from airunner.broker.store.quotas import Quotas
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Result
from airunner.protocol.jobretry import RetryPolicy
from airunner.protocol.replies import JobsLeased, LeaseRef, QueueMode
from airunner.protocol.requests import (
    CancelJob,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    EventBatch,
    PublishJobEvents,
    ReleaseJob,
    RemoveSecret,
    RetryJob,
    SetSecret,
    StoreRequest,
    UpdateJob,
    UpdateQueue,
)
from tests.conformance.driving import VISIBILITY_MS, Driver, Outcome, batch, completion, outcome_of, release
from tests.conformance.memory import MemoryEngine

QUEUES = ("a", "b")
QUOTAS = (Quotas(), Quotas(waiting_max=9), Quotas(bytes_max=6_000))


class Chooser:
    """Draws commands that are likely to meet each other, from what was granted before."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.driver = Driver(Store(MemoryEngine()))
        self.granted: list[JobsLeased] = []
        self.job_ids = ["absent"]
        self.asked: list[TenantRequest] = []
        self.commands: list[list[Command]] = []
        self.done: list[list[Done]] = []

    def batch(self, size: int) -> None:
        """Commands that are applied one by one, each drawn when the one before is done."""
        self.driver.now_ms += self.random.choice((0, 1, 500, VISIBILITY_MS))
        commands: list[Command] = []
        done: list[Done] = []
        for place in range(size):
            retains = place == size // 2 and self.random.random() < 0.5  # the broker asks for one step at a time
            commands.append(Retain(finished_before_ms=self.driver.now_ms - 1) if retains else self.command())
            (outcome,) = self.driver.store.apply(commands[-1:], self.driver.now_ms).done
            if isinstance(outcome.reply, JobsLeased) and outcome.reply.leases:
                self.granted.append(outcome.reply)
            done.append(outcome)
        self.commands.append(commands)
        self.done.append(done)

    def command(self) -> Command:
        pick = self.random.random()
        if pick < 0.02:
            return Expire()
        if pick < 0.1 and self.asked:
            return self.random.choice(self.asked)
        self.driver.quotas = self.random.choice(QUOTAS)
        request = self.request()
        if isinstance(request, UpdateQueue):
            self.driver.quotas = Quotas()  # whether the queue is new in the batch is of no matter then
        command = self.driver.ask(request, tenant=self.random.choice(("home", "home", "other")))
        self.job_ids += [minted.job_id for minted in command.minted]
        self.asked.append(command)
        return command

    def request(self) -> StoreRequest:
        draw = self.random.choice
        lease = draw(draw(self.granted).leases) if self.granted else None
        choices: list[StoreRequest] = [
            EnqueueJob(jobs=tuple(self.spec() for _ in range(self.random.randint(1, 3)))),
            DequeueJob(
                agent="agent",
                queues=draw((("a",), ("a", "b"), ("b", "a"))),
                slots=self.random.randint(1, 4),
                visibility_ms=draw((1_000, VISIBILITY_MS)),
                token_seed=self.driver.draw(32),
                tags=draw(({}, {"os": "linux"}, {"os": "linux", "arch": "arm"})),
            ),
            CancelJob(job_id=draw(self.job_ids[-12:])),
            draw((RetryJob(job_id=draw(self.job_ids)), UpdateQueue(queue=draw(QUEUES), mode=draw(tuple(QueueMode))))),
            draw((SetSecret(queue="a", name="S", box=bytes(9)), RemoveSecret(queue="a", name="S"))),
        ]
        if lease is None:
            return draw(choices)
        first = self.random.randint(0, 2)
        sent: tuple[EventBatch, ...] = (batch(lease, first, "x", "y"), batch(lease, first + 2, "z"))
        ends: CompleteJob = completion(lease, first + 3, result=Result(exit_code=draw((0, 1))))
        choices += [
            PublishJobEvents(batches=sent[: self.random.randint(1, 2)]),
            PublishJobEvents(batches=sent, completions=(ends,)),
            completion(lease, draw((0, 2, 3)), exit_code=draw((0, 1))),
            draw((release(lease), ReleaseJob(lease=lease.ref, lost=True))),
            UpdateJob(leases=tuple(other.ref for other in draw(self.granted).leases) * 2, visibility_ms=VISIBILITY_MS),
            UpdateJob(leases=(LeaseRef(job_id="absent", attempt=1, task_token=bytes(32)),), visibility_ms=1_000),
        ]
        return draw(choices)

    def spec(self) -> JobSpec:
        draw = self.random.choice
        return JobSpec(
            command="c",
            queue=draw(QUEUES),
            priority=draw((0, 0, 1)),
            not_before_ms=draw((None, None, self.driver.now_ms + 500)),
            max_attempts=draw((1, 3)),
            retry=draw((None, RetryPolicy(limit=1, backoff_ms=0), RetryPolicy(limit=2, backoff_ms=400))),
            require=draw(({}, {}, {"os": "linux"}, {"os": "linux", "arch": "arm"})),
            secrets=draw(((), ("S",))),
            metadata=draw(({}, {"k": "v"})),
        )


def comparable(command: Command, done: Done) -> Outcome:
    """Without its cost; and leases that are due at once end in any order."""
    outcome = outcome_of(done)._replace(cost=0)
    if not isinstance(command, Expire):
        return outcome
    return outcome._replace(appended=tuple(sorted(outcome.appended, key=lambda appended: appended.watch_key)))


def both(seed: int, together: Store) -> Chooser:
    """Apply the same commands one by one to dicts, and together; what comes of each is the same."""
    one_by_one = Chooser(seed)
    for _ in range(12):
        one_by_one.batch(one_by_one.random.randint(1, 24))
        applied = together.apply(one_by_one.commands[-1], one_by_one.driver.now_ms)
        for command, alone, among in zip(one_by_one.commands[-1], one_by_one.done[-1], applied.done, strict=True):
            assert comparable(command, among) == comparable(command, alone), command
    return one_by_one


@pytest.mark.parametrize("seed", range(40))
def test_a_batch_does_what_its_commands_do_one_by_one(seed: int):
    engine = MemoryEngine()
    other = both(seed, Store(engine)).driver.store.engine
    assert isinstance(other, MemoryEngine)
    for name, table in vars(engine._saved).items():
        assert table == vars(other._saved)[name], name


@pytest.mark.parametrize("seed", range(40, 80))
def test_a_batch_does_the_same_in_sqlite(seed: int):
    with closing(Store(open_sqlite(None))) as store:
        both(seed, store)
