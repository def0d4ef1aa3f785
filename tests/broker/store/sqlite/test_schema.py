"""A file that an older broker wrote is taken over with all that it promised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import msgspec
import pytest

from airunner.broker.store.needs import NEEDS_MAX
from airunner.broker.store.sqlite.schema import MIGRATIONS
from airunner.broker.store.sqlite.store import SqliteStore, open_store
from airunner.protocol.coding import canonical_hash
from airunner.protocol.events import BrokerBody, JobFinished, JobLeased, JobReleased, JobScheduled, encode_bodies
from airunner.protocol.job import METADATA_MAX, JobSpec, JobState, Reason, Result, encode_spec
from airunner.protocol.messages import (
    EnqueueJob,
    JobCompleted,
    JobEventsPublished,
    JobLease,
    JobReleasedReply,
    JobsEnqueued,
    JobsLeased,
    JobsListed,
    ListJobs,
    PublishJobEvents,
    RetryJob,
    Verdict,
)
from airunner.protocol.names import JobId, task_token, token_hash
from tests.broker.store.sqlite.taking import kept, taken
from tests.conformance.driving import START_MS, VISIBILITY_MS, Driver, batch, completion, release

ID, LEASE_ID, SEED = b"q" * 16, b"l" * 16, b"s" * 32
REQUEST = EnqueueJob(
    jobs=(
        JobSpec(command="a", metadata={"k": "v"}, owner="o"),
        JobSpec(command="b", queue="other", environment={"X": "1"}),
        JobSpec(command="c"),
    )
)
HASH_THEN = "44a05af61bd4fe1e38eac0d64074a3d640cb76fb3e70654a33f137278969fd08"  # of REQUEST, as version 1 reckoned it


class VersionOne:
    """Writes as schema 1's broker did, in its own words: what it wrote does not change any more."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        connection.execute(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")

    def enqueue(self, request_id: bytes, body_hash: bytes, jobs: dict[str, JobSpec]) -> None:
        numbers: list[int] = []
        for job_id, spec in jobs.items():
            number = self.connection.execute(
                "INSERT INTO job (job_id, tenant, queue, state, owner, spec, watch_key, submitted_ms)"
                " VALUES (?, 'home', ?, 'SCHEDULED', ?, ?, ?, ?) RETURNING number",
                (job_id, spec.queue, spec.owner, encode_spec(spec), bytes(32), START_MS),
            ).get
            numbers.append(number)
            self.append(job_id, JobScheduled(timestamp_ms=START_MS, queue=spec.queue))
        self.connection.execute(
            "INSERT INTO request (tenant, request_id, body_hash, first_number, count) VALUES ('home', ?, ?, ?, ?)",
            (request_id, body_hash, numbers[0], len(numbers)),
        )

    def lease(self, job_id: str) -> JobLease:
        token = task_token(SEED, JobId(job_id), 1)
        self.connection.execute(
            "UPDATE job SET state = 'RUNNING', attempt = 1, next_index = 0, agent = 'agent', token_hash = ?,"
            " lease_request = ?, visibility_ms = ?, deadline_ms = ?, started_ms = ? WHERE job_id = ?",
            (token_hash(token), LEASE_ID, VISIBILITY_MS, START_MS + VISIBILITY_MS, START_MS, job_id),
        )
        self.append(job_id, JobLeased(timestamp_ms=START_MS, agent="agent"))
        spec = JobSpec(command="not looked at")
        return JobLease(job_id=JobId(job_id), attempt=1, task_token=token, visibility_ms=VISIBILITY_MS, spec=spec)

    def release(self, job_id: str) -> JobLease:
        lease = self.lease(job_id)
        self.connection.execute(
            "UPDATE job SET state = 'SCHEDULED', deadline_ms = NULL, lease_request = NULL WHERE job_id = ?", (job_id,)
        )
        self.append(job_id, JobReleased(timestamp_ms=START_MS))
        return lease

    def expire(self, job_id: str, agents_lost: int) -> JobLease:
        lease = self.release(job_id)
        self.connection.execute(
            "UPDATE job SET token_hash = NULL, agents_lost = ? WHERE job_id = ?", (agents_lost, job_id)
        )
        return lease

    def finish(self, job_id: str, result: Result) -> JobLease:
        lease = self.lease(job_id)
        self.connection.execute(
            "UPDATE job SET state = ?, result = ?, finished_ms = ?, deadline_ms = NULL, lease_request = NULL"
            " WHERE job_id = ?",
            (result.state, msgspec.msgpack.encode(result), START_MS, job_id),
        )
        self.append(job_id, JobFinished(timestamp_ms=START_MS, state=result.state, exit_code=result.exit_code))
        return lease

    def append(self, job_id: str, body: BrokerBody) -> None:
        self.connection.execute(
            "INSERT INTO event (number, first_sequence, count, attempt, last_timestamp_ms, events)"
            " SELECT number, last_sequence + 1, 1, attempt, ?, ? FROM job WHERE job_id = ?",
            (START_MS, encode_bodies([body]), job_id),
        )
        self.connection.execute("UPDATE job SET last_sequence = last_sequence + 1 WHERE job_id = ?", (job_id,))


