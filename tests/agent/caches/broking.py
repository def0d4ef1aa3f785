"""A broker of caches in memory, for tests of what agents send to one and write of what one has."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airunner.agent.artifacts.uploading import Uplink, Upload
from airunner.agent.caches.manifest import Manifest
from airunner.agent.caches.saving import Source, save
from airunner.agent.caches.scanning import scan
from airunner.protocol.blobs import Blob, BlobId, Slice
from airunner.protocol.replies import BlobsGot, BlobsMissing, BlobsPut
from airunner.protocol.requests import GetBlob, HaveBlobs, PutBlob
from airunner.protocol.requestsize import RequestSize
from tests.agent.playing import inline
from tests.broker.stage import LEASE

LATER_NS = 1 << 62  # after every change
GOT_MAX = 3  # blobs in a reply


class Broker:
    """Blobs, and the last version that was put; it is a channel to itself."""

    def __init__(self) -> None:
        self.request_size = RequestSize()
        self.blobs: dict[BlobId, Blob] = {}
        self.claimed: set[bytes] = set()
        self.asked: list[str] = []  # the kinds of requests
        self.put: list[tuple[tuple[Slice, ...], bytes, int]] = []

    async def ask(self, request: HaveBlobs | PutBlob, smaller: object = None) -> Any:
        del smaller
        self.asked.append(type(request).__name__)
        if isinstance(request, PutBlob):
            self.blobs |= {BlobId(blob.id): blob for blob in request.blobs}
            return BlobsPut()
        self.claimed |= set(request.ids)
        return BlobsMissing(missing=tuple(at for at, one in enumerate(request.ids) if one not in self.blobs))

    async def get(self, request: GetBlob) -> BlobsGot:
        return BlobsGot(blobs=tuple(self.blobs[BlobId(one)] for one in request.ids[:GOT_MAX]))

    async def putting(self, index: tuple[Slice, ...], ids: bytes, size_bytes: int) -> None:
        blobs = [*(ids[at : at + 32] for at in range(0, len(ids), 32)), *(part.blob for part in index)]
        assert self.claimed.issuperset(blobs), "a version needs only what its job has claimed"
        assert self.blobs.keys() >= set(blobs), "and what is stored"
        assert len(set(blobs)) == len(blobs)
        self.put.append((index, ids, size_bytes))

    async def save(
        self, folder: Path, paths: Sequence[str], last: Manifest | None = None, began_ns: int = LATER_NS, key: str = "a"
    ) -> tuple[Manifest | None, int]:
        """Save a version, in a job of its own; return its manifest, and how many bytes were sent."""
        self.claimed = set()
        uplink = Uplink(self, inline, float)  # type: ignore[arg-type] - all of a channel that it needs
        upload = Upload(uplink, LEASE, print)
        source = Source(folder, scan(folder, len(paths)), key, tuple(paths), last, began_ns)
        return await save(source, uplink, upload, self.putting), upload.sent_bytes


def looks(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that is in a folder, by path: mode, time, and content or target."""
    found: dict[str, tuple[object, ...]] = {}
    for place in [folder, *folder.rglob("*")]:
        status = place.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = place.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = place.readlink()
        found[str(place.relative_to(folder))] = (oct(status.st_mode), status.st_mtime_ns, content)
    return found
