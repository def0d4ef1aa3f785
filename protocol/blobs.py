"""Blobs: pieces of files, named by the BLAKE3 hash of their content, and compressed as one zstd frame each.

```
 files ──► pieces (≤ 1 MiB) ──► id = BLAKE3(piece), blob = zstd(piece) ──HaveBlobs, PutBlob──► broker
           a file is a list of slices: (id, offset, length) of pieces ◄──GetBlob──
```

Small files share a piece, and a large file has many. A blob belongs to a tenant: the same content of two tenants is
stored twice, so that neither can find out what the other has. A reader of a blob checks that its content has its id.

Source of the hash: J. O'Connor et al., "BLAKE3: one function, fast everywhere", https://github.com/BLAKE3-team/BLAKE3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, NewType

from blake3 import blake3
from msgspec import Meta, Struct

from airunner.protocol.compression import decompressed_frame, frame_of
from airunner.protocol.errors import BadRequest, Forged
from airunner.protocol.names import JobName, Natural
from airunner.protocol.plainframe import plain_blocks

BlobId = NewType("BlobId", bytes)
"""BLAKE3 hash of a piece, 32 bytes."""

ID_BYTES: Final = 32
PIECE_BYTES_MAX: Final = 1_048_576  # of a piece
BLOB_BYTES_MAX: Final = PIECE_BYTES_MAX + 4_096  # of a compressed piece: zstd adds 3 bytes to each 128 KiB at most
IDS_MAX: Final = 1_024  # ids in one request
REQUEST_BYTES_MAX: Final = 2_031_616  # blobs in a PutBlob, or in a reply to a GetBlob: with their ids they fit a body

UPLOAD_BYTES: Final = 16
TREE_REF: Final = "refs/heads/airunner-tree"  # of the commit in a bundle
TREE_INDEX_MAX: Final = 8  # slices of a bundle's index: of some 180,000 slices, 180 GB
SAVE_SLICES_MAX: Final = 64  # slices of a list of files: pieces of 1 MiB
UploadId = Annotated[bytes, Meta(min_length=UPLOAD_BYTES, max_length=UPLOAD_BYTES)]
"""Id of an upload, which follows from its content: what a client has put for a job that it is about to submit."""

WireId = Annotated[bytes, Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
Content = Annotated[bytes, Meta(min_length=1, max_length=BLOB_BYTES_MAX)]


class Blob(Struct, frozen=True, array_like=True, gc=False):
    """Blob: a compressed piece, and its id."""

    id: WireId
    content: Content


class Slice(Struct, frozen=True, array_like=True, gc=False):
    """Slice of a piece: `length` bytes from `offset` on."""

    blob: WireId
    offset: Natural
    length: Natural


class TreeBundle(Struct, frozen=True, kw_only=True):
    """Tree that was uploaded for a job: a Git bundle of its commit, of which the remote may have the beginning.

    `index` has the MessagePack array of the slices that the bundle is.
    """

    upload: UploadId
    size_bytes: Natural
    index: Annotated[tuple[Slice, ...], Meta(min_length=1, max_length=TREE_INDEX_MAX)]


class SavedWorkspace(Struct, frozen=True, kw_only=True):
    """Saved workspace of the job `job_id`, in which another one begins: the slices are its list of files, see KEPT."""

    job_id: JobName
    slices: Annotated[tuple[Slice, ...], Meta(min_length=1, max_length=SAVE_SLICES_MAX)]


def blob_id(piece: bytes) -> BlobId:
    """Hash a piece."""
    return BlobId(blake3(piece).digest())


def packed(piece: bytes, known: BlobId | None = None) -> Blob:
    """Compress a piece to the blob that is sent and stored; `known`: its hash, if the caller has it."""
    assert len(piece) <= PIECE_BYTES_MAX
    return Blob(known or blob_id(piece), frame_of(piece))


def unpacked(blob: Blob) -> bytes:
    """Decompress a blob to its piece. Raises `Forged`: it is broken, or has other content than its id says."""
    return b"".join(checked(blob))


def checked(blob: Blob) -> Sequence[bytes | memoryview]:
    """Check a blob, and return its piece in parts: of what does not compress, no copy is made. Raises as `unpacked`."""
    parts: Sequence[bytes | memoryview] = plain_blocks(blob.content, PIECE_BYTES_MAX)
    try:
        parts = parts or [decompressed_frame(blob.content, PIECE_BYTES_MAX)]
    except BadRequest as error:
        raise Forged(f"blob {blob.id.hex()[:16]}… is broken: {error.message}") from error
    hashed = blake3()
    for part in parts:
        hashed.update(part)
    if hashed.digest() != blob.id:
        raise Forged(f"blob {blob.id.hex()[:16]}… has other content than its id says")
    return parts
