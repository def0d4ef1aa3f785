"""Fetching of a cache: reads the blobs of a version from the broker, several at a time, and writes its files."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from airunner.agent.caches.manifest import Entry, Manifest, decoded
from airunner.agent.caches.writing import Writer
from airunner.agent.workspace.jobuser import JobUser
from airunner.agent.workspace.workspace import Offload
from airunner.protocol.blobs import Blob, BlobId, Slice, unpacked
from airunner.protocol.errors import Forged
from airunner.protocol.replies import BlobsGot
from airunner.protocol.requests import GetBlob

Get = Callable[[GetBlob], Awaitable[BlobsGot]]
GETS_MAX: Final = 4  # requests of one cache at a time
_IDS_MAX: Final = 8  # of one request: a reply has some 2 MiB
_Parts = dict[int, list[tuple[Entry, int, int, int]]]  # by number of the blob: file, where in it, offset, length


async def manifest_of(index: Sequence[Slice], get: Get, offload: Offload) -> Manifest:
    """Read the manifest whose slices are `index`. Raises `Forged`; `PeerError`: the broker refuses."""
    content = bytearray()
    waiting = deque(index)
    while waiting:
        for blob in await _got([BlobId(part.blob) for part in waiting][:_IDS_MAX], get):
            part = waiting.popleft()
            content += unpacked(blob)[part.offset : part.offset + part.length]
    return await offload(lambda: decoded(bytes(content)))


async def fetch(manifest: Manifest, folder: Path, user: JobUser | None, get: Get, offload: Offload) -> None:
    """Write the files of a version into `folder`, which is empty.

    Raises, in a group: `PeerError`: the broker refuses; `Forged`: it has other content; `OSError`.
    """
    writer = Writer(folder, user)
    parts: _Parts = defaultdict(list)

    def begin() -> None:
        for entry in manifest.entries:
            at = 0
            for number, offset, length in entry.triples:
                parts[number].append((entry, at, offset, length))
                at += length
        writer.begin(manifest.entries)

    await offload(begin)
    waiting = deque(sorted(parts))

    async def fetch_some() -> None:
        while waiting:
            numbers = [waiting.popleft() for _ in range(min(_IDS_MAX, len(waiting)))]
            while numbers:
                blobs = await _got([BlobId(manifest.blobs[number]) for number in numbers], get)
                done, numbers = numbers[: len(blobs)], numbers[len(blobs) :]
                await offload(partial(_write, writer, zip(done, blobs, strict=True), parts))

    async with anyio.create_task_group() as group:
        for _ in range(GETS_MAX):
            group.start_soon(fetch_some)
    await offload(lambda: writer.finish(manifest.entries))


async def _got(ids: Sequence[BlobId], get: Get) -> Sequence[Blob]:
    """Get the first of some blobs, at least one. Raises `Forged`, `PeerError`."""
    blobs = (await get(GetBlob(ids=tuple(ids)))).blobs
    if not blobs or [blob.id for blob in blobs] != list(ids[: len(blobs)]):
        raise Forged("another piece of the cache came than was asked for")
    return blobs


def _write(writer: Writer, numbered: Iterable[tuple[int, Blob]], parts: _Parts) -> None:
    for number, blob in numbered:
        piece = memoryview(unpacked(blob))
        for entry, at, offset, length in parts[number]:
            if offset + length > len(piece):
                raise Forged("a piece of the cache is shorter than its manifest says")
            writer.write(entry, at, piece[offset : offset + length])
