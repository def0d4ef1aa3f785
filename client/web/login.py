"""Login of a request: the token that it carries, as a bearer token or sealed in a cookie, and what the token claims.

The claims are read without a look at the signature: they are shown, and say when the session ends. What the token may
do is decided by the broker, to which each request passes it on.
"""

from __future__ import annotations

import base64
import binascii
from enum import StrEnum
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct
from starlette.requests import HTTPConnection

from airunner.client.web.services import Services, services_of
from airunner.client.web.sessions import Session
from airunner.protocol.errors import Unauthenticated
from airunner.protocol.frames import TOKEN_BYTES_MAX

_PARTS: Final = 3  # of a JWT: header, claims, signature
_SESSION_BYTES: Final = 16
_BEARER: Final = "bearer "
AGAIN: Final = "log in again: `airunner login-link` prints a link"
NONE: Final = "log in first: `airunner login-link` prints a link"
NONE_API: Final = "send `Authorization: Bearer TOKEN`: `airunner token --subject NAME` prints a token"
API: Final = "/v1/"


class By(StrEnum):
    """How a request carries its token."""

    BEARER = "bearer"
    COOKIE = "cookie"


class Login(Struct, frozen=True):
    """Login of a request: its token, what that claims, and the session that it belongs to."""

    token: str
    subject: str
    tenant: str
    roles: frozenset[str]
    by: By
    session: Session

    @property
    def expires_s(self) -> float:
        """When the token expires, in Unix seconds."""
        return self.session.expires_s

    def may(self, role: str) -> bool:
        """Return whether the token claims a role: what it lacks need not be offered."""
        return role in self.roles


class _Claims(Struct):
    """Claims that are read here; the broker checks all of them."""

    sub: str
    tenant: str
    exp: float
    roles: frozenset[str] = frozenset()


def login_of(request: HTTPConnection) -> Login:
    """Find the login of a request. Raises `Unauthenticated`: there is none, or it is over."""
    services = services_of(request)
    login = _carried(request, services)
    if login.expires_s <= services.now_s():
        raise Unauthenticated(f"the token has expired: {AGAIN}")
    if services.sessions.has_ended(login.session):
        raise Unauthenticated(f"this session was logged out: {AGAIN}")
    return login


def _carried(request: HTTPConnection, services: Services) -> Login:
    given = request.headers.get("authorization", "")
    if given:
        if not given.lower().startswith(_BEARER):
            raise Unauthenticated("only bearer tokens are accepted: `Authorization: Bearer TOKEN`")
        return login_with(given[len(_BEARER) :].strip(), By.BEARER)
    sealed = services.cookies.sealed_in(request)
    if not sealed:
        raise Unauthenticated(NONE_API if request.url.path.startswith(API) else NONE)
    login = login_with(services.cookies.open(sealed), By.COOKIE, sealed)
    services.clients.vouch(login.token)
    return login


def login_with(token: str, by: By, sealed: str = "") -> Login:
    """Make the login of a token; `sealed` is the cookie that it came in. Raises `Unauthenticated`: it is no token."""
    parts = token.split(".")
    if len(parts) != _PARTS or not token.isascii() or not token.isprintable() or len(token) > TOKEN_BYTES_MAX:
        raise Unauthenticated("this is no token: `airunner token --subject NAME` prints one")
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=="), type=_Claims)
    except (ValueError, RecursionError, binascii.Error) as error:
        raise Unauthenticated("the claims of this token cannot be read") from error
    named = blake2b((sealed or token).encode(), digest_size=_SESSION_BYTES).hexdigest()
    return Login(token, claims.sub, claims.tenant, claims.roles, by, Session(named, claims.exp))
