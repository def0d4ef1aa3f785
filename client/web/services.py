"""Services of the web server that its routes use, as `services_of(request)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from msgspec import Struct, field
from starlette.requests import HTTPConnection

from airunner.client.web.clients import Clients
from airunner.client.web.cookies import Cookies
from airunner.client.web.logindex import LogIndexes
from airunner.client.web.loginlinks import LoginLinks
from airunner.client.web.oidc.login import Oidc
from airunner.client.web.sessions import Sessions

STATE: Final = "services"  # the attribute of the application's state


class Services(Struct, frozen=True):
    """Services of one web server.

    `public_url` is how browsers reach it, without a slash at its end. `now_s` is the wall clock, in Unix seconds.
    `oidc` is the login by OpenID Connect, if there is one. `log_indexes` remember places in logs.
    """

    clients: Clients
    cookies: Cookies
    links: LoginLinks
    sessions: Sessions
    public_url: str
    now_s: Callable[[], float]
    oidc: Oidc | None = None
    log_indexes: LogIndexes = field(default_factory=LogIndexes)


def services_of(request: HTTPConnection) -> Services:
    """Return the services of the application that serves a request."""
    return cast("Services", getattr(request.app.state, STATE))
