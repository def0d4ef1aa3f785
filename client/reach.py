"""Reach of a client, its access to brokers: endpoints, network, token, clock and randomness.

`reach` makes it from the home's keys, the environment and config.yaml; a simulation and `airunner run` pass in
their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from airunner.transport.endpoints import endpoints_of, require_loopback
from airunner.transport.ports import Edges, Network


class Reach(Struct, frozen=True):
    """Access of a `Client` to brokers; the client calls `close` after its sockets are closed."""

    network: Network
    endpoints: tuple[str, ...]
    token: Callable[[], bytes]
    edges: Edges
    close: Callable[[], None] = lambda: None


def reach(
    broker: str | Sequence[str] | None = None,
    token: str | None = None,
    home: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    token_file: str | Path | None = None,
) -> Reach:
    """Make a reach with CURVE sockets; a token file is read again when it changes.

    Raises `OperatorError`: the keys, an endpoint or the token cannot be used.
    """
    from airunner.certs.curve import SERVER_KEY, load_broker_public, load_client_pair
    from airunner.certs.ownership import own_home
    from airunner.certs.tokensource import token_source
    from airunner.client.settings import HOME, configured
    from airunner.transport.ports import SYSTEM
    from airunner.transport.sockets import CurveNetwork, new_context

    environ = os.environ if environ is None else environ
    environ = configured(environ if home is None else {**environ, HOME: str(home)}).environ
    endpoints = endpoints_of(broker, environ)
    require_loopback(endpoints)
    place = own_home(environ)
    pair, broker_public = load_client_pair(place), load_broker_public(place, environ.get(SERVER_KEY, ""))
    file = None if token_file is None else Path(token_file)
    tokens = token_source(environ, place, explicit=token, file=file, subject="client", keep=True)
    context = new_context()
    return Reach(
        network=CurveNetwork(context, pair, broker_public),
        endpoints=endpoints,
        token=lambda: tokens.token_at(SYSTEM.wall_ms() / 1_000),
        edges=SYSTEM,
        close=lambda: context.destroy(linger=0),
    )
