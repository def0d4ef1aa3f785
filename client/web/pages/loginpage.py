"""Pages of logging in."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from airunner.client.web.pages.rendering import render


def login_page(request: Request, *, by_oidc: bool) -> Response:
    """Make the page that says how to log in; `by_oidc`: /login/oidc begins a login at an identity provider."""
    return render(request, "login.html", by_oidc=by_oidc)


def redeem_page(request: Request, secret: str) -> Response:
    """Make the page of a login link, whose button posts to the link's own address."""
    return render(request, "redeem.html", action=f"/login/{secret}")
