"""Portions: a batch for an engine with bounded transactions is divided, and what comes of it is as of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from random import Random
from typing import Final, NamedTuple

import pytest
from msgspec.structs import replace

from airunner.broker.lifecycle.commands import (
    Adopt,
    Applied,
    Beat,
    Done,
    Expire,
    RenewAll,
    Retain,
    TenantRequest,
)
from airunner.broker.lifecycle.extents import Extent, nothing_written
from airunner.broker.requests import KINDS, Execution
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Moved, StoreAway, StoreUnsure
from airunner.broker.store.portions import divide, rows_of
from airunner.broker.store.rows import BrokerSeen, Changes
from airunner.protocol.errors import Busy, NoSpace
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Result
from airunner.protocol.jobretry import RetryPolicy
from airunner.protocol.replies import (
    JobEventsPublished,
    JobLease,
    JobsEnqueued,
    JobsUpdated,
    Refused,
    Verdict,
)
from airunner.protocol.requests import (
    CompleteJob,
    EnqueueJob,
    EventBatch,
    PublishJobEvents,
    UpdateJob,
)
from tests.conformance.bounded import BYTES_MAX, ROWS_MAX, Bounded, Small, Stepping
from tests.conformance.driving import VISIBILITY_MS, Driver, batch, completion
from tests.conformance.memory import MemoryEngine
from tests.conformance.test_batches import batches, comparable, compare

pytestmark = pytest.mark.unmeasured

RETRIED: Final = JobSpec(command="false", retry=RetryPolicy(limit=1, backoff_ms=0))
JOBS: Final = 48
JOBS_EACH: Final = 14  # in a submission


def tables(engine: MemoryEngine) -> dict[str, object]:
    return {name: table for name, table in vars(engine._saved).items() if name != "logs"} | {
        "logs": {number: list(log) for number, log in engine._saved.logs.items()}
    }


def shown(changes: Changes | None) -> object:
    """What is published of changes."""
    assert changes is not None
    added = {job.number: job for job in changes.added}
    changed = {after.number: (before, after) for before, after in changes.changed}
    return added, changed, changes.modes, changes.records, changes.lifecycle


# --- a divided batch is the whole batch ------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_divided_batch_does_what_its_commands_do_one_by_one(seed: int):
    engine = Small()
    other = compare(seed, engine, Stepping)
    assert tables(engine) == tables(other)


@pytest.mark.parametrize("seed", range(40, 60))
def test_a_divided_batch_does_what_the_whole_does_and_tells_the_same(seed: int):
    divided, undivided = Small(), Stepping()
    parts, whole = Store(divided), Store(undivided)
    asked = 0
    for now_ms, drawn in batches(seed):
        commands = [command for at, command in enumerate(drawn) if command != Expire() or drawn.index(command) == at]
        asked += 1  # the broker asks for one step of what is due at a time
        mine, its = parts.apply(commands, now_ms), whole.apply(commands, now_ms)
        for command, done, other in zip(commands, mine.done, its.done, strict=True):
            assert comparable(command, done) == comparable(command, other)
        assert (mine.next_due_ms, mine.wrote) == (its.next_due_ms, its.wrote)
        assert sorted(mine.timings.waited_ms) == sorted(its.timings.waited_ms)
        assert sorted(mine.timings.ended) == sorted(its.timings.ended)
        assert shown(mine.changes) == shown(its.changes)
    assert tables(divided) == tables(undivided)
    assert len(divided.sizes) > asked, "some were divided"


@pytest.mark.parametrize("seed", range(10))
def test_no_request_writes_more_rows_than_are_counted_for_it(seed: int):
    engine = Bounded()
    store = Store(engine)
    for now_ms, commands in batches(seed):
        for command in commands:
            store.apply([command], now_ms)
            if isinstance(command, TenantRequest):
                assert engine.sizes[-1] <= rows_of(command), command


# --- a divided request is the whole request --------------------------------------------------------


def running(driver: Driver, count: int = JOBS) -> list[JobLease]:
    leases: list[JobLease] = []
    while len(leases) < count:
        driver.enqueue(*[replace(RETRIED, queue=f"q{number % 3}") for number in range(8)])
        leases += driver.lease("q0", "q1", "q2", slots=8)
    return leases


def some_batch(random: Random, lease: JobLease) -> EventBatch:
    return batch(lease, random.choice((0, 0, 1, 2)), *random.choices("xyz", k=random.randint(1, 3)))


def some_end(random: Random, lease: JobLease) -> CompleteJob:
    return completion(lease, random.choice((0, 1, 2, 3, 4)), result=Result(exit_code=random.choice((0, 1))))


def some_lease(random: Random, leases: Sequence[JobLease]) -> JobLease:
    """A lease; now and then of an unknown job, or of another attempt."""
    lease = random.choice(leases)
    return random.choice((lease,) * 8 + (replace(lease, attempt=7), replace(lease, job_id="unknown")))


def heartbeat(random: Random, leases: Sequence[JobLease]) -> UpdateJob:
    refs = [some_lease(random, leases).ref for _ in range(random.randint(1, 150))]
    return UpdateJob(leases=tuple(refs), visibility_ms=random.choice((2_000, 9_000, 20_000)))


def publication(random: Random, leases: Sequence[JobLease]) -> PublishJobEvents:
    sent = [some_batch(random, some_lease(random, leases)) for _ in range(random.randint(1, 64))]
    ends = [some_end(random, some_lease(random, leases)) for _ in range(random.randint(0, 64))]
    return PublishJobEvents(batches=tuple(sent), completions=tuple(ends))


def sorted_news(done: Done) -> Done:
    """Segments of each job in their order, and the jobs in any; a cost is a sum, each part rounded up."""
    appended = sorted(done.news.appended, key=lambda one: one.watch_key)
    done.news.appended = appended
    return replace(done, cost=0)


@pytest.mark.parametrize("seed", range(30))
def test_a_divided_request_is_answered_as_the_whole_and_stores_the_same(seed: int):
    random = Random(seed)
    engines = Small(), MemoryEngine()
    divided, undivided = (Driver(Store(engine)) for engine in engines)
    leases = running(divided)
    assert leases == running(undivided)
    for _ in range(6):
        request = heartbeat(random, leases) if random.random() < 0.5 else publication(random, leases)
        mine, its = divided.outcome(request), undivided.outcome(request)
        assert sorted_news(mine) == sorted_news(its)
        assert mine.cost
    assert tables(engines[0]) == tables(engines[1])


def test_a_job_s_batches_and_its_completion_are_stored_together():
    driver = Driver(Store(Small()))
    leases = running(driver, 16)
    sent = [batch(lease, index, "x") for index in range(4) for lease in leases]
    ends = [completion(lease, 4) for lease in reversed(leases)]
    ask = driver.ask(PublishJobEvents(batches=tuple(sent), completions=tuple(ends)))
    portions = divide([ask], Small.rows_max, Small.bytes_max)
    assert len(portions) > 2
    ends: list[str] = []
    for part in chain(*portions):
        assert isinstance(part.command, TenantRequest)
        assert isinstance(part.command.request, PublishJobEvents)
        ended = [one.lease.job_id for one in part.command.request.completions]
        assert sorted(ended * 4) == sorted(one.lease.job_id for one in part.command.request.batches)
        ends += ended
    assert sorted(ends) == sorted(lease.job_id for lease in leases)


# --- the order of portions -------------------------------------------------------------------------


def test_what_the_engine_bounds_is_in_a_portion_of_its_own_and_a_renewal_comes_first():
    driver = Driver(Store(MemoryEngine()))
    ask = driver.ask(EnqueueJob(jobs=(JobSpec(command="a"),)))
    adopt, retain = Adopt(BrokerSeen("b", 1, 1)), Retain(finished_before_ms=0)
    commands = [ask, Beat(), ask, Expire(), ask, RenewAll(), retain, adopt, Beat()]
    portions = divide(commands, ROWS_MAX, BYTES_MAX)
    assert [[part.place for part in portion] for portion in portions] == [[5], [0, 1, 2], [3], [4], [6], [7], [8]]
    assert [[part.command for part in portion] for portion in portions] == [
        [commands[part.place] for part in portion] for portion in portions
    ]


def test_requests_share_a_portion_as_long_as_their_rows_and_bytes_fit():
    driver = Driver(Store(MemoryEngine()))
    small = [driver.ask(EnqueueJob(jobs=(JobSpec(command="a"),))) for _ in range(100)]
    sizes = [len(portion) for portion in divide(small, ROWS_MAX, BYTES_MAX)]
    assert (sum(sizes), sizes[0], len(sizes)) == (100, 41, 3)  # 2 rows each, 16 of counters, the tenant and the broker
    large = [driver.ask(EnqueueJob(jobs=(JobSpec(command="a" * 60_000),) * 30)) for _ in range(3)]
    assert [len(portion) for portion in divide(large, 1_000, BYTES_MAX)] == [1, 1, 1]
    assert divide([], ROWS_MAX, BYTES_MAX) == [[]]


def test_each_kind_of_request_that_changes_something_is_bounded():
    for kind, row in KINDS.items():
        assert (row.extent is not nothing_written) == (row.execution is Execution.CHANGE), kind
    assert nothing_written(None) == Extent(0, 0, 0)


class Slow(Small):
    """Each transaction takes a second."""

    clock_ms = 5_000

    def steady_ms(self) -> int:
        return self.clock_ms

    def commit(self) -> None:
        super().commit()
        self.clock_ms += 1_000


def test_a_portion_is_decided_as_much_later_as_those_before_it_have_taken():
    engine = Slow()
    driver = Driver(Store(engine))
    leases = running(driver)
    driver.reply(JobsUpdated, UpdateJob(leases=tuple(lease.ref for lease in leases), visibility_ms=60_000))
    deadlines_ms = [job.deadline_ms for job in engine._saved.jobs.values()]
    assert len({*deadlines_ms}) > 1
    assert sorted({*deadlines_ms}) == [driver.now_ms + 60_000 + 1_000 * at for at in range(len({*deadlines_ms}))]


# --- a portion that fails --------------------------------------------------------------------------


class Failing(Small):
    """Fails from the save with this number on, as often as it is told."""

    def __init__(self, error: Exception, at: int, times: int = 10**6) -> None:
        super().__init__()
        self.error, self.at, self.times = error, at, times
        self.armed = False

    def save(self, changes: Changes) -> None:
        self.at -= self.armed
        if self.armed and self.at < 0 < self.times:
            self.times -= 1
            self._now = self._saved
            raise self.error
        super().save(changes)


class Failed(NamedTuple):
    engine: Failing
    driver: Driver
    commands: list[TenantRequest]

    def apply(self) -> Applied:
        return self.driver.apply(*self.commands)

    def jobs(self) -> int:
        return len(self.engine._saved.jobs)


def failing(error: Exception, at: int, times: int = 10**6) -> Failed:
    """Six submissions, two of which are a portion."""
    engine = Failing(error, at, times)
    driver = Driver(Store(engine))
    asked = [driver.ask(EnqueueJob(jobs=(JobSpec(command="a"),) * JOBS_EACH)) for _ in range(6)]
    assert len(divide(asked, Small.rows_max, Small.bytes_max)) == 3
    engine.armed = True
    return Failed(engine, driver, asked)


@pytest.mark.parametrize("error", [StoreAway("no way"), StoreUnsure("perhaps")])
def test_a_store_that_is_lost_before_anything_is_stored_is_lost_as_it_says(error: Exception):
    failed = failing(error, 0)
    with pytest.raises(type(error)) as raised:
        failed.apply()
    assert raised.type is type(error)
    assert failed.jobs() == 0


@pytest.mark.parametrize("at", [1, 2])
def test_a_store_that_is_lost_between_two_portions_may_have_stored_the_batch(at: int):
    failed = failing(StoreAway("no way"), at, times=1)
    with pytest.raises(StoreUnsure, match="no way"):
        failed.apply()
    assert 0 < failed.jobs() < 6 * JOBS_EACH
    again = failed.apply()
    assert failed.jobs() == 6 * JOBS_EACH
    ids = [done.reply.job_ids for done in again.done if isinstance(done.reply, JobsEnqueued)]
    minted = [tuple(job.job_id for job in command.minted) for command in failed.commands]
    assert ids == minted


@pytest.mark.parametrize("error", [Busy(), NoSpace(), Moved()])
def test_a_batch_whose_first_portion_is_refused_is_refused(error: Exception):
    failed = failing(error, 0)
    with pytest.raises((Busy, NoSpace)):
        failed.apply()
    assert failed.jobs() == 0


@pytest.mark.parametrize(
    ("error", "code", "times"), [(Busy(), "busy", 1), (NoSpace(), "no-space", 1), (Moved(), "busy", 8)]
)
def test_of_a_batch_only_the_commands_of_a_refused_portion_are_refused(error: Exception, code: str, times: int):
    failed = failing(error, 1, times)
    applied = failed.apply()
    codes = [done.reply.code if isinstance(done.reply, Refused) else "" for done in applied.done]
    assert codes == ["", "", code, code, "", ""]
    assert failed.jobs() == 4 * JOBS_EACH
    assert applied.changes is not None
    assert len(applied.changes.added) == 4 * JOBS_EACH
    assert [len(done.news.appended) for done in applied.done] == [JOBS_EACH] * 2 + [0] * 2 + [JOBS_EACH] * 2
    assert all(isinstance(done.reply, JobsEnqueued) for done in failed.apply().done)
    assert failed.jobs() == 6 * JOBS_EACH


def test_a_request_of_which_a_part_is_refused_is_refused_and_a_repeat_stores_the_rest():
    engine = Failing(Busy(), 1, times=1)
    driver = Driver(Store(engine))
    leases = running(driver)
    request = PublishJobEvents(
        batches=tuple(batch(lease, 0, "x") for lease in leases),
        completions=tuple(completion(lease, 1) for lease in leases),
    )
    engine.armed = True
    before = driver.outcome(request)
    assert isinstance(before.reply, Refused)
    assert before.reply.code == "busy"
    stored = len(before.news.appended)
    assert 0 < stored < 2 * JOBS, "what is stored is published all the same"
    after = driver.outcome(request)
    assert isinstance(after.reply, JobEventsPublished)
    assert [one.next_index for one in after.reply.batches] == [1] * JOBS
    assert [one.code for one in after.reply.batches] == [None] * JOBS
    assert stored + len(after.news.appended) == 2 * JOBS


# --- changes of one job in several portions ---------------------------------------------------------


def test_a_job_that_is_changed_in_two_portions_is_published_once_as_it_was_and_as_it_is():
    engine = Small()
    driver = Driver(Store(engine))
    lease = driver.started()
    beat = driver.ask(UpdateJob(leases=(lease.ref,) * 60, visibility_ms=VISIBILITY_MS))
    end = driver.ask(completion(lease))
    engine.sizes.clear()
    applied = driver.apply(beat, end)
    assert len(engine.sizes) > 1
    reply = applied.done[0].reply
    assert isinstance(reply, JobsUpdated)
    assert {one.verdict for one in reply.leases} == {Verdict.KEPT}
    assert applied.changes is not None
    ((before, after),) = applied.changes.changed
    assert (before.state, after.state) == ("RUNNING", "COMPLETED")
