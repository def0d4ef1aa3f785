"""What a client needs to reach a broker, and where it comes from: the environment and the home."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.certs.curve import load_broker_public, load_client_pair
from airunner.certs.edges import SYSTEM, Edges, Network
from airunner.certs.home import Home
from airunner.certs.sockets import CurveNetwork, new_context
from airunner.certs.tokensource import token_source

DEFAULT_BROKER: Final = "tcp://127.0.0.1:7070"
BROKER_VARIABLE: Final = "AIRUNNER_BROKER"


class Connection(Struct, frozen=True):
    """A network of this machine's key, the brokers to try in turn, and the token to present at each request."""

    network: Network
    endpoints: tuple[str, ...]
    token: Callable[[], bytes]
    edges: Edges
    close: Callable[[], None]


def endpoints_of(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """The brokers named by `given`, else by AIRUNNER_BROKER (separated by commas), else the local one."""
    words = [given] if isinstance(given, str) else list(given or [])
    if not words:
        words = [os.environ.get(BROKER_VARIABLE) or DEFAULT_BROKER]
    return tuple(endpoint for word in words for endpoint in word.replace(",", " ").split())


def connect(broker: str | Sequence[str] | None, token: str | None, home: Path | None) -> Connection:
    """A connection with this home's keys.

    Raises `OperatorError`: keys that are missing or damaged, a token that cannot be one.
    """
    place = Home(home.absolute()) if home is not None else Home.from_environment(os.environ)
    pair = load_client_pair(place)
    broker_public = load_broker_public(place)
    tokens = token_source(os.environ, place, explicit=token)
    context = new_context()
    return Connection(
        network=CurveNetwork(context, pair, broker_public),
        endpoints=endpoints_of(broker),
        token=lambda: tokens.token_at(SYSTEM.wall_ms() / 1_000),
        edges=SYSTEM,
        close=lambda: context.destroy(linger=0),
    )
