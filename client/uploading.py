"""Uploads of a client: what a job is given with its submission and is too large for a request goes ahead in blobs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from anyio import to_thread

from airunner.client.session import Session
from airunner.protocol.blobs import PIECE_BYTES_MAX, UPLOAD_BYTES, Blob, Slice, TreeBundle, packed
from airunner.protocol.requests import HaveBlobs, PutBlob

WINDOW: Final = 32  # pieces in memory


class Uploading(Session):
    """Uploads: what `Client` does before a submission."""

    async def upload(self, bundle: Path) -> TreeBundle:
        """Upload a Git bundle for the next submission; return what `JobSpec.tree` needs. What is there is not sent.

        It is kept for a day at least, and then as long as a job that was submitted with it. Raises `NoBlobs`: the
        broker keeps no files; `OSError`.
        """
        upload = os.urandom(UPLOAD_BYTES)
        slices: list[Slice] = []
        with bundle.open("rb") as file:
            while len(window := await to_thread.run_sync(_read, file)) == WINDOW:
                slices += await self._put(upload, window)
        number = len(window)
        pieces = _pieces(msgspec.msgpack.encode([*slices, *_slices(window)]))
        window += await to_thread.run_sync(_packed, list(pieces))  # one request for both: most trees are small
        last = await self._put(upload, window)
        size_bytes = sum(piece.length for piece in (*slices, *last[:number]))
        return TreeBundle(upload=upload, size_bytes=size_bytes, index=tuple(last[number:]))

    async def _put(self, upload: bytes, window: Sequence[tuple[Blob, int]]) -> list[Slice]:
        """Put those blobs of a window that the broker does not have; return their slices."""
        have = await self._ask(HaveBlobs(upload=upload, ids=tuple(blob.id for blob, _ in window)))
        for place in have.missing:
            await self._ask(PutBlob(blobs=(window[place][0],)))
        return _slices(window)


def _read(file: BinaryIO) -> list[tuple[Blob, int]]:
    return _packed([file.read(PIECE_BYTES_MAX) for _ in range(WINDOW)])


def _slices(window: Sequence[tuple[Blob, int]]) -> list[Slice]:
    return [Slice(blob.id, 0, length) for blob, length in window]


def _packed(pieces: Sequence[bytes]) -> list[tuple[Blob, int]]:
    return [(packed(piece), len(piece)) for piece in pieces if piece]


def _pieces(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), PIECE_BYTES_MAX):
        yield content[at : at + PIECE_BYTES_MAX]
