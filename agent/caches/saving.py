"""Saving of a cache: sends what the broker lacks of a version, then the version itself.

Files that have not changed since the last version keep their slices: those with the same time and size that were not
touched since the job has got them, and small ones with the same content. So a cache that has grown a little is sent in
a little time, and one that has not changed is not sent.
"""

from __future__ import annotations

import platform
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from blake3 import blake3
from msgspec import Struct
from msgspec.structs import replace

from airunner.agent.artifacts.flow import Flow
from airunner.agent.artifacts.packing import Packed, Piece, pack
from airunner.agent.artifacts.uploading import WINDOW_BYTES, Uplink, Upload
from airunner.agent.caches.manifest import DIGEST_BYTES, Entry, Known, Manifest, encoded, made, thin
from airunner.agent.caches.scanning import Folders, Scan
from airunner.protocol.blobs import IDS_MAX, PIECE_BYTES_MAX, BlobId, Slice
from airunner.protocol.caches import CACHE_IDS_MAX, INDEX_MAX

PLATFORM: Final = f"{platform.system()} {platform.machine()}"
ALSO_MAX: Final = IDS_MAX - 256  # blobs of the last version that are claimed in one request with new ones
Put = Callable[[tuple[Slice, ...], bytes, int], Awaitable[object]]


class TooLarge(Exception):
    """More blobs than a version may have; the message says so."""


class _Lost(Exception):
    """Blobs of the last version that the broker lacks."""

    def __init__(self, ids: set[BlobId]) -> None:
        super().__init__()
        self.ids = ids


class Source(Struct):
    """Source of a version: the folder and its scan, key and paths of the cache, and the last version, if any.

    `began_ns`: when the job has got the folders.
    """

    folder: Path
    scan: Scan
    key: str
    paths: tuple[str, ...]
    last: Manifest | None
    began_ns: int

    def kept(self) -> list[Entry]:
        """Return the entries of the last version that have not changed."""
        if self.last is None:
            return []
        known = Known.of(self.last).by_state
        found = zip(self.scan.entries, self.scan.changed_ns, strict=True)
        kept = ((known.get(entry.state), entry, changed_ns) for entry, changed_ns in found)
        return [
            last
            for last, entry, changed_ns in kept
            if last is not None and (entry.kind != stat.S_IFREG or changed_ns < self.began_ns)
        ]

    def same(self, kept: Sequence[Entry]) -> list[Entry]:
        """Return the small entries of the last version that are not `kept`, and have the content that they had."""
        if self.last is None:
            return []
        sized = {(last.place, last.path, last.size_bytes): last for last in self.last.entries if last.digest}
        for entry in kept:
            sized.pop((entry.place, entry.path, entry.size_bytes), None)
        found: list[Entry] = []
        with Folders(self.folder) as folders:
            for entry in self.scan.entries:
                last = sized.get((entry.place, entry.path, entry.size_bytes))
                if last is not None:
                    content = next(folders.chunks(entry), b"")
                    found += [last] if blake3(content).digest(DIGEST_BYTES) == last.digest else []
        return found


async def save(source: Source, uplink: Uplink, upload: Upload, put: Put) -> Manifest | None:
    """Save a version, and return its manifest; None: it is the last one.

    Raises, alone or in a group: `TooLarge`; `OSError`; `PeerError`: the broker refuses; `LeaseEnded`.
    """
    kept = await uplink.offload(source.kept)
    last = source.last
    if last is None:
        return await _save(source, uplink, upload, put, set(), Known.of(None), ())
    if last.key == source.key and len(kept) == len(last.entries) == len(source.scan.entries):
        return None
    states = {entry.state for entry in kept}
    bad = thin(last, [*kept, *await uplink.offload(lambda: source.same(kept))])
    good = [BlobId(blob) for blob in last.blobs if blob not in bad]
    if len(good) <= ALSO_MAX:
        try:
            return await _save(source, uplink, upload, put, states, Known.of(last, bad), good)
        except _Lost as lost:
            bad |= lost.ids
            good = [blob for blob in good if blob not in lost.ids]
    for start in range(0, len(good), IDS_MAX):
        some = good[start : start + IDS_MAX]
        bad |= {some[place] for place in await upload.claim(tuple(some))}
    return await _save(source, uplink, upload, put, states, Known.of(last, bad), ())


