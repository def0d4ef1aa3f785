"""Manifest of a cache: its files, and of which slices of blobs each consists. Pure.

A manifest is itself stored as blobs, and names all others that a version of the cache needs. Small files share pieces.
When files change, the pieces of the others stay as they are; a piece of which little is in use is packed again, and
small ones once there are many.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from airunner.protocol.blobs import PIECE_BYTES_MAX, BlobId, Slice, WireId
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import Forged

FILES_MAX: Final = 500_000  # files, folders and links of one cache
DIGEST_BYTES: Final = 16
ONE_PART: Final = 3  # numbers of the parts of a file that has one
SMALL_MAX: Final = 8  # small pieces of a version: with more they are packed again into large ones
_USED_MIN: Final = PIECE_BYTES_MAX // 2  # bytes of a piece that is not small
_KINDS: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """Entry of a manifest: a file, folder or link below the path number `place` of its cache; the empty path is this.

    `mode` has its type too. `parts` has three numbers for each slice: which blob, offset, length. `digest` is that of
    a small file's content, by which it is found again when only its time has changed.
    """

    place: int
    path: bytes
    mode: int
    mtime_ns: int
    size_bytes: int = 0
    parts: tuple[int, ...] = ()
    digest: bytes = b""
    target: bytes = b""

    @property
    def kind(self) -> int:
        """Its type, as `stat.S_IFMT` returns it."""
        return stat.S_IFMT(self.mode)

    @property
    def triples(self) -> Iterator[tuple[int, int, int]]:
        """The numbers of its parts, by slice."""
        return zip(self.parts[::3], self.parts[1::3], self.parts[2::3], strict=True)

    @property
    def state(self) -> tuple[object, ...]:
        """What two versions of it have in common if it has not changed."""
        mtime_ns = 0 if self.kind == stat.S_IFDIR else self.mtime_ns
        return self.place, self.path, self.mode, mtime_ns, self.size_bytes, self.target


class Manifest(Struct, frozen=True):
    """Manifest of a version. `platform`: of which machine; `paths`: of the cache; `blobs`: of its files."""

    key: str
    platform: str
    paths: tuple[str, ...]
    blobs: tuple[WireId, ...]
    entries: tuple[Entry, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size_bytes for entry in self.entries)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Manifest)


def encoded(manifest: Manifest) -> bytes:
    """Encode a manifest."""
    return _encoder.encode(manifest)


def decoded(content: bytes) -> Manifest:
    """Decode and check a manifest. Raises `Forged`: none could have been made so."""
    try:
        manifest = _decoder.decode(content)
    except UNDECODABLE as error:
        raise Forged("the manifest of the cache is broken") from error
    if len(manifest.entries) > FILES_MAX or not all(_is_sound(entry, manifest) for entry in manifest.entries):
        raise Forged("the manifest of the cache is not sound")
    return manifest


def _is_sound(entry: Entry, manifest: Manifest) -> bool:
    names = entry.path.split(b"/") if entry.path else []
    numbers, offsets, lengths = entry.parts[::3], entry.parts[1::3], entry.parts[2::3]
    return (
        0 <= entry.place < len(manifest.paths)
        and entry.kind in _KINDS
        and (bool(names) or entry.kind == stat.S_IFDIR)
        and not any(name in (b"", b".", b"..") or b"\0" in name for name in names)
        and len(numbers) == len(offsets) == len(lengths)
        and all(0 <= number < len(manifest.blobs) for number in numbers)
        and all(0 <= at < at + length <= PIECE_BYTES_MAX for at, length in zip(offsets, lengths, strict=True))
        and sum(lengths) == entry.size_bytes
        and (entry.kind == stat.S_IFREG or not entry.parts)
        and (entry.kind == stat.S_IFLNK) == bool(entry.target)
        and b"\0" not in entry.target
    )


def slices_of(entry: Entry, blobs: Sequence[BlobId]) -> tuple[Slice, ...]:
    """Return the slices that are the content of a file."""
    return tuple(Slice(blobs[number], offset, length) for number, offset, length in entry.triples)


class Known(Struct):
    """Known slices of the files of the last version, by path and time and by content, in blobs that are still good."""

    by_state: dict[tuple[object, ...], Entry]
    by_digest: dict[bytes, Entry]
    blobs: tuple[BlobId, ...]

    @classmethod
    def of(cls, manifest: Manifest | None, bad: frozenset[BlobId] = frozenset()) -> Known:
        """Look at the last version; what needs a `bad` blob is not known."""
        if manifest is None:
            return cls({}, {}, ())
        blobs = tuple(map(BlobId, manifest.blobs))
        entries = [entry for entry in manifest.entries if bad.isdisjoint(blobs[number] for number in entry.parts[::3])]
        digests = {entry.digest: entry for entry in entries if entry.digest}
        return cls({entry.state: entry for entry in entries}, digests, blobs)

    def slices(self, entry: Entry) -> tuple[Slice, ...]:
        """Return the slices of a known entry."""
        return slices_of(entry, self.blobs)


def thin(manifest: Manifest, kept: Iterable[Entry]) -> frozenset[BlobId]:
    """Return the blobs to pack again: those of which the files that are `kept` use little; small ones, if many are."""
    used, extent = Counter[int](), Counter[int]()
    for entry in kept:
        for number, _, length in entry.triples:
            used[number] += length
    for entry in manifest.entries:
        for number, offset, length in entry.triples:
            extent[number] = max(extent[number], offset + length)
    found = {number for number in extent if used[number] * 2 < extent[number]}
    shared = {entry.parts[0] for entry in manifest.entries if len(entry.parts) == ONE_PART}
    small = {number for number in shared - found if extent[number] < _USED_MIN}
    if len(small) > SMALL_MAX:
        found |= small
    return frozenset(BlobId(manifest.blobs[number]) for number in found)


def made(key: str, platform: str, paths: tuple[str, ...], files: Iterable[tuple[Entry, tuple[Slice, ...]]]) -> Manifest:
    """Make a manifest of files and their slices."""
    numbers: dict[BlobId, int] = {}

    def parts(slices: Sequence[Slice]) -> Iterator[int]:
        for part in slices:
            yield numbers.setdefault(BlobId(part.blob), len(numbers))
            yield part.offset
            yield part.length

    entries = tuple(msgspec.structs.replace(entry, parts=tuple(parts(slices))) for entry, slices in files)
    return Manifest(key, platform, paths, tuple(numbers), entries)
