"""What /metrics shows: every metric of the table, bounded whatever tenants do, and without the store if need be."""

from __future__ import annotations

import anyio
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker import backlog
from airunner.broker.backlog import OTHER, read_backlog
from airunner.broker.command import METRICS_TENANTS_MAX, tenants_named
from airunner.broker.counts import ENDS, Counts
from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import BetweenBatches
from airunner.broker.lifecycle.commands import Timings
from airunner.broker.metrics import METRICS, READ_S, BrokerMetrics
from airunner.broker.roster import Roster
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import StoreAway
from airunner.protocol.errors import CorruptLog, OperatorError
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobsLeased, QueueMode
from airunner.protocol.requests import CancelJob, EnqueueJob, StoreRequest
from airunner.transport.metric import Histogram, Samples
from tests.broker.stage import WALL_MS
from tests.conformance.driving import Driver, completion, release
from tests.conformance.memory import MemoryEngine


@pytest.fixture
def driver() -> Driver:
    return Driver(Store(MemoryEngine()))


def job(queue: str, **tags: str) -> JobSpec:
    return JobSpec(command="true", queue=queue, require=tags)


def read(driver: Driver, *tenants: str) -> dict[str, Samples]:
    return read_backlog(driver.store.engine, tenants, driver.now_ms)


def test_the_jobs_of_named_tenants_are_shown_by_queue_and_needs_and_all_others_in_one_sum(driver: Driver) -> None:
    driver.enqueue(job("a"), job("a", gpu="yes", os="linux"), job("b"), job("default"))
    driver.lease("b")
    driver.enqueue(JobSpec(command="true", queue="b", not_before_ms=driver.now_ms + 60_000))
    driver.enqueue(job("their-secret", fruit="pear"), job("their-secret"), tenant="other")
    driver.set_mode(QueueMode.PAUSED)
    driver.now_ms += 5_000
    values = read(driver, "home")
    assert {labels[1:]: count for labels, count in values["airunner_queue_jobs"].items() if count} == {
        ("a", "ready"): 2,
        ("b", "delayed"): 1,
        ("b", "running"): 1,
        ("default", "paused"): 1,
        (OTHER, "ready"): 2,
    }
    assert values["airunner_queue_oldest_seconds"] == {
        ("home", "a"): 5,
        ("home", "b"): 0,
        ("home", "default"): 0,
    }
    assert values["airunner_queue_ready_jobs"] == {
        ("home", "a", ""): 1,
        ("home", "a", "gpu=yes,os=linux"): 1,
        ("home", "b", ""): 0,
        ("home", "default", ""): 0,
        (OTHER, OTHER, OTHER): 2,
    }
    assert values["airunner_store_bytes"][()]
    assert "their-secret" in str(read(driver, "other"))


