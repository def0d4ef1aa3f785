"""A plain frame is a zstd frame of just its content, and nothing else is taken for one."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.protocol.blobs import PIECE_BYTES_MAX, Blob, blob_id, checked, packed, unpacked
from airunner.protocol.errors import Forged
from airunner.protocol.plainframe import BLOCK_BYTES, plain_blocks, plain_frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NOISE = random.Random(1).randbytes(PIECE_BYTES_MAX + 1)
SIZES = (1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, PIECE_BYTES_MAX)
CONTENT = NOISE[: BLOCK_BYTES + 5]
FRAME = plain_frame(CONTENT)
HEADERS = (*range(12), *range(9 + 3 + BLOCK_BYTES, 9 + 3 + BLOCK_BYTES + 3))  # all of the frame that is not content


@pytest.mark.parametrize("size_bytes", SIZES)
def test_zstd_reads_a_plain_frame_and_it_is_read_without_zstd(size_bytes: int) -> None:
    content = NOISE[:size_bytes]
    frame = plain_frame(content)
    assert zstd.get_frame_info(frame).decompressed_size == size_bytes
    assert zstd.decompress(frame) == content
    assert b"".join(plain_blocks(frame, size_bytes)) == content
    assert not plain_blocks(frame, size_bytes - 1), "it has more than is allowed"


@given(st.sampled_from(HEADERS), st.integers(1, 255))
def test_a_frame_with_another_header_is_left_to_zstd(place: int, change: int) -> None:
    damaged = bytearray(FRAME)
    damaged[place] ^= change
    assert not plain_blocks(bytes(damaged), PIECE_BYTES_MAX)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        FRAME[:-1],
        FRAME[:9],
        FRAME + b"\0",
        FRAME + FRAME,
        zstd.compress(CONTENT, options={zstd.CompressionParameter.checksum_flag: 1}),
        zstd.compress(bytes(9), 1),
        FRAME[:5] + bytes(4),
        FRAME[:5] + bytes(4) + b"\1\0\0",
    ],
)
def test_what_is_not_just_one_plain_frame_is_left_to_zstd(frame: bytes) -> None:
    assert not plain_blocks(frame, PIECE_BYTES_MAX)


def test_a_piece_that_does_not_compress_is_a_plain_frame_and_is_checked_as_any_other() -> None:
    piece = NOISE[:PIECE_BYTES_MAX]
    blob = packed(piece)
    assert blob.content == plain_frame(piece)
    assert unpacked(blob) == piece
    with pytest.raises(Forged, match="other content"):
        checked(Blob(blob.id, plain_frame(NOISE[1:])))
    with pytest.raises(Forged, match="broken: 1048577 bytes"):
        checked(Blob(blob_id(NOISE), plain_frame(NOISE)))


@pytest.mark.parametrize(
    "piece", [b"", b"small" * 9, b"a line of text\n" * 60_000, NOISE[:BLOCK_BYTES] + bytes(900_000)]
)
def test_a_piece_that_compresses_is_compressed(piece: bytes) -> None:
    blob = packed(piece)
    assert not plain_blocks(blob.content, PIECE_BYTES_MAX)
    assert len(blob.content) <= max(20, len(piece) // 4)
    assert unpacked(blob) == piece
