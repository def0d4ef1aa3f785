"""Resolver: finds the addresses of brokers' names, and tries them in turn.

libzmq looks names up itself, but only among IPv4 addresses, or only among IPv6 addresses, and reports no failure. So a
name is looked up here for each connection: its IPv4 addresses come first, and after an address to which no connection
could be made the next one is tried.
"""

from __future__ import annotations

import socket
from typing import Final

import anyio

from airunner.transport.endpoints import Address

_FAMILIES: Final = {socket.AF_INET: 0, socket.AF_INET6: 1}  # in the order in which they are tried


class Resolver:
    """Resolver of the names of one network's endpoints."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}  # by name: number of failed connections
        self._ipv6: set[str] = set()  # names whose last address was an IPv6 address

    async def resolve(self, address: Address) -> Address:
        """Return the address whose turn it is. Raises `OSError`: the name does not resolve."""
        found = await anyio.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        known = sorted((entry for entry in found if entry[0] in _FAMILIES), key=lambda entry: _FAMILIES[entry[0]])
        if not known:
            raise OSError("it has no IP address")
        family, *_, place = known[self._turns.get(address.host, 0) % len(known)]
        (self._ipv6.add if family == socket.AF_INET6 else self._ipv6.discard)(address.host)
        return Address(place[0], address.port)

    def failed(self, address: Address) -> None:
        """Record that no connection could be made: the name's next address is tried next."""
        self._turns[address.host] = self._turns.get(address.host, 0) + 1

    def needs_ipv6(self, address: Address) -> bool:
        """Return whether an endpoint is reached over IPv6: it is such an address, or its name was resolved to one."""
        return address.is_ipv6 or address.host in self._ipv6


def is_numeric(address: Address) -> bool:
    """Return whether the host is an IP address, which needs no look-up."""
    try:
        socket.getaddrinfo(address.host.encode(), None, flags=socket.AI_NUMERICHOST)  # of bytes, without the IDNA codec
    except socket.gaierror:
        return False
    return True


def only_ipv6(name: str) -> bool:
    """Return whether a name resolves, and to IPv6 addresses only. It waits: for the start of a broker."""
    try:
        return {entry[0] for entry in socket.getaddrinfo(name, None)} == {socket.AF_INET6}
    except socket.gaierror:
        return False
