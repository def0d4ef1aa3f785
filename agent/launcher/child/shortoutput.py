"""Output of a short command, read by its keeper when the command and all of its descendants have ended.

The kernel reports a pipe's hangup when nobody can write to it any more. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
from collections.abc import Sequence
from typing import Final

OUTPUT_BYTES_MAX: Final = 32_768  # of all pipes: it must fit into the socket to the agent, so that no send blocks


def whole_output(readers: Sequence[int]) -> list[bytes] | None:
    """Read all that was written to each pipe; None, and nothing is read: it is too much, or more may be written."""
    poll = select.poll()
    for reader in readers:
        poll.register(reader, select.POLLIN)
    events = dict(poll.poll(0))
    if not all(events.get(reader, 0) & select.POLLHUP for reader in readers):
        return None
    sizes = [_readable_bytes(reader) if events[reader] & select.POLLIN else 0 for reader in readers]
    if sum(sizes) > OUTPUT_BYTES_MAX:
        return None
    return [_read(reader, size) for reader, size in zip(readers, sizes, strict=True)]


def _read(reader: int, size: int) -> bytes:
    """Read `size` bytes; a read returns fewer if the writer has put its pipe into packet mode, as `dd oflag=direct`."""
    data = b""
    while len(data) < size:
        data += os.read(reader, size - len(data))
    return data


def _readable_bytes(reader: int) -> int:
    (size,) = struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))
    return int(size)
