"""TCP progress of one connection, as the kernel counts it (Linux's TCP_INFO, tcp(7) and linux/tcp.h).

Bytes that were received count at once. Bytes that were sent count while others wait to be acknowledged behind them:
then the link is carrying them. Once all are acknowledged they lie in the other end's buffers, read or not, and show
nothing of the program that is to read them.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

from msgspec import Struct

# Where struct tcp_info has them: grown at its end only, so older kernels give less and newer ones more.
_UNACKED_AT: Final = 24  # u32, segments
_BYTES_ACKED_AT: Final = 120  # u64
_BYTES_RECEIVED_AT: Final = 128  # u64
_NOTSENT_BYTES_AT: Final = 144  # u32
_INFO_BYTES: Final = 148


class TcpInfo(Struct, frozen=True):
    """What is used of it; `outstanding`: some bytes are not acknowledged, or not sent."""

    received_bytes: int
    acked_bytes: int
    outstanding: bool


def tcp_info(descriptor: int) -> TcpInfo | None:
    """The counts of a connection that somebody else owns; None where the kernel has none, or it is closed."""
    if sys.platform != "linux":
        return None
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        raw = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return None
    finally:
        connection.detach()
    if len(raw) < _INFO_BYTES:
        return None
    unacked, notsent = (struct.unpack_from("I", raw, at)[0] for at in (_UNACKED_AT, _NOTSENT_BYTES_AT))
    acked, received = (struct.unpack_from("Q", raw, at)[0] for at in (_BYTES_ACKED_AT, _BYTES_RECEIVED_AT))
    return TcpInfo(received, acked, bool(unacked or notsent))
