"""Packing of files: cuts them into pieces, which are stored as blobs. Pure.

```
 small files  ┌─a─┬──b──┬─c─┐ ┌──d──┬…      a piece is cut where the next file would not fit whole
 large file   ┌────1 MiB────┐ ┌────1 MiB────┐ ┌─rest─┐
```

The same files make the same pieces each time, so that a second attempt finds there what the first one has stored. A
file is yielded behind its last piece. Few pieces are in memory at a time: those that the reader keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from airunner.protocol.blobs import IDS_MAX, PIECE_BYTES_MAX, BlobId, Slice, blob_id
from airunner.protocol.events import SLICES_MAX

K = TypeVar("K")

_encoder = msgspec.msgpack.Encoder()


class Piece(Struct, frozen=True):
    """Piece of files, and its id."""

    id: BlobId
    content: bytes

    @classmethod
    def of(cls, content: bytes) -> Piece:
        """Make a piece."""
        return cls(blob_id(content), content)


class Packed(Struct, Generic[K], frozen=True):
    """Packed file: the slices that are its content or, if there are too many, the slices of their list (`index`)."""

    key: K
    size_bytes: int = 0
    slices: tuple[Slice, ...] = ()
    index: tuple[Slice, ...] = ()


class Window(Struct, Generic[K], frozen=True):
    """Window of what is packed: pieces, and the files that are stored once these and all earlier pieces are."""

    pieces: list[Piece]
    files: list[Packed[K]]


def pack(
    files: Iterable[tuple[K, Iterator[bytes]]], slices_max: int | None = SLICES_MAX
) -> Iterator[Piece | Packed[K]]:
    """Cut files into pieces. Each comes as its key and its content, in chunks of which only the last may be short.

    `slices_max`: see `Packer`.
    """
    packer = Packer[K](slices_max)
    for key, chunks in files:
        yield from packer.begin(key)
        for chunk in chunks:
            yield from packer.add(chunk)
    yield from packer.finish()


class Packer(Generic[K]):
    """Packer of files that come chunk by chunk: `begin` each file, `add` its chunks, and `finish` behind the last file.

    Each method yields what is packed by then; use up what it yields. A file of more slices than `slices_max` gets an
    index; None: no file does.
    """

    def __init__(self, slices_max: int | None = SLICES_MAX) -> None:
        self._slices_max = slices_max
        self._keys: list[K] = []  # of the file that has begun, if any
        self._small = b""  # its content, if it is less than a piece
        self._slices: list[Slice] = []  # its pieces, if it is larger
        self._shared = bytearray()
        self._members: list[tuple[K, int, int]] = []

    def begin(self, key: K) -> Iterator[Piece | Packed[K]]:
        """Begin a file, which ends the one before."""
        yield from self._end()
        self._keys.append(key)

    def add(self, chunk: bytes) -> Iterator[Piece | Packed[K]]:
        """Add a chunk of a file: `PIECE_BYTES_MAX`, or less at its end."""
        if not self._slices and len(chunk) < PIECE_BYTES_MAX:
            self._small = chunk
        elif chunk:
            piece = Piece.of(chunk)
            self._slices.append(Slice(piece.id, 0, len(chunk)))
            yield piece

    def finish(self) -> Iterator[Piece | Packed[K]]:
        """End the last file."""
        yield from self._end()
        yield from self._share()

    def _end(self) -> Iterator[Piece | Packed[K]]:
        """End a file, if one has begun: it is large, or empty, or a member of a shared piece."""
        while self._keys:
            key = self._keys.pop()
            small, self._small = self._small, b""
            if self._slices:
                slices, self._slices = self._slices, []
                yield from _large(key, slices, self._slices_max)
            elif not small:
                yield Packed(key)
            else:
                if len(self._shared) + len(small) > PIECE_BYTES_MAX:
                    yield from self._share()
                self._members.append((key, len(self._shared), len(small)))
                self._shared += small

    def _share(self) -> Iterator[Piece | Packed[K]]:
        """Cut the piece that small files share, if there are any."""
        if not self._members:
            return
        piece = Piece.of(bytes(self._shared))
        self._shared.clear()
        members, self._members = self._members, []
        yield piece
        for key, offset, length in members:
            yield Packed(key, length, (Slice(piece.id, offset, length),))


def _large(key: K, slices: list[Slice], slices_max: int | None) -> Iterator[Piece | Packed[K]]:
    size_bytes = sum(part.length for part in slices)
    if slices_max is None or len(slices) <= slices_max:
        yield Packed(key, size_bytes, tuple(slices))
        return
    raw = _encoder.encode(slices)
    index: list[Slice] = []
    for start in range(0, len(raw), PIECE_BYTES_MAX):
        piece = Piece.of(raw[start : start + PIECE_BYTES_MAX])
        index.append(Slice(piece.id, 0, len(piece.content)))
        yield piece
    yield Packed(key, size_bytes, (), tuple(index))


def next_window(packed: Iterator[Piece | Packed[K]], bytes_max: int) -> Window[K]:
    """Take what comes next, until its pieces have `bytes_max` bytes or are `IDS_MAX`; an empty window is the end."""
    window = Window[K]([], [])
    size_bytes = 0
    for item in packed:
        if isinstance(item, Piece):
            window.pieces.append(item)
            size_bytes += len(item.content)
        else:
            window.files.append(item)
        if size_bytes >= bytes_max or len(window.pieces) == IDS_MAX:
            break
    return window
