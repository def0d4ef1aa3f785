"""Routes of logging in by a link, and of logging out.

`GET /login/SECRET` only shows a button: what looks at links before a person does, such as a chat, uses none up.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from airunner.client.web.login import By, login_of, login_with
from airunner.client.web.pages.loginpage import login_page, redeem_page
from airunner.client.web.services import services_of
from airunner.protocol.errors import Unauthenticated


async def show_login(request: Request) -> Response:
    """Show how to log in."""
    return login_page(request, by_oidc=services_of(request).oidc is not None)


async def show_link(request: Request) -> Response:
    """Show the button that redeems a link."""
    return redeem_page(request, quote(request.path_params["secret"], safe=""))


async def redeem_link(request: Request) -> Response:
    """Redeem a link: the browser gets its cookie. Raises `NotFound`: it was redeemed, or is too old."""
    services = services_of(request)
    token = services.links.redeem(request.path_params["secret"], services.now_s())
    return logged_in(request, token)


def logged_in(request: Request, token: str, to: str = "/") -> Response:
    """Make the answer that logs in a browser with a token, and leads it to a path of this server.

    Raises `Unauthenticated`: the token has expired, or is none. Raises `OperatorError`: it is too long for a cookie.
    """
    services = services_of(request)
    sealed = services.cookies.seal(token)
    left_s = login_with(token, By.COOKIE, sealed).expires_s - services.now_s()
    if left_s <= 0:
        raise Unauthenticated("the token of this login has expired")
    response = RedirectResponse(to, HTTPStatus.SEE_OTHER)
    services.cookies.set(response, sealed, left_s)
    return response


async def log_out(request: Request) -> Response:
    """End the session of a browser: its cookie, and its streams in all tabs.

    A bearer token has no session to end, and may be made up: many of those would have ended sessions forgotten.
    """
    services = services_of(request)
    response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    services.cookies.clear(response)
    with suppress(Unauthenticated):  # it is over already
        if (login := login_of(request)).by is By.COOKIE:
            services.sessions.end(login.session)
    return response


ROUTES: Final[Sequence[BaseRoute]] = (
    Route("/login", show_login, methods=["GET"]),
    Route("/login/{secret}", show_link, methods=["GET"]),
    Route("/login/{secret}", redeem_link, methods=["POST"]),
    Route("/logout", log_out, methods=["POST"]),
)
