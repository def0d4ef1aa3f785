"""A batch does what its commands do one by one: each sees what those before it have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from random import Random
from typing import Final

import pytest
from msgspec.structs import replace

from airunner.broker.lifecycle.commands import Applied, Command, Done, Expire, RenewAll, Retain, TenantRequest
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Engine
from airunner.broker.store.needs import facts_of, meets
from airunner.broker.store.quotas import Quotas
from airunner.broker.store.rows import JobRow, QueueKey
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.protocol.names import RequestId
from airunner.protocol.requests import DequeueJob, RemoveSecret, SetSecret, UpdateQueue
from tests.conformance.machine import StoreAndModel
from tests.conformance.memory import MemoryEngine

pytestmark = pytest.mark.unmeasured

STEPS: Final = 200
QUOTAS: Final = (Quotas(), Quotas(waiting_max=9), Quotas(bytes_max=6_000))
SECRETS: Final = (SetSecret(queue="a", name="S", box=bytes(9)), RemoveSecret(queue="a", name="S"))


class Noted(Store):
    """A store that notes what it is asked to change, and when."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.noted: list[tuple[int, Command]] = []

    def apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        self.noted += [(now_ms, command) for command in commands]
        return super().apply(commands, now_ms)


def batches(seed: int) -> Iterator[tuple[int, list[Command]]]:
    """What the model is compared with, all of one instant at once; here with quotas and secrets."""
    random, store = Random(seed), Noted(MemoryEngine())
    machine = StoreAndModel(store, seed)
    machine.begin()
    for _ in range(STEPS):
        machine.act()
    at_ms, commands = 0, list[Command]()
    for now_ms, command in store.noted:
        kinds = {*map(type, commands)}
        # A start comes alone, and the broker asks for one step of retention at a time.
        if now_ms != at_ms or RenewAll in {type(command), *kinds} or (isinstance(command, Retain) and Retain in kinds):
            yield at_ms, commands
            at_ms, commands = now_ms, []
        commands.append(bounded(random, command))
        if random.random() < 0.1 and not isinstance(command, RenewAll):
            request_id = RequestId(random.randbytes(16))
            commands.append(TenantRequest(tenant="home", request_id=request_id, request=random.choice(SECRETS)))
    yield at_ms, commands


def bounded(random: Random, command: Command) -> Command:
    """A command as it may be asked by a tenant that has much already."""
    if not isinstance(command, TenantRequest) or isinstance(command.request, UpdateQueue):
        return command  # whether a queue is new in the batch is of no matter where there are no quotas
    return replace(command, quotas=random.choice(QUOTAS))


def comparable(command: Command, done: Done) -> Done:
    """Without its cost, and the size of a step; and leases that are due at once end in any order.

    Of a queue with other requests of the batch, more may be known to be exhausted.
    """
    news = replace(done.news, exhausted=set())
    if isinstance(command, Retain):
        news = replace(news, more=False)
    if isinstance(command, Expire):
        news = replace(news, appended=sorted(news.appended, key=lambda appended: appended.watch_key))
    return replace(done, news=news, cost=0)


def compare(seed: int, engine: Engine, other: Callable[[], MemoryEngine] = MemoryEngine) -> MemoryEngine:
    """Apply the same commands one by one to dicts, and together; what comes of each is the same."""
    together, alone = Store(engine), other()
    one_by_one = Store(alone)
    for now_ms, commands in batches(seed):
        applied = together.apply(commands, now_ms)
        for command, among in zip(commands, applied.done, strict=True):
            (done,) = one_by_one.apply([command], now_ms).done
            assert comparable(command, among) == comparable(command, done), command
            assert done.news.exhausted <= among.news.exhausted
            assert not left(alone, command, among.news.exhausted - done.news.exhausted)
    return alone


def left(engine: MemoryEngine, command: Command, queues: set[QueueKey]) -> list[JobRow]:
    """The jobs of these queues that the agent who asks may run."""
    if not queues:
        return []
    assert isinstance(command, TenantRequest)
    assert isinstance(command.request, DequeueJob)
    facts = facts_of(command.request)
    waiting = [job for job in engine._saved.jobs.values() if not job.gate and meets(facts, job.needs)]
    return [job for job in waiting if QueueKey(job.tenant, job.queue) in queues]


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_does_what_its_commands_do_one_by_one(seed: int):
    engine = MemoryEngine()
    other = compare(seed, engine)
    for name, table in vars(engine._saved).items():
        assert table == vars(other._saved)[name], name


@pytest.mark.parametrize("seed", range(20, 40))
def test_a_batch_does_the_same_in_sqlite(seed: int):
    with closing(open_sqlite(None)) as engine:
        compare(seed, engine)
