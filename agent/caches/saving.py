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
from airunner.agent.artifacts.uploading import Uplink, Upload
from airunner.agent.caches.manifest import DIGEST_BYTES, Entry, Known, Manifest, encoded, made, thin
from airunner.agent.caches.scanning import Folders, Scan
from airunner.protocol.blobs import IDS_MAX, PIECE_BYTES_MAX, BlobId, Slice
from airunner.protocol.caches import CACHE_IDS_MAX, INDEX_MAX

PLATFORM: Final = f"{platform.system()} {platform.machine()}"
Put = Callable[[tuple[Slice, ...], bytes, int], Awaitable[object]]


class TooLarge(Exception):
    """More blobs than a version may have; the message says so."""


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
    offload = uplink.offload
    kept = await offload(source.kept)
    last = source.last
    if last is not None and last.key == source.key and len(kept) == len(last.entries) == len(source.scan.entries):
        return None
    bad = frozenset[BlobId]()
    if last is not None:
        same = await offload(lambda: source.same(kept))
        bad = thin(last, [*kept, *same])
        good = [BlobId(blob) for blob in last.blobs if blob not in bad]
        for start in range(0, len(good), IDS_MAX):
            some = good[start : start + IDS_MAX]
            bad |= {some[place] for place in await upload.claim(tuple(some))}
    version = _Version(source, {entry.state for entry in kept}, Known.of(last, bad))
    with Folders(source.folder) as folders:
        await Flow(uplink, pack(version.read(folders)), upload, version.note).run()
    manifest = await offload(version.manifest)
    content = await offload(lambda: encoded(manifest))
    pieces = [Piece.of(content[at : at + PIECE_BYTES_MAX]) for at in range(0, len(content), PIECE_BYTES_MAX)]
    if len(pieces) > INDEX_MAX or len(manifest.blobs) > CACHE_IDS_MAX:
        raise TooLarge(f"it has more than {CACHE_IDS_MAX:,} pieces: cache less, or split it into several")
    await upload.store(pieces)
    await put(
        tuple(Slice(piece.id, 0, len(piece.content)) for piece in pieces), b"".join(manifest.blobs), manifest.size_bytes
    )
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
