"""The Blobkeeper behind a Gateway: requests about blobs are answered beside the Ledger, in turns by tenant, bounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from anyio import WouldBlock
from obstore.store import MemoryStore

from airunner.broker.blobs.keeper import TENANT_WAITING_MAX, Blobkeeper, Blobs
from airunner.broker.blobs.objects import StoredObjects
from airunner.broker.blobs.store import BlobStore
from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import Pending, Response
from airunner.broker.lifecycle.commands import BlobRequest, BlobsAsked, TenantRequest
from airunner.protocol.blobs import Blob, packed
from airunner.protocol.errors import Busy, NoBlobs
from airunner.protocol.names import RequestId
from airunner.protocol.replies import BlobsGot, BlobsMissing, BlobsPut, Refused, Reply
from airunner.protocol.requests import EnqueueJob, GetBlob, HaveBlobs, PutBlob
from airunner.protocol.treerequest import EnqueueJobWithTree
from tests.broker.stage import Disk
from tests.protocol.examples import BLOB, LEASE, REQUESTS

OTHER = packed(b"other")


class Stage:
    """A Blobkeeper with two threads that run when the test says so, and what it has answered."""

    def __init__(self) -> None:
        self.threads = [Disk(), Disk()]
        for thread in self.threads:
            thread.slow = True
        self.answered: list[tuple[str, Reply]] = []
        store = BlobStore(StoredObjects(MemoryStore()))
        self.ledger = FairQueue()
        self.keeper = Blobkeeper(Blobs(store, self.threads), self._answer, lambda: 86_400_000, self.ledger)

    def _answer(self, responses: Sequence[Response]) -> None:
        self.answered += [(response.key, cast("Reply", response.reply)) for response in responses]

    def ask(self, tenant: str, name: str, request: BlobRequest) -> None:
        asked = BlobsAsked(request)
        command = TenantRequest(tenant=tenant, request_id=RequestId(bytes(16)), request=request)
        self.keeper.ask(Response(b"peer", command, asked, name), asked)

    def finish(self) -> list[tuple[str, Reply]]:
        """End all that waits; return what was answered since."""
        while any(thread.waiting for thread in self.threads):
            for thread in self.threads:
                if thread.waiting:
                    work, then = thread.waiting.pop(0)
                    work()
                    then(None)
        answered, self.answered = self.answered, []
        return answered


def test_blobs_are_claimed_put_and_got_within_their_tenant() -> None:
    stage = Stage()
    stage.ask("a", "have", HaveBlobs(lease=LEASE, ids=(BLOB.id, OTHER.id)))
    assert stage.finish() == [("have", BlobsMissing(missing=(0, 1)))]
    stage.ask("a", "put", PutBlob(lease=LEASE, blobs=(BLOB,)))
    assert stage.finish() == [("put", BlobsPut())]
    stage.ask("a", "have", HaveBlobs(lease=LEASE, ids=(BLOB.id, OTHER.id)))
    stage.ask("a", "get", GetBlob(ids=(BLOB.id,)))
    assert sorted(stage.finish(), key=str) == [
        ("get", BlobsGot(blobs=(BLOB,))),
        ("have", BlobsMissing(missing=(1,))),
    ]
    stage.ask("b", "have", HaveBlobs(lease=LEASE, ids=(BLOB.id,)))
    stage.ask("b", "get", GetBlob(ids=(BLOB.id,)))
    have, get = sorted(stage.finish(), key=str, reverse=True)
    assert have == ("have", BlobsMissing(missing=(0,)))
    assert get[1].code == "not-found"


def test_a_forged_blob_is_refused() -> None:
    stage = Stage()
    stage.ask("a", "put", PutBlob(lease=LEASE, blobs=(Blob(OTHER.id, BLOB.content),)))
    ((_, reply),) = stage.finish()
    assert reply.code == "forged"


def test_tenants_take_turns_and_one_with_many_requests_is_told_to_wait() -> None:
    stage = Stage()
    for number in range(TENANT_WAITING_MAX + len(stage.threads)):
        stage.ask("many", f"m{number}", GetBlob(ids=(BLOB.id,)))
    with pytest.raises(Busy):
        stage.ask("many", "too many", GetBlob(ids=(BLOB.id,)))
    stage.ask("few", "f", GetBlob(ids=(BLOB.id,)))
    order = [name for name, _ in stage.finish()]
    assert order.index("f") <= 2 * len(stage.threads)
    assert len(order) == 1 + TENANT_WAITING_MAX + len(stage.threads)


def test_a_job_is_submitted_with_its_tree_once_all_of_that_is_there() -> None:
    stage = Stage()
    request = REQUESTS["EnqueueJobWithTree"]
    assert isinstance(request, EnqueueJobWithTree)
    stage.ask("a", "tree", request)
    assert stage.finish() == [("tree", BlobsMissing(missing=(0,)))]
    with pytest.raises(WouldBlock):
        stage.ledger.receive_nowait()
    stage.ask("a", "put", PutBlob(blobs=(BLOB,)))
    stage.ask("b", "other's", request)
    assert sorted(stage.finish(), key=str) == [("other's", BlobsMissing(missing=(0,))), ("put", BlobsPut())]
    stage.ask("a", "tree", request)
    assert stage.finish() == [], "the Ledger answers"
    pending = stage.ledger.receive_nowait()
    assert isinstance(pending, Pending)
    assert (pending.peer, pending.key, pending.command.tenant) == (b"peer", "tree", "a")
    assert pending.command.request == EnqueueJob(jobs=(request.job,))


def test_a_job_with_its_tree_is_refused_while_the_ledger_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    request = REQUESTS["EnqueueJobWithTree"]
    assert isinstance(request, EnqueueJobWithTree)
    stage.ask("a", "put", PutBlob(blobs=(BLOB,)))
    stage.finish()
    monkeypatch.setattr("airunner.broker.fairqueue.REQUESTS_MAX", 0)
    stage.ask("a", "tree", request)
    ((_, reply),) = stage.finish()
    assert isinstance(reply, Refused)
    assert reply.code == "busy"


def test_a_broker_without_a_blob_store_refuses() -> None:
    keeper = Blobkeeper(None, lambda *_: None, int, FairQueue())
    request = GetBlob(ids=(BLOB.id,))
    command = TenantRequest(tenant="t", request_id=RequestId(bytes(16)), request=request)
    with pytest.raises(NoBlobs, match="--blobs"):
        keeper.ask(Response(b"peer", command, BlobsAsked(request)), BlobsAsked(request))
