"""Application of the web server: assembles middleware and the routes of all modules."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPMethod
from typing import Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airunner.client.web import loginroutes, logroutes, reports
from airunner.client.web.api import routes as api
from airunner.client.web.guards import Guards
from airunner.client.web.oidc import routes as oidc
from airunner.client.web.pages import routes as pages
from airunner.client.web.pages.errors import error_page
from airunner.client.web.problems import ERROR_PAGE, answer_bug, answer_error, answer_http_error
from airunner.client.web.services import STATE, Services
from airunner.protocol.errors import AirunnerError

ROUTES: Final[Sequence[BaseRoute]] = (
    *oidc.ROUTES,
    *loginroutes.ROUTES,
    *api.ROUTES,
    *logroutes.ROUTES,
    *reports.ROUTES,
    *pages.ROUTES,
)
"""Routes of all modules; the first that fits serves a request."""
METHODS: Final = frozenset(HTTPMethod)  # any other comes from the client as it is, and is not logged


def make_app(services: Services, hosts: Iterable[str] = (), log: Callable[[str], None] | None = None) -> Starlette:
    """Make the application.

    `hosts` are names of this server beside that of the public URL. `log` is called with a line for each request: its
    method, its route without what a user filled in, its status, and how long it took.
    """
    public = urlsplit(services.public_url)
    origin = f"{public.scheme}://{public.netloc}"
    middleware = [Middleware(Guards, hosts=(*hosts, public.hostname or ""), origin=origin)]
    if log is not None:
        middleware.insert(0, Middleware(RequestLog, log=log))
    app = Starlette(
        routes=ROUTES,
        middleware=middleware,
        exception_handlers={
            AirunnerError: answer_error,
            HTTPException: answer_http_error,
            Exception: answer_bug,
        },
    )
    app.router.redirect_slashes = False  # it would lead to http://, also where a proxy ends TLS
    setattr(app.state, STATE, services)
    setattr(app.state, ERROR_PAGE, error_page)
    return app


class RequestLog:
    """Request log: a line for each request, in which nothing of a user's is: no query, no id, no token."""

    def __init__(self, app: ASGIApp, log: Callable[[str], None]) -> None:
        self._app = app
        self._log = log
        self._paths = {route.endpoint: route.path for route in ROUTES if isinstance(route, Route)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.monotonic()
        status = 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            endpoint = scope.get("endpoint")
            path = "-" if endpoint is None else self._paths.get(endpoint) or mounted(endpoint)
            took_ms = (time.monotonic() - started_s) * 1_000
            method = scope["method"] if scope["method"] in METHODS else "-"
            self._log(f"{method} {path} {status or '-'} {took_ms:.0f} ms")


def mounted(endpoint: ASGIApp) -> str:
    """Return the path at which an application is mounted, such as /static, for a request below it."""
    return next((route.path for route in ROUTES if isinstance(route, Mount) and route.app is endpoint), "-")


def write_line(line: str) -> None:
    """Write a line of the log on stderr."""
    sys.stderr.write(f"airunner web: {line}\n")
