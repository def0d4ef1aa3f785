"""What a commit changes in lists is published to those who listen, numbered, and otherwise nothing is done."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import msgspec
import pytest
from msgspec.structs import replace

from airunner.broker.changefeed import KEY_MS, MESSAGES_MAX, ChangeFeed
from airunner.broker.counts import Counts
from airunner.broker.lifecycle.showing import change_of
from airunner.broker.store.rows import Changes, JobRow, QueueKey
from airunner.broker.watchers import GRANT_MS, Watchers
from airunner.certs.sealed import open_sealed
from airunner.protocol.changes import REMINDER_S, JobChanges
from airunner.protocol.fields import JobSpec
from airunner.protocol.frames import LIVE_BYTES_MAX
from airunner.protocol.job import JobState, encode_spec
from airunner.protocol.names import JobId, WatchKey
from airunner.protocol.replies import QueueMode
from airunner.transport.memory import PEER_KEY, MemoryPublisher, MemorySubscriber
from tests.broker.relaying import heard
from tests.broker.stage import edges
from tests.conformance.driving import Driver


def row(number: int, spec: JobSpec | None = None, queue: str = "q", tenant: str = "t") -> JobRow:
    raw = b"" if spec is None else encode_spec(spec)
    return JobRow(
        number=number,
        job_id=JobId(f"job {number}"),
        tenant=tenant,
        queue=queue,
        needs="",
        gate=0,
        state=JobState.SCHEDULED,
        priority=0,
        owner="",
        watch_key=WatchKey(bytes(32)),
        submitted_ms=number,
        max_attempts=1,
        spec=raw,
    )


class Stage:
    """A feed whose subscribers' keys are its own."""

    def __init__(self, secret: bytes = b"s" * 32) -> None:
        self.socket, self.counts, self.watchers = MemoryPublisher(), Counts(), Watchers()
        self.now_ms = KEY_MS
        self.edges = replace(edges(), wall_ms=lambda: self.now_ms)
        self.parted = False
        self.feed = ChangeFeed(self.socket, self.edges, self.counts, self.watchers, secret, lambda: self.parted)

    def listen(self, queue: str, tenant: str = "t") -> tuple[MemorySubscriber, bytes]:
        """A subscriber of this stream, and its key."""
        [(topic, stream)] = self.feed.watch(tenant, [queue])
        subscriber = self.socket.connect()
        subscriber.subscribe(topic)
        assert self.watchers.add_listener(topic, PEER_KEY)
        return subscriber, stream.watch_key

    def published(self, listener: tuple[MemorySubscriber, bytes]) -> list[JobChanges]:
        subscriber, key = listener
        sealed = [payload for _, payload in heard(subscriber)]
        return [msgspec.msgpack.decode(open_sealed(key, each), type=JobChanges) for each in sealed]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    async with anyio.create_task_group() as group:
        stage.feed.run_in(group)
        yield stage
        group.cancel_scope.cancel()


SPEC = JobSpec(command="make", name="lint", environment={"TOKEN": "hunter22"}, args=("hunter22",), secrets=("TOKEN",))


async def test_a_change_reaches_the_streams_of_its_tenant_and_its_queue_and_no_other(stage: Stage) -> None:
    every, queue = stage.listen(""), stage.listen("q")
    other, stranger = stage.listen("r"), stage.listen("", "u")
    before = row(1, SPEC)
    after = replace(before, state=JobState.RUNNING, attempt=1, agent="build-7", started_ms=9)
    stage.feed.send(Changes(added=[row(2, SPEC)], changed=[(before, after), (before, replace(before, next_index=7))]))
    [message] = stage.published(every)
    assert stage.published(queue) == [message]
    assert [(job.id, job.was, job.state, job.agent) for job in message.jobs] == [
        ("job 2", None, "SCHEDULED", ""),
        ("job 1", "SCHEDULED", "RUNNING", "build-7"),
    ]
    assert {(job.name, "hunter22" in job.command) for job in message.jobs} == {("lint", False)}
    assert (message.jobs[1].waited_ms, message.number) == (8, 1)
    stage.feed.send(Changes(modes={QueueKey("t", "r"): QueueMode.PAUSED}))
    assert [message.modes for message in stage.published(other)] == [{"r": QueueMode.PAUSED}]
    assert [message.number for message in stage.published(every)] == [2]
    assert stage.published(queue) == stage.published(stranger) == []
    stage.feed.send(Changes(added=[row(3, SPEC, tenant="nobody")]))
    assert stage.counts["announced"] == 4, "what nobody listens to is not published"


