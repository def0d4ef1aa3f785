"""Pages of logging in."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from airunner.client.web.localpath import HOME, local_path
from airunner.client.web.pages.rendering import render


def login_page(request: Request, *, by_oidc: bool) -> Response:
    """Make the page that says how to log in; `by_oidc`: also at an OpenID Connect issuer, and then back to `next`."""
    wanted = local_path(request.query_params.get("next", ""))
    at_issuer = "/oidc/login" if wanted == HOME else f"/oidc/login?{urlencode({'next': wanted})}"
    return render(request, "login.html", at_issuer=at_issuer if by_oidc else None)


def redeem_page(request: Request, secret: str) -> Response:
    """Make the page of a login link, whose button posts to the link's own address."""
    return render(request, "redeem.html", action=f"/login/{secret}")
