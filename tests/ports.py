"""TCP ports for servers that tests start again on the same one.

The kernel draws the ports of outgoing connections from a range of its own. While a server is down, any process of the
machine may get a port of that range, and the server does not start again. So the ports here are from below it.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from random import SystemRandom
from typing import Final

FIRST: Final = 10_000
BEYOND: Final = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])


def free_ports(number: int = 3) -> list[int]:
    """Find TCP ports that no process uses; all at once, so that they differ."""
    random = SystemRandom()
    with ExitStack() as probes:
        found: list[int] = []
        while len(found) < number:
            with suppress(OSError):
                probe = socket.create_server(("127.0.0.1", random.randrange(FIRST, BEYOND)))
                found.append(probes.enter_context(probe).getsockname()[1])
        return found
