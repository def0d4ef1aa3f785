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
from itertools import chain
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


def pack(files: Iterable[tuple[K, Iterator[bytes]]]) -> Iterator[Piece | Packed[K]]:
    """Cut files into pieces. Each comes as its key and its content, in chunks of which only the last may be short."""
    shared = bytearray()
    members: list[tuple[K, int, int]] = []
    for key, chunks in files:
        first = next(chunks, b"")
        if len(first) == PIECE_BYTES_MAX:
            yield from _large(key, chain([first], chunks))
        elif not first:
            yield Packed(key)
        else:
            if len(shared) + len(first) > PIECE_BYTES_MAX:
                yield from _shared(bytes(shared), members)
                shared.clear()
                members.clear()
            members.append((key, len(shared), len(first)))
            shared += first
    if members:
        yield from _shared(bytes(shared), members)


def _shared(content: bytes, members: Iterable[tuple[K, int, int]]) -> Iterator[Piece | Packed[K]]:
    piece = Piece.of(content)
    yield piece
    for key, offset, length in members:
        yield Packed(key, length, (Slice(piece.id, offset, length),))


def _large(key: K, chunks: Iterator[bytes]) -> Iterator[Piece | Packed[K]]:
    slices: list[Slice] = []
    for piece in map(Piece.of, chunks):
        slices.append(Slice(piece.id, 0, len(piece.content)))
        yield piece
    size_bytes = sum(part.length for part in slices)
    if len(slices) <= SLICES_MAX:
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
