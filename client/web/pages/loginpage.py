"""Pages of logging in."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from airunner.client.web.pages.plain import plain_page


def login_page(_request: Request, *, by_oidc: bool) -> Response:
    """Make the page that says how to log in; `by_oidc`: /login/oidc begins a login at an identity provider."""
    del by_oidc
    return plain_page("Log in", "`airunner login-link`, on the machine of this server, prints a link that logs you in.")


def redeem_page(_request: Request, secret: str) -> Response:
    """Make the page of a login link, whose button posts to the link's own address."""
    return plain_page("Log in", "This link logs in this browser, once.", action=f"/login/{secret}", button="Log in")
