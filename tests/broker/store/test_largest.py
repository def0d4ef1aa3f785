"""The largest legal requests fit into the transactions of an engine that bounds them, whole or divided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import pytest
from msgspec.structs import replace

from airunner.broker.lifecycle.commands import TenantRequest
from airunner.broker.lifecycle.leasing import LATE_MAX
from airunner.broker.requests import decode
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Engine
from airunner.broker.store.dynamodb.table import CALLS_MAX, Table
from airunner.broker.store.portions import Part, divide, rows_of
from airunner.protocol.compression import BATCH_BYTES_MAX
from airunner.protocol.events import encode_bodies
from airunner.protocol.expiry import Expiry
from airunner.protocol.fields import STDIN_BYTES_MAX, JobSpec
from airunner.protocol.fieldtypes import METADATA_MAX
from airunner.protocol.frames import BODY_BYTES_MAX
from airunner.protocol.job import SPEC_BYTES_MAX, encode_spec
from airunner.protocol.names import Seed
from airunner.protocol.replies import (
    JobCompleted,
    JobEventsPublished,
    JobLease,
    JobReleasedReply,
    JobsEnqueued,
    JobsLeased,
    JobsUpdated,
    QueueMode,
    QueueUpdated,
    SecretRemoved,
    SecretSet,
    Verdict,
)
from airunner.protocol.requests import (
    BATCHES_MAX,
    BOX_BYTES_MAX,
    COMPLETIONS_MAX,
    ENQUEUE_MAX,
    ENQUEUE_METADATA_MAX,
    LEASES_MAX,
    QUEUES_MAX,
    SLOTS_MAX,
    DequeueJob,
    EnqueueJob,
    EnqueueJobWithStdin,
    EventBatch,
    PublishJobEvents,
    RemoveSecret,
    RetryJob,
    SetSecret,
    StoreRequest,
    UpdateJob,
    UpdateQueue,
)
from tests.aws.fleets import fleet
from tests.aws.serving import ALL_LAWS, ENGINES, LESSER, Account
from tests.broker.store.dynamodb.opened import opened
from tests.conformance.bounded import Bounded
from tests.conformance.driving import START_MS, VISIBILITY_MS, Driver, completion, output, release

QUEUES: Final = tuple(f"queue-{number}" for number in range(QUEUES_MAX))
TAGS: Final = {"os": "linux", **{f"tag-{number}": "" for number in range(31)}}
HEAD_BYTES: Final = 1_024  # of a spec or a batch, besides what fills it
ID: Final = bytes(16)

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(120)]  # an emulator takes seconds for the largest requests

T = TypeVar("T")
PIECES: Final = 16  # events of a large batch


class Bench(NamedTuple):
    """`sizes`: the rows of each transaction; `exact`: they are those that are counted, where it comes to the worst."""

    engine: Engine
    driver: Driver
    sizes: list[int]
    exact: bool

    def transactions(self, request: StoreRequest) -> int:
        """How many the request takes, which is legal."""
        body = msgspec.msgpack.encode(request)
        assert len(body) <= BODY_BYTES_MAX
        assert decode(body)[0] == request
        return len(self.portions(self.driver.ask(request)))

    def portions(self, command: TenantRequest) -> list[list[Part]]:
        assert self.engine.rows_max is not None
        assert self.engine.bytes_max is not None
        return divide([command], self.engine.rows_max, self.engine.bytes_max)

    def took(self, *sizes: int) -> bool:
        """Whether the last request took transactions of so many rows."""
        return self.sizes == [*sizes] or not self.exact

    def reply(self, kind: type[T], request: StoreRequest, *, request_id: bytes | None = None) -> T:
        """The reply; what is written is no more than was counted for each part."""
        command = self.driver.ask(request, request_id=request_id)
        parts = [part.command for (part,) in self.portions(command)]
        counted = [rows_of(part) for part in parts if isinstance(part, TenantRequest)]
        self.sizes.clear()
        (done,) = self.driver.apply(command).done
        assert isinstance(done.reply, kind)
        assert all(rows <= most for rows, most in zip(self.sizes, counted, strict=True)), self.sizes
        return done.reply


@pytest.fixture
def dicts() -> Bench:
    engine = Bounded()
    return Bench(engine, Driver(Store(engine)), engine.sizes, exact=True)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The items of each transaction of an engine on DynamoDB, from now on."""
    sizes: list[int] = []
    transact = Table.transact

    def counted(table: Table, actions: Sequence[Any], token: str) -> None:
        sizes.append(len(actions))
        transact(table, actions, token)

    monkeypatch.setattr(Table, "transact", counted)
    return sizes


@pytest.fixture
def fake(sizes: list[int]) -> Iterator[Bench]:
    """A fake table, which has DynamoDB's limits."""
    with opened() as engine:
        yield Bench(engine, Driver(Store(engine)), sizes, exact=False)


