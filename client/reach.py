"""How a client reaches its brokers: which endpoints, over which network, with which token.

`reach` builds the real thing from the home's keys and the environment; a simulation hands in its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.certs.edges import Edges, Network
from airunner.protocol.errors import OperatorError

DEFAULT_BROKER: Final = "tcp://127.0.0.1:7070"
BROKER_VARIABLE: Final = "AIRUNNER_BROKER"
ENDPOINTS_MAX: Final = 64  # tried in turn; more than that is a mistake


class Reach(Struct, frozen=True):
    """What a `Client` touches of the world; `close` is called once its sockets are closed."""

    network: Network
    endpoints: tuple[str, ...]
    token: Callable[[], bytes]
    edges: Edges
    close: Callable[[], None]


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


def reach(
    broker: str | Sequence[str] | None = None,
    token: str | None = None,
    home: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Reach:
    """Real sockets with the home's keys.

    Raises `OperatorError` for missing keys and for what is not an endpoint or a token.
    """
    from airunner.certs.curve import load_broker_public, load_client_pair
    from airunner.certs.edges import SYSTEM
    from airunner.certs.home import Home
    from airunner.certs.sockets import CurveNetwork, new_context
    from airunner.certs.tokensource import token_source

    environ = os.environ if environ is None else environ
    endpoints = endpoints_of(broker, environ)
    place = Home.from_environment(environ if home is None else {**environ, "AIRUNNER_HOME": str(home)})
    pair, broker_public = load_client_pair(place), load_broker_public(place)
    tokens = token_source(environ, place, explicit=token, subject="client")
    context = new_context()
    return Reach(
        network=CurveNetwork(context, pair, broker_public),
        endpoints=endpoints,
        token=lambda: tokens.token_at(SYSTEM.wall_ms() / 1_000),
        edges=SYSTEM,
        close=lambda: context.destroy(linger=0),
    )