def test_no_tenant_makes_the_page_long_or_loses_a_job_in_the_sums(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound, most in (("QUEUES_MAX", 3), ("QUEUES_READ_MAX", 8), ("NEEDS_MAX", 3), ("NEEDS_READ_MAX", 8)):
        monkeypatch.setattr(backlog, bound, most)
    for tenant in ("home", "other"):
        driver.enqueue(*(job(f"queue-{number}", tag=f"{number}") for number in range(20)), tenant=tenant)
    driver.enqueue(*[job("queue-2")] * 4, job("queue-1", tag="x" * backlog.NEEDS_CHARS_MAX))
    values = read(driver, "home", "other")
    for name, most in (("airunner_queue_jobs", 3 * 4 + 3), ("airunner_queue_ready_jobs", 3 + 1)):
        assert len(values[name]) == most
        assert sum(values[name].values()) == 45
    assert values["airunner_queue_jobs"]["home", "queue-1", "ready"] == 2, "queues with many jobs come first"
    assert ("home", "queue-2", "") not in values["airunner_queue_ready_jobs"], "beyond what is read"


def test_waits_and_lives_are_timed_once_for_each_job(driver: Driver) -> None:
    def timed(request: StoreRequest) -> tuple[list[int], list[tuple[str, int]]]:
        timings = driver.apply(driver.ask(request)).timings
        return timings.waited_ms, timings.ended

    spec = JobSpec(command="true", not_before_ms=driver.now_ms + 100)
    assert timed(EnqueueJob(jobs=(spec,))) == ([], [])
    driver.pass_ms(100)
    driver.now_ms += 40
    applied = driver.apply(driver.ask(driver.dequeue()))
    assert applied.timings.waited_ms == [40]
    reply = applied.done[0].reply
    assert isinstance(reply, JobsLeased)
    driver.now_ms += 50
    assert timed(release(reply.leases[0])) == ([], []), "it goes on"
    lease = driver.lease_one()
    driver.now_ms += 50
    assert timed(completion(lease, exit_code=1)) == ([], [("FAILED", 100)])
    (never_leased,) = driver.submit()
    assert timed(CancelJob(job_id=never_leased)) == ([], [])
    counts = Counts()
    counts.record_batch(1, 0.5, Timings(waited_ms=[40], ended=[("FAILED", 100)]))
    values = counts.values()
    assert isinstance(waits := values["airunner_start_latency_seconds"][()], Histogram)
    assert (waits.sum, dict(waits.buckets)["0.05"], dict(waits.buckets)["0.025"]) == (0.04, 1, 0)
    assert isinstance(lives := values["airunner_job_duration_seconds"]["failed",], Histogram)
    assert lives.sum == 0.1


class Away(MemoryEngine):
    """An engine whose pages fail."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self._failure = failure

    def totals(self, queues_max: int) -> None:
        del queues_max
        raise self._failure


def metrics(ledger: FairQueue, engine: MemoryEngine) -> BrokerMetrics:
    return BrokerMetrics(Counts(), ledger, engine, Roster(), lambda: WALL_MS, ["home"])


async def test_every_metric_of_the_table_is_shown_and_no_other() -> None:
    ledger = FairQueue()

    def work() -> None:
        entry = ledger.receive_nowait()
        assert isinstance(entry, BetweenBatches)
        entry.work()
        entry.done.set()

    with ledger.received_by(work):
        values = await metrics(ledger, MemoryEngine()).values()
        assert set(values) == {metric.name for metric in METRICS}
        for metric in METRICS:
            assert all(len(labels) == len(metric.labels) for labels in values[metric.name])
        for failure in (StoreAway(), CorruptLog()):
            assert "airunner_store_bytes" not in await metrics(ledger, Away(failure)).values()
    assert tuple(state for state in JobState if state.terminal) == ENDS


async def test_a_scrape_gets_what_is_known_while_the_store_does_not_answer_and_asks_it_once() -> None:
    ledger = FairQueue()
    page = metrics(ledger, MemoryEngine())
    for _ in range(2):
        with anyio.fail_after(READ_S + 1):
            values = await page.values()
        assert "airunner_store_bytes" not in values
        assert "airunner_requests" in values
    entry = ledger.receive_nowait()
    assert isinstance(entry, BetweenBatches)
    assert ledger.next() is None
    seen: list[object] = []

    async def scrape() -> None:
        seen.append(await page.values())

    async with anyio.create_task_group() as group:
        group.start_soon(scrape)
        await wait_all_tasks_blocked()
        entry.work()
        entry.done.set()
    assert "airunner_store_bytes" in str(seen)


@pytest.mark.parametrize("names", [["(other)"], [""], [f"t{number}" for number in range(METRICS_TENANTS_MAX + 1)]])
def test_only_so_many_tenants_are_named_and_by_their_names(names: list[str]) -> None:
    with pytest.raises(OperatorError, match="--metrics-tenant"):
        tenants_named(names)
    assert tenants_named(["b", "a", "b"]) == ("b", "a")
