"""One example of every message and every event: what encoding, decoding and the documents are held to."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from airunner.protocol import cacherequests, events, replies, requests, treerequest
from airunner.protocol.blobs import Slice, TreeBundle, packed
from airunner.protocol.bounds import DEPTH_MAX
from airunner.protocol.caches import Cache, CacheEntry, CacheSummary, SaveWhen
from airunner.protocol.fields import JobSpec, TerminalSize
from airunner.protocol.job import Job, JobState, JobSummary, Reason, Result, Usage
from airunner.protocol.jobretry import RetryOn, RetryPolicy
from airunner.protocol.logsearch import LogLine, SearchPlace, UnfinishedLine
from airunner.protocol.message import LeaseRef
from airunner.protocol.names import JobId, task_token
from airunner.protocol.replies import QueueMode, QueueSummary

NOW_MS: Final = 1_767_225_600_000
JOB_ID: Final = JobId("019b7765-6400-7000-8000-000000000001")
SEED: Final = bytes(range(32))
TOKEN: Final = task_token(SEED, JOB_ID, 1)
BLOB: Final = packed(b"3 pieces")
LEASE: Final = LeaseRef(job_id=JOB_ID, attempt=1, task_token=TOKEN)
SPEC: Final = JobSpec(
    command="sh",
    args=("-c", "make test"),
    timeout_seconds=600,
    environment={"DEBUG": "1"},
    metadata={"build": "42"},
    repository="https://example.org/project.git",
    branch="main",
    owner="ada",
    priority=-5,
    not_before_ms=NOW_MS + 60_000,
    max_attempts=5,
    retry=RetryPolicy(limit=2, backoff_ms=500, on=RetryOn(exit_codes=(75,), signals=(9,))),
    require={"os": "linux"},
    secrets=("DEBUG",),
    secret_files=("DEPLOY_KEY",),
    terminal=TerminalSize(cols=120, rows=40),
    depth=1,
    submodules=True,
    caches=(
        Cache(
            name="go",
            paths=("~/.cache/go-build",),
            key=("**/go.sum",),
            label="release",
            restore=False,
            save=SaveWhen.ALWAYS,
        ),
    ),
)

USAGE: Final = Usage(
    stdout_bytes=3,
    stderr_bytes=4,
    events=5,
    cpu_user_ms=600,
    cpu_system_ms=70,
    memory_peak_bytes=1_048_576,
    read_bytes=512,
    written_bytes=1_024,
    checkout_ms=900,
)

EVENTS: Final[dict[str, events.EventBody]] = {
    "JOB_UNBLOCKED": events.JobUnblocked(timestamp_ms=NOW_MS),
    "JOB_SCHEDULED": events.JobScheduled(timestamp_ms=NOW_MS, queue="default", not_before_ms=NOW_MS + 1_000, retry=1),
    "JOB_LEASED": events.JobLeased(timestamp_ms=NOW_MS, agent="agent-1"),
    "JOB_RELEASED": events.JobReleased(timestamp_ms=NOW_MS),
    "JOB_EXPIRED": events.JobExpired(timestamp_ms=NOW_MS),
    "JOB_CANCEL_REQUESTED": events.JobCancelRequested(timestamp_ms=NOW_MS),
    "JOB_FINISHED": events.JobFinished(timestamp_ms=NOW_MS, state=JobState.COMPLETED, exit_code=0),
    "GIT_CLONE_START": events.GitCloneStart(timestamp_ms=NOW_MS, repository=SPEC.repository, branch="main"),
    "GIT_CLONE_PROGRESS": events.GitCloneProgress(timestamp_ms=NOW_MS, message="Receiving objects: 42% (420/1000)"),
    "GIT_CLONE_END": events.GitCloneEnd(timestamp_ms=NOW_MS, commit="c0ffee" * 6 + "c0ff", duration_ms=900),
    "GIT_CLONE_ERROR": events.GitCloneError(timestamp_ms=NOW_MS, message="fatal: not found", exit_code=128),
    "PROCESS_START": events.ProcessStart(timestamp_ms=NOW_MS, pid=4_711, started_at=NOW_MS),
    "OUTPUT": events.Output(timestamp_ms=NOW_MS, stream=events.Stream.STDOUT, data=b"not UTF-8: \xff\n"),
    "PROCESS_END": events.ProcessEnd(timestamp_ms=NOW_MS, pid=4_711, exit_code=0, duration_ms=1_200, usage=USAGE),
    "PROCESS_ERROR": events.ProcessError(timestamp_ms=NOW_MS, message="sh: not found"),
    "HEARTBEAT": events.Heartbeat(timestamp_ms=NOW_MS, elapsed_ms=30_000, processes=2, memory_bytes=1_048_576),
    "TERMINAL_RESIZE": events.TerminalResize(timestamp_ms=NOW_MS, cols=80, rows=24),
    "OUTPUT_TRUNCATED": events.OutputTruncated(timestamp_ms=NOW_MS, omitted_bytes=1_048_576),
    "ARTIFACT": events.Artifact(
        timestamp_ms=NOW_MS, path="dist/app.tar", size_bytes=5, slices=(Slice(BLOB.id, 0, 3), Slice(BLOB.id, 7, 2))
    ),
    "RETURNED": events.Returned(
        timestamp_ms=NOW_MS, base="a" * 40, commit="b" * 40, files=2, size_bytes=5, slices=(Slice(BLOB.id, 0, 5),)
    ),
    "KEPT": events.Kept(timestamp_ms=NOW_MS, files=3, size_bytes=4_096, slices=(Slice(BLOB.id, 0, 210),)),
    "LOG_SIGNED": events.LogSigned(
        timestamp_ms=NOW_MS,
        index=2,
        tags=bytes(range(8)),
        head=bytes(32),
        result=Result(exit_code=3, reason=Reason.EXIT_CODE),
        signer=bytes(32),
        signature=bytes(64),
    ),
}

_BATCH: Final = requests.EventBatch(
    lease=LEASE, first_index=0, count=1, events=events.encode_bodies([events.Heartbeat(timestamp_ms=NOW_MS)])
)
_COMPLETION: Final = requests.CompleteJob(lease=LEASE, event_count=1, result=Result(exit_code=0))

HIT: Final = LogLine(
    line=7,
    sequence=5,
    offset=20,
    attempt=1,
    stream=events.Stream.STDERR,
    timestamp_ms=NOW_MS,
    data=b"error: \xff\n",
    size_bytes=9,
    match=False,
)
PLACE: Final = SearchPlace(
    sequence=6,
    offset=40,
    lines=8,
    attempt=1,
    unfinished=(
        UnfinishedLine(stream=events.Stream.STDOUT, sequence=6, offset=38, attempt=1, timestamp_ms=NOW_MS, data=b"be"),
    ),
    before=(HIT,),
    after=1,
)

TREE: Final = TreeBundle(upload=bytes(16), size_bytes=8, index=(Slice(BLOB.id, 0, 8),))

REQUESTS: Final[dict[str, requests.Request]] = {
    "Ping": requests.Ping(),
    "EnqueueJob": requests.EnqueueJob(jobs=(SPEC,)),
    "EnqueueJobWithStdin": requests.EnqueueJobWithStdin(job=replace(SPEC, stdin_bytes=7), stdin=b"exit 3\n"),
    "EnqueueJobWithTree": treerequest.EnqueueJobWithTree(job=replace(SPEC, commit="0" * 40, tree=TREE), ids=(BLOB.id,)),
    "DequeueJob": requests.DequeueJob(
        agent="agent-1",
        queues=("default",),
        slots=2,
        visibility_ms=300_000,
        wait_ms=30_000,
        token_seed=SEED,
        stdin=True,
        knows=("artifacts", "tree"),
    ),
    "UpdateJob": requests.UpdateJob(leases=(LEASE,), visibility_ms=300_000),
    "PublishJobEvents": requests.PublishJobEvents(batches=(_BATCH,), completions=(_COMPLETION,)),
    "CompleteJob": _COMPLETION,
    "ReleaseJob": requests.ReleaseJob(lease=LEASE),
    "ReadJobStdin": requests.ReadJobStdin(lease=LEASE, offset=5, bytes_max=2),
    "GetJobStdin": requests.GetJobStdin(job_id=JOB_ID, offset=5, bytes_max=2),
    "HaveBlobs": requests.HaveBlobs(lease=LEASE, ids=(BLOB.id,)),
    "PutBlob": requests.PutBlob(lease=LEASE, blobs=(BLOB,)),
    "GetBlob": requests.GetBlob(ids=(BLOB.id,)),
    "GetCache": cacherequests.GetCache(lease=LEASE, label="default", name="go", key="0a1b"),
    "PutCache": cacherequests.PutCache(
        lease=LEASE, label="default", name="go", key="0a1b", size_bytes=8, index=(Slice(BLOB.id, 0, 8),), ids=BLOB.id
    ),
    "ListCaches": cacherequests.ListCaches(queue="default", after=("default", "default", "go", "0a1b")),
    "RemoveCaches": cacherequests.RemoveCaches(queue="default", label="default", name="go", key="0a"),
    "SendInput": requests.SendInput(job_id=JOB_ID, resize=TerminalSize(cols=120, rows=40)),
    "CancelJob": requests.CancelJob(job_id=JOB_ID),
    "RetryJob": requests.RetryJob(job_id=JOB_ID),
    "UpdateQueue": requests.UpdateQueue(queue="default", mode=QueueMode.PAUSED),
    "SetSecret": requests.SetSecret(queue="default", name="API_TOKEN", box=bytes(range(96))),
    "RemoveSecret": requests.RemoveSecret(queue="default", name="API_TOKEN"),
    "ListSecrets": requests.ListSecrets(queue="default", after=("default", "API_KEY")),
    "ListQueues": requests.ListQueues(after="builds", queue="default", tags={"os": "linux"}),
    "ListAgents": requests.ListAgents(),
    "ListBrokers": requests.ListBrokers(),
    "ListJobs": requests.ListJobs(
        queue="default", state=JobState.RUNNING, owner="ada", metadata={"build": "42"}, page=2, page_size=50, count=True
    ),
    "GetJob": requests.GetJob(job_id=JOB_ID),
    "ReplayJobEvents": requests.ReplayJobEvents(
        job_id=JOB_ID, from_sequence=5, bytes_max=65_536, kinds=("PROCESS_END",), watch=True
    ),
    "SearchLog": requests.SearchLog(
        job_id=JOB_ID, pattern="^error", regex=True, ignore_case=True, context=2, from_line=3, limit=50, place=PLACE
    ),
    "WatchJob": requests.WatchJob(job_id=JOB_ID),
    "WatchTenant": requests.WatchTenant(queue="default"),
}

REPLIES: Final[dict[str, replies.Reply]] = {
    "Pong": replies.Pong(revisions=(2, 3)),
    "JobsEnqueued": replies.JobsEnqueued(job_ids=(JOB_ID,)),
    "JobsLeased": replies.JobsLeased(
        leases=(
            replies.JobLease(
                job_id=JOB_ID,
                attempt=1,
                task_token=TOKEN,
                visibility_ms=300_000,
                spec=SPEC,
                sealed={"DEPLOY_KEY": bytes(range(96))},
                workspace_key=bytes(range(16)),
            ),
        )
    ),
    "JobsUpdated": replies.JobsUpdated(
        leases=(replies.LeaseVerdict(job_id=JOB_ID, attempt=1, verdict=replies.Verdict.KEPT),)
    ),
    "JobEventsPublished": replies.JobEventsPublished(
        batches=(
            replies.BatchStored(job_id=JOB_ID, attempt=1, next_index=1),
            replies.BatchStored(job_id=JOB_ID, attempt=1, next_index=1, code="index-gap"),
        ),
        completions=(replies.JobCompleted(state=JobState.COMPLETED), replies.Refused(code="stale-token", message="")),
    ),
    "JobCompleted": replies.JobCompleted(state=JobState.COMPLETED),
    "JobReleased": replies.JobReleasedReply(),
    "BlobsMissing": replies.BlobsMissing(missing=(0,)),
    "BlobsPut": replies.BlobsPut(),
    "BlobsGot": replies.BlobsGot(blobs=(BLOB,)),
    "CacheFound": replies.CacheFound(
        entry=CacheEntry(key="0a1b", job_id=JOB_ID, saved_ms=NOW_MS, size_bytes=8, index=(Slice(BLOB.id, 0, 8),))
    ),
    "CachePut": replies.CachePut(),
    "CachesListed": replies.CachesListed(
        caches=(
            CacheSummary(
                queue="default",
                label="default",
                name="go",
                key="0a1b",
                job_id=JOB_ID,
                saved_ms=NOW_MS,
                used_ms=NOW_MS,
                size_bytes=8,
            ),
        ),
        more=True,
    ),
    "CachesRemoved": replies.CachesRemoved(count=2),
    "JobStdinRead": replies.JobStdinRead(data=b"3\n"),
    "InputSent": replies.InputSent(state=JobState.RUNNING),
    "JobCancelled": replies.JobCancelled(state=JobState.RUNNING),
    "QueueUpdated": replies.QueueUpdated(queue="default", mode=QueueMode.PAUSED),
    "SecretSet": replies.SecretSet(),
    "SecretRemoved": replies.SecretRemoved(),
    "SecretsListed": replies.SecretsListed(
        secrets=(replies.SecretSummary(queue="default", name="API_TOKEN", set_ms=NOW_MS),), more=True
    ),
    "QueuesListed": replies.QueuesListed(
        queues=(QueueSummary(queue="default", mode=QueueMode.OPEN, waiting=3, running=1, oldest_ms=NOW_MS, suitable=2),)
    ),
    "AgentsListed": replies.AgentsListed(
        agents=(replies.AgentSummary(name="agent-1", slots=2, leases=1, seen_ms=NOW_MS, version="0.1.0"),), more=True
    ),
    "BrokersListed": replies.BrokersListed(
        brokers=(
            replies.BrokerSummary(
                id="0f3a5c7e9b1d",
                endpoint="tcp://b1:7070",
                leases=3,
                version="0.1.0",
                asked=True,
                still_ms=420,
                missed=0,
            ),
        )
    ),
    "Nudge": replies.Nudge(),
    "JobsListed": replies.JobsListed(
        jobs=(
            JobSummary(id=JOB_ID, state=JobState.RUNNING, queue="default", command="sh -c true", submitted_ms=NOW_MS),
        ),
        more=False,
        total=10_000,
        beyond=True,
    ),
    "JobFound": replies.JobFound(
        job=Job(
            id=JOB_ID,
            state=JobState.FAILED,
            spec=SPEC,
            submitted_ms=NOW_MS,
            attempt=1,
            last_sequence=9,
            agent="agent-1",
            started_ms=NOW_MS,
            finished_ms=NOW_MS + 1,
            result=Result(exit_code=7, reason=Reason.EXIT_CODE, usage=USAGE),
            waited_ms=5,
        )
    ),
    "JobEventsReplayed": replies.JobEventsReplayed(
        runs=(events.EventSegment(first_sequence=3, count=1, attempt=1, events=_BATCH.events),),
        next_sequence=4,
        last_sequence=3,
        finished=False,
        watched=(_WATCHED := replies.JobWatched(watch_key=bytes(32), events_port=7_071)),
    ),
    "LogSearched": replies.LogSearched(hits=(HIT,), place=PLACE, lines=8, finished=True, end=PLACE),
    "JobWatched": _WATCHED,
    "TenantWatched": replies.TenantWatched(
        streams=(replies.ChangeStream(queue="default", watch_key=bytes(32)),), events_port=7_071, valid_ms=3_600_000
    ),
    "Refused": replies.Refused(code="index-gap", message="Events are missing before this batch.", expected_index=4),
}

_KNOWN: Final = (
    b"\x83\xa4type\xa8ListJobs\xa1p\xd9\x50" + b"p" * 80 + b"\xa1x"
)  # longer than a Ping; a value comes next
BEYOND_BOUNDS: Final[dict[str, bytes]] = {  # requests whose unknown field only the walk over their structure sees
    "nesting": _KNOWN + b"\x91" * DEPTH_MAX + b"\xc0",
    "values in one array or map": _KNOWN + b"\xdc\xff\xff" + b"\xc0" * 65_535,
    "values in all": _KNOWN + b"\x92" + 2 * (b"\xdc\x5f\xff" + b"\xc0" * 0x5FFF),
    "an ext type": _KNOWN + b"\xd4\x01\x00",
    "a timestamp": _KNOWN + b"\xd6\xff" + bytes(4),
}
