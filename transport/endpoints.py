"""Broker endpoints of `--broker` and `AIRUNNER_BROKER`: one parser for agents and clients."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Final

from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError

DEFAULT_BROKER: Final = "tcp://127.0.0.1:7070"
BROKER_VARIABLE: Final = "AIRUNNER_BROKER"
_LOOPBACK: Final = ("127.", "localhost:", "[::1]:")
_NO_ROUTE: Final = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH)
ENDPOINTS_MAX: Final = 64  # brokers that a client or agent tries in turn; a longer list is surely a mistake


def endpoints_of(broker: str | Sequence[str] | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Parse `broker`, or else `AIRUNNER_BROKER`, or else use the default. Raises `OperatorError`: none, or too many."""
    given = (broker,) if isinstance(broker, str) else broker
    words = given or (environ.get(BROKER_VARIABLE, "").strip() or DEFAULT_BROKER,)
    endpoints = tuple(endpoint for word in words for endpoint in word.replace(",", " ").split())
    if not 1 <= len(endpoints) <= ENDPOINTS_MAX:
        raise OperatorError(f"name 1 to {ENDPOINTS_MAX} brokers, such as {DEFAULT_BROKER}, not {len(endpoints)}")
    return endpoints


def require_loopback(endpoints: Sequence[str]) -> None:
    """Check that the loopback interface is up, if all `endpoints` are on it. Raises `OperatorError`: it is down."""
    import socket

    places = [endpoint.partition("://")[2] for endpoint in endpoints]
    if not all(place.startswith(_LOOPBACK) for place in places):
        return
    for place in places:
        kind, host = (socket.AF_INET6, "::1") if place.startswith("[") else (socket.AF_INET, "127.0.0.1")
        try:
            with socket.socket(kind, socket.SOCK_DGRAM) as probe:  # connect() checks the route and sends nothing
                probe.connect((host, 9))
        except OSError as error:
            if error.errno in _NO_ROUTE:
                continue
        return
    raise OperatorError(  # for example in a new network namespace
        f"this machine cannot reach itself at {', '.join(endpoints)}: its loopback interface is down; bring it up with "
        "`ip link set lo up`",
        exit_code=EXIT_UNAVAILABLE,
    )
