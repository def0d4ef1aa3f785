"""Issuer: asks the OpenID provider what it is (discovery), for its keys (JWKS) and for ID tokens (the token endpoint).

What it says about itself and its keys is kept for `KEPT_S`. For an ID token with an unknown key the keys are fetched
again, every `ROTATION_S` at most: so keys rotate without a restart, and a flood of tokens is no flood at the issuer.
Nothing is fetched until the first login: the server starts, and serves those who are logged in, without the issuer.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote_plus, urlsplit

import anyio
import httpx2
import msgspec
from joserfc.jwk import KeySet
from msgspec import Meta, Struct

from airunner.client.web.oidc.attempt import AGAIN, with_query
from airunner.client.web.oidc.idtoken import Identity, UnknownKey, check_id_token, usable_keys
from airunner.client.web.oidc.settings import OidcSettings, is_loopback, is_safe_address
from airunner.protocol.errors import EXIT_UNAVAILABLE, Forbidden, OperatorError

REQUEST_S: Final = 10.0  # for one answer of the issuer: a browser waits for it
ANSWER_BYTES_MAX: Final = 1_048_576  # discovery, keys and tokens have some KiB each
KEPT_S: Final = 600  # of discovery and keys: so long is a key trusted that the issuer has withdrawn
ROTATION_S: Final = 10  # between fetches for unknown keys
DISCOVERY: Final = "/.well-known/openid-configuration"
OPTIONAL_SCOPES: Final = ("profile", "email", "groups")  # asked for where the issuer lists them
_ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}\Z")  # codes of RFC 6749 and of OpenID Connect; other text is not shown
_OK: Final = 200
_ERROR_MIN: Final = 500

_Address = Annotated[str, Meta(min_length=1, max_length=2_000)]
_T = TypeVar("_T")
_JSON: Final = {"Accept": "application/json"}


class IssuerAway(OperatorError):
    """The issuer does not answer, or not as OpenID Connect says."""

    def __init__(self, settings: OidcSettings, problem: str) -> None:
        super().__init__(f"the issuer {settings.issuer} cannot be used: {problem}", exit_code=EXIT_UNAVAILABLE)


class Discovery(Struct, frozen=True):
    """Description of an issuer by itself (OpenID Connect Discovery 1.0, 3)."""

    issuer: str
    authorization_endpoint: _Address
    token_endpoint: _Address
    jwks_uri: _Address
    end_session_endpoint: str = ""
    scopes_supported: tuple[str, ...] = ()
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class _Tokens(Struct, frozen=True):
    id_token: Annotated[str, Meta(min_length=1)]


class _KeySet(Struct, frozen=True):
    keys: list[Any]


class _Failure(Struct, frozen=True):
    error: str = ""


class Issuer:
    """Issuer of `settings`. `steady_s` is a steady clock; `report` gets a line for each problem of the set-up."""

    def __init__(
        self,
        settings: OidcSettings,
        steady_s: Callable[[], float],
        report: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self._steady_s = steady_s
        self._report = report
        self._turn = anyio.Lock()  # the second login waits for what the first one fetches
        self._discovery: Discovery | None = None
        self._keys: KeySet | None = None
        self._discovered_s = self._fetched_s = self._rotated_s = float("-inf")

    async def discovery(self) -> Discovery:
        """Return what the issuer says about itself. Raises `IssuerAway`."""
        async with self._turn:
            return await self._discover()

    async def id_token(self, code: str, verifier: str, redirect_uri: str) -> str:
        """Redeem a code for its ID token. Raises `IssuerAway`; `Forbidden`: the issuer refuses this code."""
        settings, form = self.settings, {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        discovery = await self.discovery()
        auth = None
        if not settings.client_secret:
            form["client_id"] = settings.client_id
        elif "client_secret_basic" in discovery.token_endpoint_auth_methods_supported:
            # RFC 6749, 2.3.1: both are encoded as in forms first.
            auth = httpx2.BasicAuth(quote_plus(settings.client_id), quote_plus(settings.client_secret))
        else:
            form |= {"client_id": settings.client_id, "client_secret": settings.client_secret}
        form["code_verifier"] = verifier
        status, answer = await self._ask("POST", discovery.token_endpoint, data=form, auth=auth)
        if status != _OK:
            raise self._refusal(status, answer)
        return self._decoded(answer, _Tokens, "its token endpoint gave no ID token").id_token

    async def identity(self, id_token: str, nonce: str, now_s: float) -> Identity:
        """Check an ID token, with new keys if it needs them. Raises `IssuerAway`; `Forbidden`: it is refused."""
        keys = await self._published()
        for _ in range(2):
            try:
                return check_id_token(id_token, keys, self.settings, nonce, now_s)
            except UnknownKey:
                keys = await self._published(unlike=keys)
        raise Forbidden("the ID token of the issuer is refused: it is signed with a key that is unknown")

    async def logout_address(self, after: str) -> str | None:
        """Return where the browser ends its session at the issuer, and then goes `after`; None: it offers none."""
        end = (await self.discovery()).end_session_endpoint
        if not end or not is_safe_address(end):
            return None
        return with_query(end, client_id=self.settings.client_id, post_logout_redirect_uri=after)

    async def _discover(self) -> Discovery:
        if self._discovery is not None and self._steady_s() - self._discovered_s < KEPT_S:
            return self._discovery
        status, answer = await self._ask("GET", self.settings.issuer.rstrip("/") + DISCOVERY)
        if status != _OK:
            raise self._away(f"{DISCOVERY} is answered with {status}; is the address right?")
        found = self._decoded(answer, Discovery, f"{DISCOVERY} is no description of an issuer")
        if found.issuer != self.settings.issuer:  # an issuer that speaks for another would be believed about its users
            raise self._away(f"it calls itself {found.issuer[:200]!r}; give exactly that as --oidc-issuer")
        for address in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
            if not is_safe_address(address):
                raise self._away(f"its address {address[:200]!r} is without TLS")
        self._discovery, self._discovered_s = found, self._steady_s()
        return found

    async def _published(self, unlike: KeySet | None = None) -> KeySet:
        """Return the keys of the issuer; newer ones than `unlike`, in which one is missing, if they may be fetched."""
        async with self._turn:
            now_s = self._steady_s()
            is_rotation = self._keys is unlike is not None and now_s - self._rotated_s >= ROTATION_S
            if self._keys is None or now_s - self._fetched_s >= KEPT_S or is_rotation:
                if is_rotation:
                    self._rotated_s = now_s  # also if the issuer does not answer
                status, answer = await self._ask("GET", (await self._discover()).jwks_uri)
                if status != _OK:
                    raise self._away(f"its keys are answered with {status}")
                self._keys = usable_keys(self._decoded(answer, _KeySet, "its keys are no JWKS").keys)
                self._fetched_s = now_s
            return self._keys

    async def _ask(
        self, method: str, address: str, *, data: dict[str, str] | None = None, auth: httpx2.Auth | None = None
    ) -> tuple[int, bytes]:
        """Ask the issuer, and return the status and the answer. No redirect is followed: a code goes nowhere else."""
        here = is_loopback(urlsplit(address).hostname or "")  # no proxy leads there
        try:
            with anyio.fail_after(REQUEST_S):
                async with (
                    httpx2.AsyncClient(verify=_trusted(), timeout=REQUEST_S, trust_env=not here) as http,
                    http.stream(
                        method, address, data=data, auth=auth or httpx2.USE_CLIENT_DEFAULT, headers=_JSON
                    ) as response,
                ):
                    answer = b""
                    async for chunk in response.aiter_bytes():
                        answer += chunk
                        if len(answer) > ANSWER_BYTES_MAX:
                            raise self._away(f"it answers with more than {ANSWER_BYTES_MAX:,} bytes")
                    return response.status_code, answer
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as error:
            raise self._away(f"it does not answer ({type(error).__name__})") from error

    def _refusal(self, status: int, answer: bytes) -> IssuerAway | Forbidden:
        """Return the error of a token endpoint's answer: whether the code is refused, or this server."""
        if status >= _ERROR_MIN:
            return self._away(f"its token endpoint answers with {status}")
        try:
            code = msgspec.json.decode(answer, type=_Failure).error
        except ValueError:
            code = ""
        shown = shown_error(code)
        if code != "invalid_grant":
            self._report(f"--oidc-issuer {self.settings.issuer}: a code was not redeemed: {shown} ({status})")
        return Forbidden(f"the issuer refuses this login: {shown}; {AGAIN}")

    def _decoded(self, answer: bytes, kind: type[_T], problem: str) -> _T:
        try:
            return msgspec.json.decode(answer, type=kind)
        except ValueError as error:
            raise self._away(f"{problem} ({error})") from error

    def _away(self, problem: str) -> IssuerAway:
        error = IssuerAway(self.settings, problem)
        self._report(error.message)
        return error


@cache
def _trusted() -> ssl.SSLContext:
    """Load the certificates that are trusted, which takes longer than a request; SSL_CERT_FILE names others."""
    return httpx2.create_ssl_context()


def shown_error(code: str) -> str:
    """Return the issuer's code of an error as it may be shown: text of an address is nobody's word."""
    return code if _ERROR_CODE.match(code) else "an error without a name"