class TakenOver:
    """Today's store over a file of version 1, and the leases that were granted then."""

    def __init__(self, store: SqliteStore, leases: dict[str, JobLease]) -> None:
        self.store = store
        self.driver = Driver(store)
        self.driver.draw(8)  # the first id is not given again
        self.leases = leases


@pytest.fixture
def old(tmp_path: Path) -> Iterator[TakenOver]:
    path = tmp_path / "store.db"
    with closing(apsw.Connection(str(path))) as connection:
        then = VersionOne(connection)
        jobs = dict(zip(("a", "b", "c"), REQUEST.jobs, strict=True))
        then.enqueue(ID, bytes.fromhex(HASH_THEN), jobs)
        for job_id in ("running", "released", "expired", "completed", "failed"):
            then.enqueue(job_id.encode().ljust(16), bytes(32), {job_id: JobSpec(command="x", metadata={"k": "v"})})
        leases = {
            "running": then.lease("running"),
            "released": then.release("released"),
            "expired": then.expire("expired", agents_lost=2),
            "completed": then.finish("completed", Result(exit_code=0)),
            "failed": then.finish("failed", Result(exit_code=7)),
        }
    with closing(open_store(f"sqlite:///{path}")) as store:
        yield TakenOver(store, leases)


def test_the_file_is_of_todays_version(old: TakenOver):
    assert old.store._connection.pragma("user_version") == len(MIGRATIONS)
    tables = {name for (name,) in old.store._connection.execute("SELECT name FROM sqlite_schema")}
    assert "request" not in tables


def test_its_jobs_stand_as_they_stood(old: TakenOver):
    states = {job.id: job.state for job in old.driver.reply(JobsListed, ListJobs()).jobs}
    waiting = dict.fromkeys(["a", "b", "c", "released", "expired"], JobState.SCHEDULED)
    ended = {"completed": JobState.COMPLETED, "failed": JobState.FAILED}
    assert states == {**waiting, **ended, "running": JobState.RUNNING}
    assert old.driver.job("failed").result == Result(exit_code=7)
    assert old.driver.kinds("completed") == ["JOB_SCHEDULED", "JOB_LEASED", "JOB_FINISHED"]


def test_its_queues_are_counted(old: TakenOver):
    default, other = old.driver.queue(), old.driver.queue("other")
    assert (default.waiting, default.delayed, default.running, default.oldest_ms) == (4, 0, 1, START_MS)
    assert (other.waiting, other.running) == (1, 0)
    old.driver.lease(slots=2)
    assert (old.driver.queue().waiting, old.driver.queue().running) == (2, 3)


def test_what_its_tenants_take_is_counted(old: TakenOver):
    assert taken(old.store) == kept(old.store)
    assert taken(old.store)["home"] > 0


def test_what_a_tenant_takes_of_a_file_that_counted_less_is_counted_anew(tmp_path: Path):
    """Version 5 counted no answers and no modes."""
    path = tmp_path / "store.db"
    with closing(apsw.Connection(str(path))) as connection:
        for number, step in enumerate(MIGRATIONS[:5], start=1):
            connection.execute(f"{step}; PRAGMA user_version = {number}")
        connection.execute(
            "INSERT INTO answer VALUES ('home', x'01', x'', 1, ''), ('home', x'02', x'', 1, '');"
            " INSERT INTO answer VALUES ('b', x'03', x'', 1, '');"
            " INSERT INTO queue (tenant, name, mode) VALUES ('home', 'q', 'paused'), ('c', 'q', 'draining');"
            " INSERT INTO secret VALUES ('home', 'q', 'S', x'0102', 1);"
            " INSERT INTO usage (tenant, bytes) VALUES ('home', 2)"
        )
    with closing(open_store(f"sqlite:///{path}")) as store:
        assert taken(store) == kept(store)
        assert set(taken(store)) == {"home", "b", "c"}


def test_its_requests_are_remembered(old: TakenOver):
    assert canonical_hash(REQUEST).hex() == HASH_THEN, "new fields change no old request"
    assert old.driver.reply(JobsEnqueued, REQUEST, request_id=ID).job_ids == ("a", "b", "c")
    old.driver.refused("conflict", EnqueueJob(jobs=REQUEST.jobs[:1]), request_id=ID)
    assert old.driver.queue("other").waiting == 1


def test_its_jobs_are_found_by_metadata_and_owner(old: TakenOver):
    found = old.driver.reply(JobsListed, ListJobs(metadata={"k": "v"})).jobs
    assert {job.id for job in found} == {"a", "running", "released", "expired", "completed", "failed"}
    assert [job.id for job in old.driver.reply(JobsListed, ListJobs(owner="o")).jobs] == ["a"]