async def _save(
    source: Source,
    uplink: Uplink,
    upload: Upload,
    put: Put,
    kept: set[tuple[object, ...]],
    known: Known,
    also: Sequence[BlobId],
) -> Manifest:
    """Send what is not `known`, then the manifest. Raises as `save`; `_Lost`: the broker lacks some of `also`."""
    offload = uplink.offload
    version = _Version(source, kept, known)
    pieces: list[Piece] = []
    with Folders(source.folder) as folders:
        packed = pack(version.read(folders))
        if version.size_bytes <= WINDOW_BYTES:  # all is sent at once: each request takes longer than so little reading
            async with uplink.turns:
                for item in await offload(lambda: list(packed)):
                    if isinstance(item, Piece):
                        pieces.append(item)
                    else:
                        await version.note(item)
                return await _put(version, uplink, upload, put, pieces, also)
        await Flow(uplink, packed, upload, version.note).run()
    return await _put(version, uplink, upload, put, pieces, also)


async def _put(
    version: _Version, uplink: Uplink, upload: Upload, put: Put, pieces: list[Piece], also: Sequence[BlobId]
) -> Manifest:
    """Send the last pieces and the manifest. Raises as `_save`."""
    manifest = await uplink.offload(version.manifest)
    content = await uplink.offload(lambda: encoded(manifest))
    index = [Piece.of(content[at : at + PIECE_BYTES_MAX]) for at in range(0, len(content), PIECE_BYTES_MAX)]
    if len(index) > INDEX_MAX or len(manifest.blobs) > CACHE_IDS_MAX:
        raise TooLarge(f"it has more than {CACHE_IDS_MAX:,} pieces: cache less, or split it into several")
    if lost := await upload.store([*pieces, *index], also):
        raise _Lost(lost)
    slices = tuple(Slice(piece.id, 0, len(piece.content)) for piece in index)
    await put(slices, b"".join(manifest.blobs), manifest.size_bytes)
    return manifest


class _Version:
    """Version that is being read: the slices of its files so far."""

    def __init__(self, source: Source, kept: set[tuple[object, ...]], known: Known) -> None:
        self._source = source
        self._kept = kept
        self._known = known
        self._entries = list(source.scan.entries)
        self._slices: list[tuple[Slice, ...]] = [()] * len(self._entries)

    def read(self, folders: Folders) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Yield each chunk that has to be stored, with the number of its file."""
        for number, entry in enumerate(self._entries):
            if not entry.size_bytes:
                continue
            last = self._known.by_state.get(entry.state) if entry.state in self._kept else None
            if last is None:
                read = folders.chunks(entry)
                first = next(read, b"")
                if len(first) < PIECE_BYTES_MAX:
                    digest = blake3(first).digest(DIGEST_BYTES)
                    self._entries[number] = replace(entry, digest=digest)
                    last = self._known.by_digest.get(digest)
                if last is None:
                    for chunk in chain([first], read):
                        yield number, iter((chunk,))
                    continue
            self._entries[number] = replace(self._entries[number], digest=last.digest)
            self._slices[number] = self._known.slices(last)

    @property
    def size_bytes(self) -> int:
        """Bytes of the files that are read."""
        here = self._kept & self._known.by_state.keys()
        return sum(entry.size_bytes for entry in self._entries if entry.state not in here)

    async def note(self, packed: Packed[int]) -> None:
        """Note the slices of a chunk that is stored."""
        self._slices[packed.key] += packed.slices

    def manifest(self) -> Manifest:
        """Make the manifest of what was read."""
        entries = [
            replace(entry, size_bytes=sum(part.length for part in slices))
            for entry, slices in zip(self._entries, self._slices, strict=True)
        ]
        return made(self._source.key, PLATFORM, self._source.paths, zip(entries, self._slices, strict=True))
