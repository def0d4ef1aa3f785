"""Endpoints and addresses: `tcp://HOST:PORT` of brokers, HOST:PORT of HTTP. One parser for broker, agents and clients.

HOST is a name, an IPv4 address, or an IPv6 address in brackets, of which a link-local one names its interface:
`[fe80::1%eth0]`. Where a broker listens, HOST may also be an interface, or `*`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address
from typing import Final, NamedTuple

from airunner.protocol.durations import of_flag
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError
from airunner.protocol.names import PORT_MAX

DEFAULT_BROKER: Final = "tcp://127.0.0.1:7070"
BROKER_VARIABLE: Final = "AIRUNNER_BROKER"
ENDPOINTS_MAX: Final = 64  # brokers that a client or agent tries in turn; a longer list is surely a mistake
ANY_HOST: Final = "*"  # all IPv4 addresses of a machine, where a broker listens
_SCHEME: Final = "tcp://"
_ADDRESS: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([^:]*))?")
_NAME: Final = re.compile(r"[^\s/@?#%\\]+")
_LOOPBACK: Final = re.compile(r"tcp://(127\.[0-9.]+|localhost|\[::1\]):")
_NO_ROUTE: Final = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH)


class Address(NamedTuple):
    """Address: a host, without brackets, and a port."""

    host: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


def split_address(text: str) -> Address:
    """Parse HOST:PORT. Raises `ValueError`, which says what is wrong."""
    found = _ADDRESS.fullmatch(text)
    if found is None and "[" not in text:
        raise ValueError(f"an IPv6 address stands in brackets, as in [::1]:{text.rpartition(':')[2] or 7070}")
    if found is None:
        raise ValueError("expected HOST:PORT")
    host, port = found.groups()
    if port is None:
        raise ValueError("it names no port")
    if not (port.isascii() and port.isdecimal()) or int(port[:6]) > PORT_MAX:
        raise ValueError(f"the port {port!r} is not a number from 0 to {PORT_MAX}")
    if not host:
        raise ValueError("it names no host")
    if not host.startswith("["):
        if not _NAME.fullmatch(host):
            raise ValueError(f"{host!r} is neither an address nor the name of a host")
        return Address(host, int(port))
    return Address(_ipv6(host[1:-1]), int(port))


def _ipv6(host: str) -> str:
    """Check an IPv6 address, and return it; one that stands for an IPv4 address becomes that. Raises `ValueError`."""
    import socket

    try:
        address = IPv6Address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IPv6 address") from None
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    interface = address.scope_id
    if interface is None and address.is_link_local:
        raise ValueError(f"a link-local address names its interface, as in [{host}%eth0]")
    if interface is not None and not interface.isdecimal():
        try:
            socket.if_nametoindex(interface)
        except OSError:
            raise ValueError(f"this machine has no interface {interface!r}") from None
    return host


def split_endpoint(endpoint: str) -> Address:
    """Parse tcp://HOST:PORT. Raises `OperatorError`, which says what is wrong."""
    try:
        return split_address(_without_scheme(endpoint))
    except ValueError as error:
        example = "tcp://HOST:PORT, such as tcp://127.0.0.1:7070 or tcp://[::1]:7070"
        raise OperatorError(f"{endpoint!r} is not an endpoint: {error}; write {example}") from None


def split_http(address: str) -> Address:
    """Parse HOST:PORT of --http. Raises `OperatorError`, which says what is wrong."""
    try:
        return split_address(address.removeprefix("http://").removesuffix("/"))
    except ValueError as error:
        example = "HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080"
        raise OperatorError(f"--http {address!r} is not an address: {error}; write {example}") from None


def _without_scheme(endpoint: str) -> str:
    if not endpoint.startswith(_SCHEME):
        raise ValueError(f"it does not begin with {_SCHEME}")
    return endpoint.removeprefix(_SCHEME)


