"""The laws of keys and tokens that are bound to queues, that every Store keeps."""

from __future__ import annotations

from typing import Final

from airunner.broker.lifecycle.commands import StreamsFound
from airunner.broker.lifecycle.reading import STREAMS_MAX
from airunner.protocol.fields import TerminalSize
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobsListed, QueuesListed, SecretSet, SecretsListed
from airunner.protocol.requests import (
    CancelJob,
    GetJob,
    ListJobs,
    ListQueues,
    ListSecrets,
    ReplayJobEvents,
    RetryJob,
    SearchLog,
    SendInput,
    SetSecret,
    WatchJob,
    WatchTenant,
)
from tests.conformance.driving import Driver

SCOPE: Final = frozenset({"ci", "nightly"})


def jobs_of_other_queues_are_not_there(driver: Driver) -> None:
    (theirs,) = driver.submit(queue="deploy")
    (ours,) = driver.submit(queue="ci")
    for kind in (GetJob, WatchJob, ReplayJobEvents, SearchLog, CancelJob, RetryJob):
        driver.refused("not-found", kind(job_id=theirs), queues=SCOPE)
        assert getattr(driver.outcome(kind(job_id=ours), queues=SCOPE).reply, "code", "") != "not-found", kind
    driver.refused("not-found", SendInput(job_id=theirs, resize=TerminalSize()), queues=SCOPE)
    assert driver.state(theirs) is JobState.SCHEDULED
    assert driver.state(ours) is JobState.CANCELLED
    (ended,) = driver.ended(queue="docs")
    driver.refused("not-found", RetryJob(job_id=ended), queues=SCOPE)


def lists_hold_what_is_in_scope_alone(driver: Driver) -> None:
    mixed = [driver.submit(queue=queue)[0] for queue in ("ci", "deploy", "nightly", "deploy", "ci")]
    ours = [mixed[4], mixed[2], mixed[0]]
    for queue in ("ci", "deploy"):
        driver.reply(SecretSet, SetSecret(queue=queue, name="TOKEN", box=b"box"))
    first = driver.reply(JobsListed, ListJobs(page_size=2), queues=SCOPE)
    second = driver.reply(JobsListed, ListJobs(page_size=2, before=ours[1]), queues=SCOPE)
    assert ([job.id for job in first.jobs], first.more) == (ours[:2], True)
    assert ([job.id for job in second.jobs], second.more) == (ours[2:], False)
    driver.refused("not-found", ListJobs(before=mixed[3]), queues=SCOPE)
    one = driver.reply(JobsListed, ListJobs(queue="ci"), queues=SCOPE)
    assert [job.id for job in one.jobs] == [mixed[4], mixed[0]]
    queues = driver.reply(QueuesListed, ListQueues(), queues=SCOPE)
    assert [queue.queue for queue in queues.queues] == ["ci", "nightly"]
    (one,) = driver.reply(QueuesListed, ListQueues(queue="ci"), queues=SCOPE).queues
    assert (one.queue, one.waiting) == ("ci", 2)
    for queues, named, shown in ((SCOPE, None, ("ci", "nightly")), (None, None, ("",)), (SCOPE, "ci", ("ci",))):
        assert driver.reply(StreamsFound, WatchTenant(queue=named), queues=queues).queues == shown
    driver.refused("forbidden", WatchTenant(), queues=frozenset(map(str, range(STREAMS_MAX + 1))))
    secrets = driver.reply(SecretsListed, ListSecrets(), queues=SCOPE)
    assert [secret.queue for secret in secrets.secrets] == ["ci"]
