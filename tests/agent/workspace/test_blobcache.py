"""The agent's cache of blobs: what it has read is not requested again, and nothing that is broken is used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from airunner.agent.launcher.offloading import offload
from airunner.agent.workspace.blobcache import BlobCache, CachedBlobs
from airunner.protocol.blobs import Blob, packed
from airunner.protocol.replies import BlobsGot
from airunner.protocol.requests import GetBlob
from airunner.protocol.requestsize import RequestSize

BLOBS = [packed(os.urandom(1_000) + bytes([number])) for number in range(6)]
SIZE = len(BLOBS[0].content)
IDS = tuple(blob.id for blob in BLOBS)


TENANT = "t"


def cache_in(folder: Path, blobs: int = 100) -> BlobCache:
    return BlobCache(folder, blobs * SIZE)


def file_of(folder: Path, blob: Blob) -> Path:
    (file,) = (file for file in folder.glob("*/*") if file.read_bytes() == blob.content)
    return file


def test_a_blob_is_kept_for_this_agent_and_the_next_one(tmp_path: Path) -> None:
    cache = cache_in(tmp_path / "blobs")
    assert cache.get(TENANT, IDS[0]) is None
    cache.put(TENANT, BLOBS[:2])
    for each in (cache, cache_in(tmp_path / "blobs")):
        assert each.get(TENANT, IDS[0]) == BLOBS[0]
        assert each.missing(TENANT, IDS) == list(IDS[2:])


def test_a_blob_of_another_tenant_is_not_there(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.put(TENANT, BLOBS)
    assert cache.get("u", IDS[0]) is None
    assert cache.missing("u", IDS) == list(IDS)


def test_a_broken_blob_is_as_good_as_none(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.put(TENANT, BLOBS)
    file_of(tmp_path, BLOBS[0]).write_bytes(b"")
    file_of(tmp_path, BLOBS[1]).write_bytes(BLOBS[2].content)
    file_of(tmp_path, BLOBS[3]).unlink()
    assert [cache.get(TENANT, each) for each in (IDS[0], IDS[1], IDS[3])] == [None] * 3
    assert cache.missing(TENANT, IDS) == [IDS[0], IDS[1], IDS[3]]
    cache.put(TENANT, BLOBS)
    assert cache.first(TENANT, IDS) == tuple(BLOBS)


def test_of_more_than_the_bound_the_blobs_go_that_were_not_used_for_the_longest_time(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, 5)
    for second, blob in enumerate(BLOBS[:4]):
        cache.put(TENANT, [blob])
        os.utime(file_of(tmp_path, blob), (second, second))
    assert cache.get(TENANT, IDS[0]) is not None
    again = cache_in(tmp_path, 5)
    again.put(TENANT, BLOBS[4:])
    assert again.missing(TENANT, IDS) == [IDS[1], IDS[2]], "a tenth is removed beyond the bound"
    assert sum(file.stat().st_size for file in tmp_path.glob("*/*")) <= 5 * SIZE


def test_what_a_killed_agent_was_writing_is_removed(tmp_path: Path) -> None:
    torn = tmp_path / ".new-0123"
    torn.write_bytes(b"half")
    cache = cache_in(tmp_path)
    assert cache.missing(TENANT, IDS) == list(IDS)
    assert not torn.exists()


def test_a_disk_that_refuses_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "blobs").touch()
    cache = cache_in(tmp_path / "blobs")
    cache.put(TENANT, BLOBS)
    assert cache.get(TENANT, IDS[0]) is None


class Broker:
    """A broker that has all of these blobs."""

    request_size = RequestSize()

    def __init__(self) -> None:
        self.requested: list[tuple[bytes, ...]] = []

    async def ask(self, request: GetBlob, *, smaller: Callable[[], GetBlob] | None = None) -> BlobsGot:
        assert smaller is not None
        assert smaller() == request, "nothing was lost"
        self.requested.append(request.ids)
        return BlobsGot(blobs=tuple(blob for blob in BLOBS if blob.id in request.ids))


async def test_only_what_the_agent_has_not_seen_is_requested(tmp_path: Path) -> None:
    broker = Broker()
    cache = cache_in(tmp_path)
    cache.put(TENANT, BLOBS[2:3])
    blobs = CachedBlobs(cache, TENANT, broker, offload)
    for _ in range(2):
        got: list[Blob] = []
        while len(got) < len(IDS):
            got += (await blobs.ask(GetBlob(ids=IDS[len(got) :]))).blobs
        assert got == BLOBS
        assert broker.requested == [IDS[:2], IDS[3:]]