def test_what_ran_runs_on(old: TakenOver):
    driver, lease = old.driver, old.leases["running"]
    assert driver.apply().next_due_ms == START_MS + VISIBILITY_MS
    driver.resume()
    request = msgspec.structs.replace(driver.dequeue(), token_seed=SEED)
    assert driver.reply(JobsLeased, request, request_id=LEASE_ID).leases[0].task_token == lease.task_token
    assert driver.verdict(lease) is Verdict.KEPT
    published = driver.reply(JobEventsPublished, PublishJobEvents(batches=(batch(lease, 0, "x"),)))
    assert published.batches[0].code is None
    assert driver.cancel("running") is JobState.RUNNING
    assert driver.verdict(lease) is Verdict.CANCEL
    assert driver.reply(JobCompleted, completion(lease, 1)).state is JobState.COMPLETED


def test_what_ran_is_lost_in_time(old: TakenOver):
    old.driver.pass_ms(VISIBILITY_MS)
    assert old.driver.state("running") is JobState.SCHEDULED


def test_repeats_are_answered_as_they_were(old: TakenOver):
    driver, leases = old.driver, old.leases
    assert driver.reply(JobCompleted, completion(leases["completed"])).state is JobState.COMPLETED
    assert driver.reply(JobCompleted, completion(leases["failed"])).state is JobState.FAILED
    again = driver.outcome(release(leases["released"]))
    assert (again.reply, again.appended) == (JobReleasedReply(), ())
    driver.refused("stale-token", completion(leases["released"]))
    driver.refused("stale-token", completion(leases["expired"]))
    driver.refused("stale-token", release(leases["completed"]))


def test_what_waits_is_leased_in_its_old_order_and_its_lost_agents_count(old: TakenOver):
    driver = old.driver
    leases = driver.lease("default", "other", slots=9)
    assert [(lease.job_id, lease.attempt) for lease in leases] == [
        ("a", 1),
        ("c", 1),
        ("released", 2),
        ("expired", 2),
        ("b", 1),
    ]
    driver.pass_ms(VISIBILITY_MS)
    assert driver.job("expired").result == Result(reason=Reason.AGENT_LOST)
    assert driver.state("released") is JobState.SCHEDULED


def test_what_has_ended_is_retried_and_removed(old: TakenOver):
    driver = old.driver
    (job_id,) = driver.reply(JobsEnqueued, RetryJob(job_id="failed")).job_ids
    assert driver.job(job_id).origin == "failed"
    while driver.retain(finished_before_ms=START_MS + 1).more:
        pass
    left = {job.id for job in driver.reply(JobsListed, ListJobs()).jobs}
    assert left == {"a", "b", "c", "released", "expired", "running", job_id}
    found = driver.reply(JobsListed, ListJobs(metadata={"k": "v"})).jobs
    assert {job.id for job in found} == left - {"b", "c"}


def test_the_needs_of_an_older_file_are_counted(tmp_path: Path):
    """As many kinds wait and run as may; of what has ended none counts."""
    path = tmp_path / "store.db"
    with closing(apsw.Connection(str(path))) as connection:
        for number, step in enumerate(MIGRATIONS[:5], start=1):
            connection.execute(f"{step}; PRAGMA user_version = {number}")
        states = ["SCHEDULED"] * (NEEDS_MAX - 1) + ["RUNNING", "COMPLETED", "CANCELLED"]
        for number, state in enumerate(states):
            connection.execute(
                "INSERT INTO job (job_id, tenant, queue, state, owner, spec, watch_key, submitted_ms, needs)"
                " VALUES (?, 'home', 'default', ?, '', ?, ?, ?, ?)",
                (f"old-{number}", state, encode_spec(JobSpec(command="n")), bytes(32), START_MS, f"n={number}"),
            )
    with closing(open_store(f"sqlite:///{path}")) as store:
        driver = Driver(store)
        driver.enqueue(JobSpec(command="n", require={"n": "7"}))
        more = EnqueueJob(jobs=(JobSpec(command="n", require={"n": "more"}),))
        driver.refused("bad-request", more)
        driver.cancel("old-1")
        driver.reply(JobsEnqueued, more)


def test_a_job_of_an_older_file_may_have_more_metadata_than_is_taken_now(tmp_path: Path):
    path = tmp_path / "store.db"
    spec = JobSpec(command="x", metadata={f"{number}": "" for number in range(METADATA_MAX + 1)})
    with closing(apsw.Connection(str(path))) as connection:
        VersionOne(connection).enqueue(ID, bytes(32), {"old": spec})
    with closing(open_store(f"sqlite:///{path}")) as store:
        driver = Driver(store)
        driver.draw(8)
        assert driver.job("old").spec == spec
        assert driver.lease_one().spec == spec
