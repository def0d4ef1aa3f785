"""What a store takes while its disk has little room: what ends or keeps something, and no more."""

from __future__ import annotations

from airunner.broker.store.room import Room
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.replies import (
    BatchStored,
    JobCancelled,
    JobCompleted,
    JobEventsPublished,
    JobReleasedReply,
    JobsEnqueued,
    JobsLeased,
    JobsUpdated,
    QueueMode,
    QueueUpdated,
    Refused,
    SecretRemoved,
    Verdict,
)
from airunner.protocol.requests import (
    LAST_BYTES_MAX,
    CancelJob,
    EnqueueJob,
    PublishJobEvents,
    RemoveSecret,
    RetryJob,
    SetSecret,
    UpdateJob,
    UpdateQueue,
)
from tests.conformance.driving import VISIBILITY_MS, Driver, batch, completion, release

ID = b"r" * 16


def with_little_room_what_ends_or_keeps_something_is_stored(driver: Driver) -> None:
    driver.submit("renewed", "completed", "released", "cancelled")
    renewed, completed, released, cancelled = driver.lease(slots=4)
    driver.reply(object, SetSecret(queue="default", name="S", box=b"sealed"))
    driver.now_ms += VISIBILITY_MS - 1
    heartbeat = UpdateJob(leases=(renewed.ref, cancelled.ref), visibility_ms=VISIBILITY_MS)
    reply = driver.reply(JobsUpdated, heartbeat, room=Room.ENDING)
    assert {one.verdict for one in reply.leases} == {Verdict.KEPT}
    for request, answer in (
        (completion(completed), JobCompleted(state=JobState.COMPLETED)),
        (release(released), JobReleasedReply()),
        (CancelJob(job_id=cancelled.job_id), JobCancelled(state=JobState.RUNNING)),
        (CancelJob(job_id=released.job_id), JobCancelled(state=JobState.CANCELLED)),
        (UpdateQueue(queue="default", mode=QueueMode.PAUSED), QueueUpdated(queue="default", mode=QueueMode.PAUSED)),
        (RemoveSecret(queue="default", name="S"), SecretRemoved()),
    ):
        assert driver.outcome(request, room=Room.ENDING).reply == answer
    driver.now_ms += 2
    driver.expire()
    assert [driver.state(lease.job_id) for lease in (renewed, cancelled)] == [JobState.RUNNING] * 2


def with_little_room_nothing_new_is_stored_and_a_repeat_is_answered(driver: Driver) -> None:
    enqueue = EnqueueJob(jobs=(JobSpec(command="a"),))
    first = driver.reply(JobsEnqueued, enqueue, request_id=ID)
    dequeue = driver.dequeue()
    granted = driver.reply(JobsLeased, dequeue, request_id=b"d" * 16)
    (done,) = driver.ended("done", queue="other")
    driver.submit("waits")
    driver.refused("no-space", EnqueueJob(jobs=(JobSpec(command="b"),)), room=Room.ENDING)
    driver.refused("no-space", RetryJob(job_id=done), room=Room.ENDING)
    driver.refused("no-space", SetSecret(queue="default", name="S", box=b"sealed"), room=Room.ENDING)
    driver.refused("no-space", UpdateQueue(queue="new", mode=QueueMode.PAUSED), room=Room.ENDING)
    driver.refused("no-space", driver.dequeue(), room=Room.ENDING)
    assert driver.outcome(enqueue, request_id=ID, room=Room.ENDING).reply == first
    assert driver.outcome(dequeue, request_id=b"d" * 16, room=Room.ENDING).reply == granted


def with_little_room_events_wait_and_the_last_few_come_with_their_end(driver: Driver) -> None:
    driver.submit("chatty", "brief", "much")
    chatty, brief, much = driver.lease(slots=3)
    driver.publish(batch(chatty, 0, "stored"))
    large = ("x" * (LAST_BYTES_MAX // 2),) * 2
    request = PublishJobEvents(
        batches=(
            batch(chatty, 1, "more"),
            batch(chatty, 2, "yet more"),
            batch(brief, 0, "all"),
            batch(much, 0, *large),
        ),
        completions=(completion(brief, 1), completion(much, 2)),
    )
    reply = driver.reply(JobEventsPublished, request, room=Room.ENDING)
    assert reply.batches == (
        BatchStored(job_id=chatty.job_id, attempt=1, next_index=1, code="no-space"),
        BatchStored(job_id=chatty.job_id, attempt=1, next_index=1, code="index-gap"),
        BatchStored(job_id=brief.job_id, attempt=1, next_index=1),
        BatchStored(job_id=much.job_id, attempt=1, next_index=0, code="no-space"),
    )
    ended, incomplete = reply.completions
    assert ended == JobCompleted(state=JobState.COMPLETED)
    assert isinstance(incomplete, Refused)
    assert incomplete.code == "incomplete-log"
    assert driver.kinds(brief.job_id)[-2:] == ["OUTPUT", "JOB_FINISHED"]
    again = PublishJobEvents(batches=(batch(much, 0, *large),), completions=(completion(much, 2),))
    assert driver.reply(JobEventsPublished, again).completions == (JobCompleted(state=JobState.COMPLETED),)
    assert driver.kinds(chatty.job_id)[-1] == "OUTPUT"
