"""Where brokers are: the words in which an operator names them. Agents and clients read the same."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Final

from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError

DEFAULT_BROKER: Final = "tcp://127.0.0.1:7070"
BROKER_VARIABLE: Final = "AIRUNNER_BROKER"
_LOOPBACK: Final = ("127.", "localhost:", "[::1]:")
_NO_WAY: Final = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH)
ENDPOINTS_MAX: Final = 64  # tried in turn; more than that is a mistake


def endpoints_of(broker: str | Sequence[str] | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The endpoints in `broker`, else in `AIRUNNER_BROKER`, else the default; commas and spaces part them.

    Raises `OperatorError` when none or too many are named.
    """
    given = (broker,) if isinstance(broker, str) else broker
    words = given or (environ.get(BROKER_VARIABLE, "").strip() or DEFAULT_BROKER,)
    endpoints = tuple(endpoint for word in words for endpoint in word.replace(",", " ").split())
    if not 1 <= len(endpoints) <= ENDPOINTS_MAX:
        raise OperatorError(f"name 1 to {ENDPOINTS_MAX} brokers, such as {DEFAULT_BROKER}, not {len(endpoints)}")
    return endpoints


def require_loopback(endpoints: Sequence[str]) -> None:
    """See that this machine reaches itself, where all of `endpoints` are its own: else who connects waits in vain.

    Raises `OperatorError`: the loopback interface is down, as in a network namespace that was just made.
    """
    import socket

    places = [endpoint.partition("://")[2] for endpoint in endpoints]
    if not all(place.startswith(_LOOPBACK) for place in places):
        return
    for place in places:
        kind, host = (socket.AF_INET6, "::1") if place.startswith("[") else (socket.AF_INET, "127.0.0.1")
        try:
            with socket.socket(kind, socket.SOCK_DGRAM) as probe:  # which looks for the way, and sends nothing
                probe.connect((host, 9))
        except OSError as error:
            if error.errno in _NO_WAY:
                continue
        return
    raise OperatorError(
        f"this machine cannot reach itself at {', '.join(endpoints)}: its loopback interface is down; bring it up with "
        "`ip link set lo up`",
        exit_code=EXIT_UNAVAILABLE,
    )
