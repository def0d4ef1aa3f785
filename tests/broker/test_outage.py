"""A store that goes away at each point: its batch is kept and stored once, and what waits is answered in time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker.health import Health, Status
from airunner.broker.inbox import Pending, Response
from airunner.broker.ledger import LOCKED_MS, READY_JOBS_GUESS
from airunner.broker.lifecycle.commands import Adopt, Expire
from airunner.broker.outage import CONDITION, PAUSE_LAST_MS
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Fenced
from airunner.broker.store.rows import BrokerSeen, QueueKey
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import JobFound, JobsEnqueued, JobsLeased, JobsListed, QueueMode
from airunner.protocol.requests import EnqueueJob, GetJob, ListJobs, StoreRequest, UpdateQueue
from tests.broker.ledgering import Stage
from tests.broker.stage import dequeue
from tests.conformance.driving import Driver
from tests.conformance.remote import Cut, RemoteEngine

BEFORE = (Cut.LOADING, Cut.SAVING)
AT_COMMIT = (Cut.COMMITTING, Cut.COMMITTED)


class Line:
    """A Ledger, and the line to its store."""

    def __init__(self, engine: RemoteEngine | None = None) -> None:
        self.engine = engine or RemoteEngine()
        self.driver = Driver(Store(self.engine))
        self.stage = Stage()
        self.stage.store = self.driver.store
        self.replays = 0
        self.stage.bus.replay_all = self._replay  # type: ignore[method-assign] # a fleet's bus does something

    def _replay(self) -> None:
        self.replays += 1

    def pending(self, request: StoreRequest) -> Pending:
        return Pending(b"peer", self.driver.ask(request, tenant="default"))

    def send(self, *requests: StoreRequest) -> None:
        self.stage.ask(*map(self.pending, requests))

    def jobs(self) -> int:
        return len(self.engine._saved.jobs)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    line = Line()
    async with line.stage.running():
        line.engine.steps.clear()
        yield line


def enqueue() -> EnqueueJob:
    return EnqueueJob(jobs=(JobSpec(command="true"),))


@pytest.mark.parametrize("fails", [0, 1, 5])
@pytest.mark.parametrize("cut", [*BEFORE, *AT_COMMIT])
async def test_a_batch_is_kept_through_an_outage_and_stored_once_behind_the_renewal_of_leases(
    line: Line, cut: Cut, fails: int
) -> None:
    line.engine.cuts, line.engine.reconnects_failing = [cut], fails
    line.send(enqueue())
    assert line.stage.silent()
    (answer,) = await line.stage.answers.receive()
    assert isinstance(answer, Response)
    assert isinstance(answer.reply, JobsEnqueued)
    assert line.jobs() == 1
    steps = line.engine.steps[line.engine.steps.index("reconnect") :]
    assert steps == ["reconnect"] * (fails + 1) + ["renew", "commit", "commit"]
    assert line.replays == (cut in AT_COMMIT)
    assert len(await line.stage.announced.receive()) == 1 if cut is not Cut.COMMITTED else line.replays


@pytest.mark.parametrize("cut", AT_COMMIT)
async def test_a_batch_that_is_cut_off_again_and_again_is_stored_once(line: Line, cut: Cut) -> None:
    """Also if the renewal of the leases is, in between."""
    line.engine.cuts = [cut, Cut.LOADING, Cut.COMMITTED, Cut.SAVING, cut]
    line.send(enqueue())
    assert isinstance((await line.stage.reply()).reply, JobsEnqueued)
    assert (line.jobs(), line.engine.cuts, line.replays) == (1, [], 1)


@pytest.mark.parametrize("cut", [*BEFORE, *AT_COMMIT])
async def test_who_waits_gets_the_job_of_a_batch_that_was_cut_off(line: Line, cut: Cut) -> None:
    line.send(dequeue(wait_ms=30_000))
    await wait_all_tasks_blocked()
    line.engine.cuts = [cut]
    line.send(enqueue())
    answers: list[object] = []
    while len(answers) < 2:
        answers += [answer.reply for answer in await line.stage.news()]
    leased = [reply for reply in answers if isinstance(reply, JobsLeased)]
    assert [len(reply.leases) for reply in leased] == [1]


@pytest.mark.parametrize("cut", BEFORE)
async def test_who_waits_is_answered_in_time_however_long_the_outage(line: Line, cut: Cut) -> None:
    """Also who was to be tried in the batch that met the outage."""
    line.send(dequeue(wait_ms=20_000), dequeue(wait_ms=10_000))
    await wait_all_tasks_blocked()
    began_s = anyio.current_time()
    line.engine.cuts, line.engine.reconnects_failing = [cut], float("inf")
    line.send(enqueue())
    for wait_s in (10, 20):
        assert (await line.stage.reply()).reply == JobsLeased()
        assert anyio.current_time() - began_s == pytest.approx(wait_s, abs=0.01)
    assert line.stage.silent()
    line.engine.reconnects_failing = 0
    assert isinstance((await line.stage.reply()).reply, JobsEnqueued)


async def test_who_waits_is_answered_in_time_while_a_batch_hangs_on_the_way(line: Line) -> None:
    line.send(dequeue("other", wait_ms=10_000))
    await wait_all_tasks_blocked()
    began_s = anyio.current_time()
    await line.stage.hold(line.pending(enqueue()))
    assert (await line.stage.reply()).reply == JobsLeased()
    assert anyio.current_time() - began_s == pytest.approx(10, abs=0.01)
    line.stage.disk.let_go()
    assert isinstance((await line.stage.reply()).reply, JobsEnqueued)


async def test_after_an_outage_jobs_are_found_whose_hints_were_lost_in_it(line: Line) -> None:
    line.send(dequeue(wait_ms=30_000))
    await wait_all_tasks_blocked()
    line.driver.store.apply([line.driver.ask(enqueue(), tenant="default")], line.driver.now_ms)  # by another broker
    line.engine.cuts = [Cut.LOADING]
    line.stage.ask(Expire())
    leased = (await line.stage.reply()).reply
    assert isinstance(leased, JobsLeased)
    assert leased.leases


async def test_what_comes_in_an_outage_waits_and_reads_do_too(line: Line) -> None:
    line.send(enqueue())
    enqueued = (await line.stage.reply()).reply
    assert isinstance(enqueued, JobsEnqueued)
    line.engine.cuts, line.engine.reconnects_failing = [Cut.READING], 3
    line.send(GetJob(job_id=enqueued.job_ids[0]), ListJobs())
    line.send(enqueue())
    replies = [type(response.reply) for _ in range(2) for response in await line.stage.news()]
    assert replies == [JobFound, JobsListed, JobsEnqueued]
    assert "renew" in line.engine.steps
    assert line.engine.steps.count("read") == 1, "a look-up and a list take one trip"


async def test_the_pauses_grow_to_a_bound(line: Line) -> None:
    line.engine.cuts, line.engine.reconnects_failing = [Cut.LOADING], float("inf")
    line.send(enqueue())
    await anyio.sleep(60)  # virtual
    tries = line.engine.steps.count("reconnect")
    assert 60_000 / PAUSE_LAST_MS <= tries <= 2 * 60_000 / PAUSE_LAST_MS + 10


async def test_a_broker_that_was_taken_for_dead_ends() -> None:
    stage = Line().stage
    engine = RemoteEngine()
    stage.store = Store(engine)
    engine.cuts, engine.fenced = [Cut.COMMITTED], True
    with pytest.RaisesGroup(Fenced, flatten_subgroups=True):
        async with stage.running():
            await anyio.sleep_forever()


async def test_jobs_that_another_broker_had_locked_are_looked_for_again_a_little_later(line: Line) -> None:
    line.send(enqueue())
    assert isinstance((await line.stage.reply()).reply, JobsEnqueued)
    await wait_all_tasks_blocked()
    await line.stage.announced.receive()
    line.engine.locked = frozenset({QueueKey("default", "default")})
    line.send(dequeue(wait_ms=10_000))
    before = len(line.engine.steps)
    await anyio.sleep(LOCKED_MS / 1_000 * 2.5)  # virtual
    assert len(line.engine.steps) - before == 2
    assert line.stage.silent()
    line.engine.locked = frozenset()
    began_s = anyio.current_time()
    leased = (await line.stage.reply()).reply
    assert isinstance(leased, JobsLeased)
    assert leased.leases
    assert anyio.current_time() - began_s <= (LOCKED_MS + 2) / 1_000


async def test_who_was_asked_for_in_vain_keeps_its_turn(line: Line) -> None:
    first, second = dequeue(slots=READY_JOBS_GUESS, wait_ms=30_000), dequeue(wait_ms=30_000)
    line.send(first, second)
    await wait_all_tasks_blocked()
    line.stage.bus.ready_all()  # only as many are tried as may have slots for jobs of an unknown number
    line.stage.asks.wake()
    await wait_all_tasks_blocked()
    line.send(enqueue())
    replies = {type(response.reply): response.command.request for response in await line.stage.news()}
    assert replies[JobsLeased] == first


async def test_after_an_adoption_every_queue_on_which_somebody_waits_is_asked(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.send(dequeue(wait_ms=10_000), dequeue("other", wait_ms=10_000, tags={"os": "linux"}))
    await wait_all_tasks_blocked()
    line.driver.store.apply([line.driver.ask(enqueue(), tenant="default")], line.driver.now_ms)  # by a broker that died
    line.engine.adopts = {"dead"}
    bus, forgotten = line.stage.bus, list[bool]()
    ready_all = bus.ready_all

    def forget() -> None:
        forgotten.append(True)
        ready_all()

    monkeypatch.setattr(bus, "ready_all", forget)
    line.stage.ask(Adopt(BrokerSeen("dead", 1, 1)))
    leased = (await line.stage.reply()).reply
    assert isinstance(leased, JobsLeased)
    assert leased.leases
    assert forgotten, "so that its engine forgets where it has looked"


async def test_an_outage_is_shown_with_what_to_do_until_it_is_over() -> None:
    line, said = Line(), list[str]()
    health = Health(said.append)
    line.stage.health = health
    async with line.stage.running():
        assert health.status is Status.OK
        line.engine.cuts, line.engine.reconnects_failing = [Cut.LOADING], float("inf")
        line.stage.ask(Expire())
        await anyio.sleep(60)  # virtual
        assert health.status is Status.UNAVAILABLE
        words = health.conditions[CONDITION]
        assert words.startswith("the store is away for 60 s: still no way there")
        line.engine.reconnects_failing = 0
        await anyio.sleep(PAUSE_LAST_MS / 1_000)  # virtual
        assert health.status is Status.OK
    assert [words.partition(":")[0] for words in said] == ["unavailable", "condition over"]


async def test_a_change_of_a_queue_is_a_batch_of_its_own(line: Line) -> None:
    """With several brokers it waits for all that use the queue, and then they wait for it."""
    line.send(enqueue(), enqueue(), UpdateQueue(queue="default", mode=QueueMode.PAUSED), enqueue())
    assert [len(await line.stage.news()) for _ in range(3)] == [2, 1, 1]
