"""Plain frames: zstd frames (RFC 8878) whose blocks have their content as it is, for bytes that do not compress. Pure.

```
 magic │ A0: one segment, size in 4 bytes │ size │ header │ 128 KiB │ header │ 128 KiB │ … │ header │ the rest
```

Any zstd reads them. Archives, images and programs that are packed already are most of what jobs leave: zstd looks at
all of their bytes before it makes a frame like this, and copies them twice, as it does when it reads one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

BLOCK_BYTES: Final = 131_072  # of each block but the last: the most that the format allows
_BEGIN: Final = b"\x28\xb5\x2f\xfd\xa0"
_SIZE_BYTES: Final = 4
_CONTENT: Final = len(_BEGIN) + _SIZE_BYTES  # where the first block begins
_HEADER_BYTES: Final = 3


def plain_frame(content: bytes) -> bytes:
    """Make a plain frame of some content, which is not empty."""
    whole, size_bytes = memoryview(content), len(content)
    parts: list[bytes | memoryview] = [_BEGIN, size_bytes.to_bytes(_SIZE_BYTES, "little")]
    for at, header in _headers(size_bytes):
        parts += (header, whole[at : at + BLOCK_BYTES])
    return b"".join(parts)


def plain_blocks(frame: bytes, bytes_max: int) -> Sequence[memoryview]:
    """Return the content of a frame in its blocks, if `plain_frame` makes it of `bytes_max` or less; otherwise none."""
    size_bytes = int.from_bytes(frame[len(_BEGIN) : _CONTENT], "little")
    count = -(-size_bytes // BLOCK_BYTES)
    whole_bytes = _CONTENT + size_bytes + _HEADER_BYTES * count
    if not frame.startswith(_BEGIN) or size_bytes > bytes_max or len(frame) != whole_bytes:
        return ()
    whole = memoryview(frame)
    blocks: list[memoryview] = []
    place = _CONTENT
    for _, header in _headers(size_bytes):
        begin = place + _HEADER_BYTES
        if frame[place:begin] != header:
            return ()
        place = begin + BLOCK_BYTES
        blocks.append(whole[begin:place])
    return blocks


def _headers(size_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield where in the content each block begins, and its header: its size, kind 0, and whether it is the last."""
    for at in range(0, size_bytes, BLOCK_BYTES):
        rest_bytes = size_bytes - at
        header = min(rest_bytes, BLOCK_BYTES) << 3 | (rest_bytes <= BLOCK_BYTES)
        yield at, header.to_bytes(_HEADER_BYTES, "little")