def endpoints_of(broker: str | Sequence[str] | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Parse `broker`, or else `AIRUNNER_BROKER`, or else use the default.

    Raises `OperatorError`: none, too many, or not an endpoint that can be connected to.
    """
    given = (broker,) if isinstance(broker, str) else broker
    words = given or (environ.get(BROKER_VARIABLE, "").strip() or DEFAULT_BROKER,)
    endpoints = tuple(endpoint for word in words for endpoint in word.replace(",", " ").split())
    if not 1 <= len(endpoints) <= ENDPOINTS_MAX:
        raise OperatorError(f"name 1 to {ENDPOINTS_MAX} brokers, such as {DEFAULT_BROKER}, not {len(endpoints)}")
    variable = environ.get(BROKER_VARIABLE, "").split()
    source = BROKER_VARIABLE if list(words) == variable or not given else "--broker"
    for endpoint in endpoints:
        host, port = of_flag(source, split_endpoint, endpoint)
        if host == ANY_HOST or not port:
            raise OperatorError(
                f"{source}: no broker can be reached at {endpoint!r}: `*` and port 0 are for a broker's --listen; "
                "write the host and the port that its ready line shows"
            )
    return endpoints


def require_loopback(endpoints: Sequence[str]) -> None:
    """Check that the loopback interface is up, if all `endpoints` are on it. Raises `OperatorError`: it is down."""
    import socket

    if not all(map(_is_loopback, endpoints)):
        return
    for endpoint in endpoints:
        kind, loopback = (socket.AF_INET6, "::1") if "[" in endpoint else (socket.AF_INET, "127.0.0.1")
        try:
            with socket.socket(kind, socket.SOCK_DGRAM) as probe:  # connect() checks the route and sends nothing
                probe.connect((loopback, 9))
        except OSError as error:
            if error.errno in _NO_ROUTE:
                continue
        return
    raise OperatorError(  # for example in a new network namespace
        f"this machine cannot reach itself at {', '.join(endpoints)}: its loopback interface is down, or IPv6 is off "
        "on it; bring it up with `ip link set lo up`",
        exit_code=EXIT_UNAVAILABLE,
    )


def unanswered(endpoint: str, waited_s: float, *, away: bool) -> str:
    """Return the message that no broker answers at `endpoint`, or that its store is `away`, and what to do about it."""
    if away:
        return (
            f"the broker at {endpoint} cannot reach its store (waited {waited_s:g} s): nothing is lost, and it answers "
            "when its database is back; its /health says more"
        )
    advice = (
        "start one with `airunner up`"
        if _is_loopback(endpoint)
        else "check that it runs there, that this is its port for requests, and that no firewall is in the way"
    )
    another = "or name another with --broker or AIRUNNER_BROKER"
    return f"no broker answers at {endpoint} (waited {waited_s:g} s); {advice}, {another}"


def unlisted(endpoint: str) -> str:
    """Return the message that the broker at `endpoint` rejects this machine's key."""
    return (
        f"the broker at {endpoint} does not accept this machine's key; put the public key of this home on its "
        "allow-list: `airunner certs add NAME --key PUBLIC`, on the broker's machine"
    )


def unresolved(endpoint: str) -> str:
    """Return the message that the host of `endpoint` has no address."""
    return f"the host of {endpoint} does not resolve: check its name, and this machine's DNS"


def forged(endpoint: str) -> str:
    """Return the message that the broker at `endpoint` has another key than the one that is pinned."""
    return (
        f"the broker at {endpoint} has another key than the one pinned here (certs/broker.public of the home, or "
        "server-key): copy its certs/broker.public, or use the home or --cluster that belongs to it"
    )


def mismatched(endpoint: str) -> str:
    """Return the message for failed handshakes with a server that does not greet as a broker does."""
    return (
        f"the server at {endpoint} aborts the handshake: this is not a broker's port for requests, or the broker "
        "behind it does not run"
    )


def _is_loopback(endpoint: str) -> bool:
    return _LOOPBACK.match(endpoint) is not None
