"""Routes of the login by OpenID Connect: to the issuer, back from it, and to the end of the session there.

The login begins with a link and not a form: browsers apply `form-action` of the content security policy to where a
form's answer leads.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from airunner.client.web.loginroutes import logged_in
from airunner.client.web.oidc.attempt import ATTEMPT_S
from airunner.client.web.oidc.login import CALLBACK, Oidc
from airunner.client.web.services import services_of
from airunner.protocol.errors import NotFound

COOKIE: Final = "airunner-login"


async def begin_login(request: Request) -> Response:
    """Send the browser to the issuer, with the attempt in a cookie. Raises `IssuerAway`."""
    address, sealed = await _oidc(request).begin(request.query_params.get("next", ""))
    response = RedirectResponse(address, HTTPStatus.SEE_OTHER)
    name, is_secure = _cookie(request)
    response.set_cookie(name, sealed, max_age=ATTEMPT_S, path="/", secure=is_secure, httponly=True, samesite="lax")
    return response


async def finish_login(request: Request) -> Response:
    """Log in the browser that comes back from the issuer. Raises the errors of `Oidc.finish`."""
    name, is_secure = _cookie(request)
    token, next_path = await _oidc(request).finish(request.query_params, request.cookies.get(name, ""))
    response = logged_in(request, token, next_path)
    response.delete_cookie(name, path="/", secure=is_secure, httponly=True, samesite="lax")
    return response


async def log_out_there(request: Request) -> Response:
    """Send the browser to where it ends its session at the issuer. Raises `IssuerAway`."""
    return RedirectResponse(await _oidc(request).logout_address() or "/login", HTTPStatus.SEE_OTHER)


def _oidc(request: Request) -> Oidc:
    oidc = services_of(request).oidc
    if oidc is None:
        raise NotFound("this server has no login by OpenID Connect: `airunner web --oidc-issuer` sets it up")
    return oidc


def _cookie(request: Request) -> tuple[str, bool]:
    """Return the name of the cookie of attempts, and whether it is for https only."""
    is_secure = services_of(request).public_url.startswith("https:")
    return (f"__Host-{COOKIE}" if is_secure else COOKIE), is_secure


ROUTES: Final[Sequence[BaseRoute]] = (
    Route("/oidc/login", begin_login, methods=["GET"]),
    Route(CALLBACK, finish_login, methods=["GET"]),
    Route("/oidc/logout", log_out_there, methods=["GET"]),
)
