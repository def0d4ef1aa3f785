"""Blobkeeper: answers requests about blobs, in threads beside the Ledger: no other request waits for a blob.

Each thread answers one request at a time; waiting tenants take turns. A request that finds too many waiting is refused
with `busy`, and its sender repeats it: so memory is bounded, and a blob store that is away stops nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, assert_never

from anyio import WouldBlock
from anyio.abc import TaskGroup
from msgspec.structs import replace

from airunner.broker.blobs.cacheanswers import answer_about_caches
from airunner.broker.blobs.store import BlobStore
from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import Pending, Response
from airunner.broker.lifecycle.commands import BlobsAsked
from airunner.broker.offload import Offload, Stepper, Steps
from airunner.broker.tenantturns import TenantTurns
from airunner.protocol.cacherequests import GetCache, ListCaches, PutCache, RemoveCaches
from airunner.protocol.coding import refusal
from airunner.protocol.errors import BadRequest, Busy, NoBlobs, PeerError
from airunner.protocol.job import encode_spec
from airunner.protocol.names import RequestId
from airunner.protocol.replies import BlobsGot, BlobsMissing, BlobsPut, JobsEnqueued, Reply
from airunner.protocol.requests import EnqueueJob, EnqueueJobWithStdin, GetBlob, HaveBlobs, PutBlob, RetryJob
from airunner.protocol.treerequest import EnqueueJobWithTree
from airunner.transport.heap import keep_freed_memory

DAY_MS: Final = 86_400_000
TENANT_WAITING_MAX: Final = 32  # requests of one tenant that wait
WAITING_BYTES_MAX: Final = 67_108_864  # bytes of blobs of all waiting requests
NONE_MISSING: Final = BlobsMissing(missing=())


class Blobs(NamedTuple):
    """Blob store of a broker, and the threads in which it is used."""

    store: BlobStore
    offloads: Sequence[Offload]


class Blobkeeper:
    """Blobkeeper of `blobs`; None: every request is refused. `answer` gets the response of each.

    A job whose tree is all there is submitted to the `ledger`, which answers then.
    """

    def __init__(
        self,
        blobs: Blobs | None,
        answer: Callable[[Sequence[Response]], None],
        wall_ms: Callable[[], int],
        ledger: FairQueue,
    ) -> None:
        self._blobs = blobs
        self._ledger = ledger
        self._wall_ms = wall_ms
        self._answer = answer
        self._waiting = TenantTurns[tuple[Response, BlobsAsked]](TENANT_WAITING_MAX, WAITING_BYTES_MAX)
        self._lanes = [] if blobs is None else [Stepper(self._steps(), offload) for offload in blobs.offloads]

    @property
    def has_store(self) -> bool:
        """Whether there is a blob store."""
        return self._blobs is not None

    def run_in(self, group: TaskGroup) -> None:
        """Start its lanes, one for each thread."""
        for lane in self._lanes:
            group.start_soon(lane.run, name="Blobkeeper")

    def ask(self, response: Response, asked: BlobsAsked) -> None:
        """Answer a request in a thread. Raises `Busy`: too many wait; `NoBlobs`: there is no blob store."""
        if self._blobs is None:
            raise NoBlobs
        keep_freed_memory()
        request = asked.request
        size_bytes = len(request.ids) if isinstance(request, PutCache) else 0
        if isinstance(request, PutBlob):
            size_bytes = sum(len(blob.content) for blob in request.blobs)
        self._waiting.put(response.command.tenant, (response, asked), size_bytes)
        for lane in self._lanes:
            lane.go_on()

    def _steps(self) -> Steps[None]:
        while True:
            while self._waiting:
                response, asked = self._waiting.take()
                replies: list[Reply] = []
                yield partial(self._reply, response, asked, replies)
                self._finish(replace(response, reply=replies[0]))
            yield None

    def _finish(self, response: Response) -> None:
        """Answer a request, or have the Ledger answer it."""
        request = response.command.request
        if isinstance(request, EnqueueJobWithTree) and response.reply == NONE_MISSING:
            command = replace(response.command, request=EnqueueJob(jobs=request.jobs))
            try:
                size_bytes = len(encode_spec(request.job))
                self._ledger.send_nowait(Pending(response.peer, command, response.key, size_bytes, response.revision))
            except WouldBlock:
                response = replace(response, reply=refusal(Busy()))
            else:
                self._ledger.wake()
                return
        self._answer([response])

    def _reply(self, response: Response, asked: BlobsAsked, replies: list[Reply]) -> None:
        try:
            replies.append(self._done(response, asked))
        except PeerError as error:
            replies.append(refusal(error))

    def _done(self, response: Response, asked: BlobsAsked) -> Reply:
        assert self._blobs is not None, "a request was taken without a blob store"
        store, tenant = self._blobs.store, response.command.tenant
        match asked.request:
            case EnqueueJobWithTree(job=job, ids=ids):
                assert job.tree is not None, "the request was decoded without its check"
                return BlobsMissing(missing=store.claim_upload(tenant, job.tree.upload, self._today(), ids))
            case HaveBlobs() as have:
                return BlobsMissing(missing=self._claim(store, tenant, response.command.request_id, have))
            case PutBlob(blobs=blobs):
                store.put(tenant, blobs)
                return BlobsPut()
            case GetBlob(ids=ids):
                return BlobsGot(blobs=store.get(tenant, ids))
            case EnqueueJob(jobs=jobs) | EnqueueJobWithStdin(jobs=jobs):
                assert isinstance(asked.reply, JobsEnqueued), "no jobs were enqueued"
                for job_id, job in zip(asked.reply.job_ids, jobs, strict=True):
                    if job.continues is not None:
                        store.inherit_all(tenant, job.continues.job_id, job_id)
                    if job.tree is not None:
                        store.hand_over(tenant, job.tree.upload, job_id)
                return asked.reply
            case RetryJob(job_id=origin):
                assert isinstance(asked.reply, JobsEnqueued), "no job was enqueued"
                store.inherit(tenant, origin, asked.reply.job_ids[0])
                return asked.reply
            case GetCache() | PutCache() | ListCaches() | RemoveCaches():
                return answer_about_caches(store.caches, response.command, asked, self._wall_ms())
            case _:
                assert_never(asked.request)

    def _claim(self, store: BlobStore, tenant: str, request_id: RequestId, have: HaveBlobs) -> tuple[int, ...]:
        """Claim blobs. Raises `BadRequest`: neither for a lease nor for an upload."""
        if have.lease is not None:
            return store.claim(tenant, have.lease.job_id, request_id, have.ids)
        if have.upload is None:
            raise BadRequest("HaveBlobs needs a lease or an upload")
        return store.claim_upload(tenant, have.upload, self._today(), have.ids)

    def _today(self) -> int:
        return self._wall_ms() // DAY_MS
