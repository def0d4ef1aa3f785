"""Greeting of ZMTP: shows whether a server to which no handshake succeeds is a broker, whose key then is another one.

A CURVE server closes the connection of a client that has another server key pinned, and so does a proxy whose server is
not running. They differ in what they send before: a CURVE server greets, with the name of the mechanism.

Source: ZMTP 3.1, https://rfc.zeromq.org/spec/37/
"""

from __future__ import annotations

import socket
from typing import Final

import anyio

from airunner.transport.endpoints import Address

SIGNATURE: Final = b"\xff" + bytes(8) + b"\x7f"
GREETING: Final = SIGNATURE + b"\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
MECHANISM: Final = slice(12, 32)
PROBE_S: Final = 1.0  # a server on another continent greets within half of it


async def greets(address: Address) -> bool:
    """Return whether a server at this address greets as a CURVE server does."""
    family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    received = b""
    try:
        probe.settimeout(0)
        with anyio.move_on_after(PROBE_S):
            probe.connect_ex(tuple(address))
            await anyio.wait_writable(probe)
            probe.send(GREETING)
            while len(received) < len(GREETING):
                await anyio.wait_readable(probe)
                if not (part := probe.recv(len(GREETING))):
                    break
                received += part
    except OSError:
        pass
    finally:
        probe.close()
    return received[MECHANISM] == GREETING[MECHANISM]