async def test_what_is_not_loaded_or_too_long_is_left_out_of_a_change(stage: Stage) -> None:
    listener = stage.listen("")
    before = row(1)
    long = JobSpec(command="make", repository="https://example.org/" + "x" * LIVE_BYTES_MAX)
    ended = replace(before, state=JobState.FAILED, result=b"\xc1")
    stage.feed.send(Changes(added=[row(2, long), replace(row(3), spec=b"\xc1")], changed=[(before, ended)]))
    [message] = stage.published(listener)
    assert [(job.command, job.state) for job in message.jobs] == [("", "SCHEDULED"), ("", "SCHEDULED"), ("", "FAILED")]


async def test_of_too_many_changes_some_are_published_and_all_are_counted(stage: Stage) -> None:
    listener = stage.listen("")
    jobs = [row(number) for number in range(1, 1_001)]
    changed = [(job, replace(job, state=JobState.COMPLETED, attempt=1)) for job in jobs[500:]]
    stage.feed.send(Changes(added=jobs[:500], changed=changed))
    messages = stage.published(listener)
    assert [message.number for message in messages] == list(range(1, MESSAGES_MAX + 1))
    assert [message.left_out for message in messages] == [*[False] * (MESSAGES_MAX - 1), True]
    last = messages[-1]
    assert (last.started, last.ended) == (500, 500)
    assert last.submitted + sum(len(message.jobs) for message in messages) == 500


async def test_reminders_repeat_the_last_number_until_nobody_listens(stage: Stage) -> None:
    listener = stage.listen("")
    [(topic, _)] = stage.feed.watch("t", [""])
    stage.feed.send(Changes(added=[row(1)]))
    stage.published(listener)
    await anyio.sleep(REMINDER_S * 2.5)  # virtual
    assert [(reminder.number, reminder.jobs) for reminder in stage.published(listener)] == [(1, ())] * 2
    stage.watchers.remove_listener(topic, PEER_KEY)
    stage.now_ms += GRANT_MS
    await anyio.sleep(REMINDER_S)  # virtual
    stage.feed.send(Changes(added=[row(2)]))
    assert stage.published(listener) == []
    stage.watchers.add_listener(topic, PEER_KEY)
    stage.feed.send(Changes(added=[row(3)]))
    assert [message.number for message in stage.published(listener)] == [1], "it begins again, which is noticed"


async def test_a_broker_that_may_not_hear_of_all_changes_says_so_with_each_reminder() -> None:
    stage = Stage()
    stage.parted = True
    async with anyio.create_task_group() as group:
        stage.feed.run_in(group)
        listener = stage.listen("")
        await anyio.sleep(REMINDER_S * 2.5)  # virtual
        assert [(sent.number, sent.left_out) for sent in stage.published(listener)] == [(1, True), (2, True)]
        stage.parted = False
        await anyio.sleep(REMINDER_S)  # virtual
        assert [reminder.is_reminder for reminder in stage.published(listener)] == [True]
        group.cancel_scope.cancel()


async def test_a_key_is_served_for_one_to_two_periods_by_every_broker_of_the_fleet(stage: Stage) -> None:
    listener = stage.listen("")
    for later_ms, served in ((-KEY_MS, True), (2 * KEY_MS, True), (KEY_MS, False)):
        stage.now_ms += later_ms
        stage.feed.send(Changes(added=[row(1)]))
        assert bool(stage.published(listener)) is served
    first, second, other = (Stage(secret).feed.watch("t", [""]) for secret in (b"s" * 32, b"s" * 32, b""))
    assert first == second != other


def test_what_a_batch_leased_has_its_name_until_the_next_batch(driver: Driver) -> None:
    driver.enqueue(SPEC)
    applied = driver.apply(driver.ask(driver.dequeue()))
    assert applied.changes is not None
    [(before, leased)] = applied.changes.changed
    assert change_of(before, leased, whole=True).name == "lint"
    driver.submit()
    assert leased.spec == b"", "thousands of jobs may run"
