"""Characters: cuts output between characters of UTF-8, so that each piece of a text is a text. Pure.

Output is bytes and need not be UTF-8: what can no longer become a character is passed on as it is.
"""

from __future__ import annotations

import codecs
from typing import Final

INCOMPLETE_S: Final = 5.0  # seconds to wait for the rest of a character: a slow program may have filled its buffer
_CUT_BYTES_MAX: Final = 3  # a character has at most 4 bytes (RFC 3629)
_CONTINUATION: Final = bytes(range(0x80, 0xC0))  # bytes that are not the first of a character


def incomplete_bytes(data: bytes | bytearray) -> int:
    """Count the bytes at the end, at most 3, that may become a character with the bytes that follow; 0: none."""
    end = data[-_CUT_BYTES_MAX:]
    return len(end) - codecs.utf_8_decode(end, "ignore", False)[1]  # noqa: FBT003 - `final`, without a name in C


def continued_bytes(data: bytes) -> int:
    """Count the bytes at the beginning, at most 3, that may belong to a character that began before."""
    begin = data[:_CUT_BYTES_MAX]
    return len(begin) - len(begin.lstrip(_CONTINUATION))


def cut(data: bytes, size: int) -> tuple[bytes, bytes]:
    """Cut output after at most `size` bytes, between two characters."""
    if size < len(data):
        size -= incomplete_bytes(data[:size])
    return data[:size], data[size:]


class Characters:
    """Characters of one stream: holds back the first bytes of a character, at most 3, until the others come."""

    def __init__(self) -> None:
        self.held = b""

    def feed(self, piece: bytes) -> bytes:
        """Add a piece of the stream, and return what ends with a whole character."""
        data = self.held + piece if self.held else piece
        count = incomplete_bytes(data)
        self.held = data[len(data) - count :]
        return data[: len(data) - count] if count else data

    def finish(self) -> bytes:
        """Return the bytes that were held back: the stream has ended, or the others have not come in time."""
        held, self.held = self.held, b""
        return held
