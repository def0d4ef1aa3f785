"""Compression of event batches: a batch is its MessagePack array as it is, or one zstd frame (RFC 8878) of that array.

The first bytes tell which: no array begins with a frame's magic number, which in MessagePack is the number 40. The
agent compresses a batch once; spool, store and messages carry the same bytes, and the last reader decompresses them.

A frame is decompressed only after its header was checked. It has to state the size of its content, within
`BATCH_BYTES_MAX`, and nothing may follow it: no second frame, and none to be skipped. So memory is bounded before it is
allocated.
"""

from __future__ import annotations

import sys
from typing import Final, cast

from airunner.protocol.errors import BadRequest
from airunner.protocol.plainframe import BLOCK_BYTES, plain_frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BATCH_BYTES_MAX: Final = 524_288  # of an encoded batch, before it is compressed
LEVEL: Final = 1  # the fastest: 1.5 GB/s or more of a build log, where level 3 takes twice as long for 10 % less
MAGIC: Final = b"\x28\xb5\x2f\xfd"
PROBED_BYTES: Final = 2_048  # of each block, which show whether it is worth while to compress all of it
SHRUNK_SHARE: Final = 0.97  # of their size to which they have to shrink

_compressor = zstd.ZstdCompressor(level=LEVEL)
# one call makes a whole frame, in any thread


def is_compressed(raw: bytes) -> bool:
    """Return whether a batch is compressed, by its first bytes."""
    return raw.startswith(MAGIC)


def compressed(raw: bytes) -> bytes:
    """Compress a batch; one that would not shrink, such as random bytes, is returned as it is."""
    frame = _compressor.compress(raw, zstd.ZstdCompressor.FLUSH_FRAME)
    return frame if len(frame) < len(raw) else raw


def frame_of(raw: bytes) -> bytes:
    """Compress bytes to one frame, or make a plain one of them if they hardly shrink; any thread may."""
    return zstd.compress(raw, LEVEL) if _shrinks(raw) else plain_frame(raw)


def _shrinks(raw: bytes) -> bool:
    """Return whether bytes are few, or shrink as far as the beginnings of their blocks show."""
    if len(raw) < BLOCK_BYTES:
        return True
    probe = b"".join([raw[at : at + PROBED_BYTES] for at in range(0, len(raw), BLOCK_BYTES)])
    return len(compressed(probe)) < SHRUNK_SHARE * len(probe)


def content_bytes(raw: bytes) -> int:
    """Return the size of a batch when decompressed, as its header states it, without decompressing anything.

    Raises `BadRequest`: the header of a frame is broken, or states no size or one above `BATCH_BYTES_MAX`.
    """
    return _stated_bytes(raw, BATCH_BYTES_MAX) if is_compressed(raw) else len(raw)


def _stated_bytes(frame: bytes, bytes_max: int) -> int:
    try:
        header = zstd.get_frame_info(frame)
    except zstd.ZstdError as error:
        raise BadRequest("broken zstd frame") from error
    stated = cast("int | None", header.decompressed_size)  # None is not in the library's types
    if stated is None:
        raise BadRequest("zstd frame without the size of its content")
    if stated > bytes_max:
        raise BadRequest(f"{stated} bytes in a zstd frame, at most {bytes_max} are allowed")
    return stated


def decompressed(raw: bytes) -> bytes:
    """Decompress a batch that is compressed, and return any other as it is. Raises `BadRequest`, as for a frame."""
    return decompressed_frame(raw, BATCH_BYTES_MAX) if is_compressed(raw) else raw


def decompressed_frame(frame: bytes, bytes_max: int) -> bytes:
    """Decompress a frame.

    Raises `BadRequest`: it is not exactly one whole frame, has another size than its header states or one above
    `bytes_max`, or needs a dictionary.
    """
    size_bytes = _stated_bytes(frame, bytes_max)
    decompressor = zstd.ZstdDecompressor()
    try:
        content = decompressor.decompress(frame, size_bytes + 1)
    except zstd.ZstdError as error:
        raise BadRequest("broken zstd frame") from error
    if not decompressor.eof or decompressor.unused_data:
        raise BadRequest("not one whole zstd frame")
    return content
