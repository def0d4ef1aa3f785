"""Uploads of a client: what a job is given with its submission and is too large for a request goes ahead in blobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

import msgspec
from anyio import to_thread
from blake3 import blake3
from msgspec import Struct

from airunner.client.session import Session
from airunner.protocol.blobs import PIECE_BYTES_MAX, UPLOAD_BYTES, Blob, Slice, TreeBundle, packed
from airunner.protocol.message import Asking, Message
from airunner.protocol.names import RequestId
from airunner.protocol.requests import HaveBlobs, PutBlob

_Reply = TypeVar("_Reply", bound=Message)
WINDOW: Final = 32  # pieces in memory
SMALL_BYTES_MAX: Final = 262_144  # of blobs in one request; a tree of so few waits for the broker to say what it lacks


class PreparedTree(Struct, frozen=True):
    """Tree that can be submitted: `blobs` are the last of its bundle, or all, and may not be uploaded yet."""

    tree: TreeBundle
    blobs: tuple[Blob, ...]


class Ask(Protocol):
    """Ask of a `Session`: sends a request, and returns its reply."""

    async def __call__(self, request: Asking[_Reply], request_id: RequestId | None = None) -> _Reply:
        """Send a request."""
        ...


class Uploading(Session):
    """Uploads: what `Client` does before a submission."""

    async def upload(self, bundle: Path) -> TreeBundle:
        """Upload a Git bundle for the next submission; return what `JobSpec.tree` needs. What is there is not sent.

        It is kept for a day at least, and then as long as a job that was submitted with it. Raises `NoBlobs`: the
        broker keeps no files; `OSError`.
        """
        prepared = await prepare_tree(self._ask, bundle)
        await put_blobs(self._ask, prepared.tree.upload, prepared.blobs)
        return prepared.tree


def ask_of(client: Session) -> Ask:
    """Return what sends requests for commands alone, which are no methods of the client that users have."""
    return client._ask  # noqa: SLF001 - of the same package  # pyright: ignore[reportPrivateUsage]


async def prepare_tree(ask: Ask, bundle: Path) -> PreparedTree:
    """Upload the beginning of a Git bundle, unless it is small; raises what `Uploading.upload` does.

    The same bundle is the same upload each time.
    """
    upload = await to_thread.run_sync(_hashed, bundle)
    slices: list[Slice] = []
    with bundle.open("rb") as file:
        while len(window := await to_thread.run_sync(_read, file)) == WINDOW:
            slices += _slices(window)
            await put_blobs(ask, upload, [blob for blob, _ in window])
    slices += _slices(window)
    index = await to_thread.run_sync(_packed, list(_pieces(msgspec.msgpack.encode(slices))))
    tree = TreeBundle(upload=upload, size_bytes=sum(each.length for each in slices), index=tuple(_slices(index)))
    blobs = [blob for blob, _ in (*window, *index)]
    if sum(len(blob.content) for blob in blobs) > SMALL_BYTES_MAX:
        await put_blobs(ask, upload, blobs)
    return PreparedTree(tree, tuple(blobs))


async def put_blobs(ask: Ask, upload: bytes, blobs: Sequence[Blob], missing: Sequence[int] | None = None) -> None:
    """Put those blobs of an upload that the broker lacks, at these places; None: ask it which these are."""
    if missing is None:
        missing = (await ask(HaveBlobs(upload=upload, ids=tuple(blob.id for blob in blobs)))).missing
    for group in _grouped([blobs[place] for place in missing]):
        await ask(PutBlob(blobs=group))


def _grouped(blobs: Sequence[Blob]) -> Iterator[tuple[Blob, ...]]:
    """Group blobs for requests: small ones go together."""
    group: list[Blob] = []
    for blob in blobs:
        if group and sum(len(each.content) for each in (*group, blob)) > SMALL_BYTES_MAX:
            yield tuple(group)
            group = []
        group.append(blob)
    if group:
        yield tuple(group)


def _hashed(bundle: Path) -> bytes:
    return blake3().update_mmap(bundle).digest()[:UPLOAD_BYTES]


def _read(file: BinaryIO) -> list[tuple[Blob, int]]:
    return _packed([file.read(PIECE_BYTES_MAX) for _ in range(WINDOW)])


def _slices(window: Sequence[tuple[Blob, int]]) -> list[Slice]:
    return [Slice(blob.id, 0, length) for blob, length in window]


def _packed(pieces: Sequence[bytes]) -> list[tuple[Blob, int]]:
    return [(packed(piece), len(piece)) for piece in pieces if piece]


def _pieces(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), PIECE_BYTES_MAX):
        yield content[at : at + PIECE_BYTES_MAX]
