"""TCP byte counts of a connection, from the kernel (Linux's TCP_INFO, tcp(7) and linux/tcp.h).

The counts show whether a slow link still moves data; `CurveDealer.progress` interprets them.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

from msgspec import Struct

# Offsets in struct tcp_info, which only grows at its end: older kernels return less, newer ones more.
_UNACKED_AT: Final = 24  # u32, segments
_BYTES_ACKED_AT: Final = 120  # u64
_BYTES_RECEIVED_AT: Final = 128  # u64
_NOTSENT_BYTES_AT: Final = 144  # u32
_INFO_BYTES: Final = 148


class TcpInfo(Struct, frozen=True):
    """TCP counts of a connection; `outstanding`: some bytes are not acknowledged, or not sent."""

    received_bytes: int
    acked_bytes: int
    outstanding: bool


def tcp_info(descriptor: int) -> TcpInfo | None:
    """Return the TCP counts of a descriptor that libzmq owns; None: it is closed or not TCP, or the kernel has none."""
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