def on_aws(account: Account, sizes: list[int]) -> Iterator[Bench]:
    """A table of an emulator, which asserts these limits by itself; or a real one."""
    table = account.create()
    with fleet(account.client(max_pool_connections=CALLS_MAX), table, 1) as (engine,):
        yield Bench(engine, Driver(Store(engine)), sizes, exact=False)
    account.drop(table)


@pytest.fixture(params=["dicts", "fake", *(name for name in ENGINES if ALL_LAWS or name != LESSER)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param in ENGINES:
        account = request.getfixturevalue("aws_emulators")(request.param)
        yield from on_aws(account, request.getfixturevalue("sizes"))
    else:
        yield request.getfixturevalue(request.param)


def widest(number: int) -> JobSpec:
    """A job of its own queue and needs, with as much metadata and spec as so many may have in one request."""
    metadata = {f"key-{pair}": "v" for pair in range(ENQUEUE_METADATA_MAX // ENQUEUE_MAX)}
    require = {f"tag-{number % 31}": "", "os": "linux"}
    argument = "a" * (BODY_BYTES_MAX // ENQUEUE_MAX - HEAD_BYTES)
    return JobSpec(command=argument, queue=QUEUES[number], metadata=metadata, require=require)


def leased(bench: Bench, count: int, slots: int = SLOTS_MAX) -> list[JobLease]:
    leases: list[JobLease] = []
    while len(leases) < count:
        bench.driver.submit(*["true"] * slots)
        leases += bench.driver.lease(slots=slots)
    return leases


def large_batch(lease: JobLease, first: int, size_bytes: int) -> EventBatch:
    """A batch of `PIECES` events."""
    events = encode_bodies(output(*["x" * ((size_bytes - HEAD_BYTES) // PIECES)] * PIECES))
    return EventBatch(lease=lease.ref, first_index=first * PIECES, count=PIECES, events=events)


def test_a_submission_of_64_jobs_of_64_queues_with_needs_and_metadata(bench: Bench):
    request = EnqueueJob(jobs=tuple(map(widest, range(ENQUEUE_MAX))))
    assert bench.transactions(request) == 1
    assert len(msgspec.msgpack.encode(request)) > 0.9 * BODY_BYTES_MAX
    assert len(bench.reply(JobsEnqueued, request).job_ids) == ENQUEUE_MAX


def test_a_submission_with_the_largest_standard_input_and_its_retry(bench: Bench):
    command = "a" * (SPEC_BYTES_MAX - 3 * HEAD_BYTES)
    metadata = {f"key-{pair}": "v" for pair in range(METADATA_MAX)}
    spec = JobSpec(command=command, metadata=metadata, stdin_bytes=STDIN_BYTES_MAX)
    assert len(encode_spec(spec)) > 0.95 * SPEC_BYTES_MAX
    request = EnqueueJobWithStdin(job=spec, stdin=bytes(STDIN_BYTES_MAX))
    assert bench.transactions(request) == 1
    (job_id,) = bench.reply(JobsEnqueued, request).job_ids
    bench.driver.cancel(job_id)
    retry = RetryJob(job_id=job_id)
    assert bench.transactions(retry) == 1
    bench.reply(JobsEnqueued, retry)
    assert bench.took(1 + 3 + 1 + 1 + 2), "job, input, record, counters, tenant and broker"


def test_a_lease_of_16_jobs_of_64_queues_in_which_jobs_have_expired(bench: Bench):
    driver = bench.driver
    for queue in QUEUES:
        driver.enqueue(*[JobSpec(command="late", queue=queue, expires=Expiry(at_ms=START_MS + 1))] * 2)
    driver.enqueue(*[JobSpec(command="true", queue=queue) for queue in QUEUES])
    driver.now_ms += 2
    request = DequeueJob(
        agent="a" * 128,
        tags=TAGS,
        queues=QUEUES,
        slots=SLOTS_MAX,
        visibility_ms=VISIBILITY_MS,
        token_seed=Seed(bytes(32)),
    )
    assert bench.transactions(request) == 1
    jobs = 0
    while jobs < len(QUEUES):
        jobs += len(bench.reply(JobsLeased, replace(request, token_seed=Seed(driver.draw(32)))).leases)


def test_a_lease_ends_no_more_expired_jobs_than_are_counted_and_its_release_forgets_it(bench: Bench):
    driver = bench.driver
    late = JobSpec(command="late", queue="a", expires=Expiry(at_ms=START_MS + 1))
    driver.enqueue(*[late] * LATE_MAX, *[JobSpec(command="true", queue="a")] * (SLOTS_MAX - LATE_MAX))
    driver.submit(*["true"] * SLOTS_MAX, queue="b")
    driver.now_ms += 2
    request = driver.dequeue("a", "b", slots=SLOTS_MAX)
    leases = bench.reply(JobsLeased, request, request_id=ID).leases
    assert len(leases) == SLOTS_MAX
    assert bench.took(rows_of(driver.ask(request)))
    bench.reply(JobReleasedReply, release(leases[0]), request_id=ID)
    assert bench.took(rows_of(driver.ask(release(leases[0]))))


def test_a_heartbeat_of_1024_leases(bench: Bench):
    leases = leased(bench, LEASES_MAX)
    request = UpdateJob(leases=tuple(lease.ref for lease in leases), visibility_ms=VISIBILITY_MS)
    assert bench.transactions(request) == 13, "80 rows of jobs, 16 of counters, the tenant and the broker"
    verdicts = bench.reply(JobsUpdated, request).leases
    assert [(one.job_id, one.verdict) for one in verdicts] == [(lease.job_id, Verdict.KEPT) for lease in leases]


def test_a_heartbeat_of_jobs_with_the_largest_specs(bench: Bench):
    leases: list[JobLease] = []
    while len(leases) < 64:
        bench.driver.enqueue(*[JobSpec(command="a" * (SPEC_BYTES_MAX - HEAD_BYTES))] * SLOTS_MAX)
        leases += bench.driver.lease(slots=SLOTS_MAX)
    bench.reply(JobsUpdated, UpdateJob(leases=tuple(lease.ref for lease in leases), visibility_ms=VISIBILITY_MS))
    assert bench.took(1 + 64 + 2), "large specs are not in the rows"


def test_events_of_64_jobs_and_the_ends_of_64_others(bench: Bench):
    leases = leased(bench, BATCHES_MAX + COMPLETIONS_MAX)
    size_bytes = (BODY_BYTES_MAX - 32_768) // BATCHES_MAX
    request = PublishJobEvents(
        batches=tuple(large_batch(lease, 0, size_bytes) for lease in leases[:BATCHES_MAX]),
        completions=tuple(completion(lease) for lease in leases[BATCHES_MAX:]),
    )
    assert len(msgspec.msgpack.encode(request)) > 0.9 * BODY_BYTES_MAX
    assert bench.transactions(request) == 4
    require_stored(bench.reply(JobEventsPublished, request), [1] * BATCHES_MAX)


def require_stored(reply: JobEventsPublished, indices: Sequence[int]) -> None:
    assert [(one.next_index, one.code) for one in reply.batches] == [(index * PIECES, None) for index in indices]
    assert all(isinstance(completed, JobCompleted) for completed in reply.completions)


def test_the_largest_batches_of_one_job_and_its_end_in_one_transaction(bench: Bench):
    (lease,) = leased(bench, 1, slots=1)
    batches = [large_batch(lease, index, BATCH_BYTES_MAX) for index in range(3)]
    batches += [large_batch(lease, 3 + index, BATCH_BYTES_MAX // 64) for index in range(BATCHES_MAX - 3)]
    request = PublishJobEvents(batches=tuple(batches), completions=(completion(lease, BATCHES_MAX * PIECES),))
    assert len(msgspec.msgpack.encode(request)) > 0.9 * BODY_BYTES_MAX
    assert bench.transactions(request) == 1
    require_stored(bench.reply(JobEventsPublished, request), range(1, BATCHES_MAX + 1))
    assert bench.took(3 * 2 + (BATCHES_MAX - 3) + 1 + 1 + 3), "segments, the end, the job, three others"


def test_the_largest_secret_and_the_mode_of_a_queue(bench: Bench):
    secret = SetSecret(queue="default", name="S", box=bytes(BOX_BYTES_MAX))
    for request, reply in (
        (secret, SecretSet),
        (RemoveSecret(queue="default", name="S"), SecretRemoved),
        (UpdateQueue(queue="default", mode=QueueMode.PAUSED), QueueUpdated),
    ):
        assert bench.transactions(request) == 1
        bench.reply(reply, request)


def test_the_largest_requests_together(bench: Bench):
    driver = bench.driver
    leases = leased(bench, LEASES_MAX)
    (lease,) = leased(bench, 1, slots=1)
    commands = [
        driver.ask(UpdateJob(leases=tuple(lease.ref for lease in leases), visibility_ms=VISIBILITY_MS)),
        driver.ask(PublishJobEvents(batches=tuple(large_batch(lease, i, BATCH_BYTES_MAX) for i in range(3)))),
        driver.ask(EnqueueJob(jobs=tuple(map(widest, range(ENQUEUE_MAX))))),
        driver.ask(driver.dequeue(*QUEUES, slots=SLOTS_MAX, tags=TAGS)),
        driver.ask(PublishJobEvents(completions=tuple(completion(lease) for lease in leases[:COMPLETIONS_MAX]))),
    ]
    replies = [done.reply for done in driver.apply(*commands).done]
    assert [type(reply) for reply in replies] == [
        JobsUpdated,
        JobEventsPublished,
        JobsEnqueued,
        JobsLeased,
        JobEventsPublished,
    ]
    assert isinstance(replies[1], JobEventsPublished)
    require_stored(replies[1], [1, 2, 3])
    assert isinstance(replies[3], JobsLeased)
    assert len(replies[3].leases) == SLOTS_MAX
