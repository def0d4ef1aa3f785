"""A compressed batch is one whole frame of a stated and bounded size, or it is refused before it is decompressed."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.protocol import compression
from airunner.protocol.compression import BATCH_BYTES_MAX, compressed, content_bytes, decompressed, is_compressed
from airunner.protocol.errors import BadRequest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b"".join(b"[%d] compiling module_%d.c\n" % (n, n % 7) for n in range(1_000))
FRAME = compressed(TEXT)
SKIPPABLE = b"\x50\x2a\x4d\x18\x02\x00\x00\x00ab"


def frame(data: bytes, **options: int) -> bytes:
    """A frame with other options; it states no size with `content_size_flag=0`."""
    chosen: dict[int, int] = {zstd.CompressionParameter[name]: value for name, value in options.items()}
    return zstd.compress(data, options=chosen)


DICTIONARY = zstd.train_dict([b"line %d of a log: %d" % (n, n * n) for n in range(1_000)], 1_000)
REFUSED = {
    "a size above the bound": compressed(bytes(BATCH_BYTES_MAX + 1)),
    "no size": frame(TEXT, content_size_flag=0),
    "a cut frame": FRAME[:-1],
    "only a header": FRAME[:6],
    "only the magic number": compression.MAGIC,
    "bytes behind it": FRAME + b"\x90",
    "a second frame": FRAME + FRAME,
    "a second frame, which is skipped": FRAME + SKIPPABLE,
    "a dictionary": zstd.compress(TEXT, zstd_dict=DICTIONARY),
    "a smaller size than its content": FRAME[:5] + (len(TEXT) - 257).to_bytes(2, "little") + FRAME[7:],
    "a larger size than its content": FRAME[:5] + (len(TEXT) - 255).to_bytes(2, "little") + FRAME[7:],
    "a cut checksum": frame(TEXT, checksum_flag=1)[:-1],
    "a broken checksum": frame(TEXT, checksum_flag=1)[:-1] + b"\x00",
}


@given(st.binary(max_size=3_000))
def test_what_was_compressed_is_decompressed_to_the_same_bytes(raw: bytes) -> None:
    batch = b"\xdc" + raw  # an array
    packed = compressed(batch)
    assert len(packed) <= len(batch)
    assert content_bytes(packed) == len(batch)
    assert decompressed(packed) == batch


def test_what_does_not_shrink_stays_as_it_is() -> None:
    noise = b"\x91" + random.Random(1).randbytes(10_000)
    assert compressed(noise) is noise
    assert not is_compressed(noise)
    assert is_compressed(FRAME)
    assert len(FRAME) < len(TEXT) // 5


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_anything_but_one_whole_frame_of_a_stated_size_is_refused(raw: bytes) -> None:
    assert is_compressed(raw)
    with pytest.raises(BadRequest):
        decompressed(raw)


def test_what_is_too_large_is_refused_before_it_is_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = compressed(bytes(50_000_000))
    assert len(bomb) < 10_000
    monkeypatch.delattr(zstd, "ZstdDecompressor")
    for check in (content_bytes, decompressed):
        with pytest.raises(BadRequest, match="50000000 bytes"):
            check(bomb)


@given(st.data())
def test_a_damaged_frame_is_refused_or_has_the_size_that_it_states(data: st.DataObject) -> None:
    damaged = bytearray(FRAME)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(4, len(FRAME) - 1))] = data.draw(st.integers(0, 255))
    raw = bytes(damaged)
    try:
        content = decompressed(raw)
    except BadRequest:
        return
    assert len(content) == content_bytes(raw) <= BATCH_BYTES_MAX
