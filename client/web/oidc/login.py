"""Login by OpenID Connect: sends a browser to the issuer, and makes a token of what it comes back with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Final

from airunner.certs.home import Home
from airunner.certs.tokenkeys import find_signing_key
from airunner.certs.tokenpem import SIGNING_VARIABLE
from airunner.certs.tokens import TTL_S_MIN, TokenSigner
from airunner.client.web.localpath import local_path
from airunner.client.web.oidc.attempt import AGAIN, Attempt, Attempts, challenge_of, new_attempt, with_query
from airunner.client.web.oidc.idtoken import Identity
from airunner.client.web.oidc.issuer import OPTIONAL_SCOPES, Discovery, Issuer, shown_error
from airunner.client.web.oidc.settings import OidcSettings
from airunner.protocol.errors import BadRequest, Forbidden, OperatorError

CODE_CHARS_MAX: Final = 4_096  # the longest codes of issuers, which put a sealed token into it, have some 2,000
CALLBACK: Final = "/oidc/callback"


class Oidc:
    """Login by OpenID Connect at one issuer.

    `signer` makes the tokens, `attempts` seals what the browser keeps meanwhile, `public_url` is this server's address,
    and `now_s` the wall clock (Unix seconds).
    """

    def __init__(
        self, issuer: Issuer, signer: TokenSigner, attempts: Attempts, public_url: str, now_s: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        self._settings = issuer.settings
        self._signer = signer
        self._attempts = attempts
        self._redirect_uri = public_url.rstrip("/") + CALLBACK
        self._public_url = public_url
        self._now_s = now_s

    @property
    def issuer(self) -> str:
        """The issuer's address, which names it on pages."""
        return self._settings.issuer

    async def begin(self, next_path: str) -> tuple[str, str]:
        """Begin a login that leads to `next_path`; return the issuer's address, and the attempt for the cookie.

        Raises `IssuerAway`.
        """
        discovery = await self._issuer.discovery()
        attempt = new_attempt(local_path(next_path), self._now_s())
        address = with_query(
            discovery.authorization_endpoint,
            response_type="code",
            client_id=self._settings.client_id,
            redirect_uri=self._redirect_uri,
            scope=" ".join(self._scopes(discovery)),
            state=attempt.state,
            nonce=attempt.nonce,
            code_challenge=challenge_of(attempt.verifier),
            code_challenge_method="S256",
        )
        return address, self._attempts.seal(attempt)

    async def finish(self, answer: Mapping[str, str], sealed: str) -> tuple[str, str]:
        """Finish the attempt of a cookie with the answer of the issuer; return the token and the path.

        Raises `BadRequest`: the answer is not that to the attempt; `Forbidden`: the issuer, or the map, gives the user
        no access; `IssuerAway`.
        """
        attempt = self._attempts.open(sealed, self._now_s())
        code = await self._code(answer, attempt)
        id_token = await self._issuer.id_token(code, attempt.verifier, self._redirect_uri)
        now_s = self._now_s()
        identity = await self._issuer.identity(id_token, attempt.nonce, now_s)
        return self._token(identity, now_s), attempt.next_path

    async def logout_address(self) -> str | None:
        """Return where the browser ends its session at the issuer too; None: the issuer offers none.

        Raises `IssuerAway`.
        """
        return await self._issuer.logout_address(self._public_url + "/login")

    async def _code(self, answer: Mapping[str, str], attempt: Attempt) -> str:
        if not attempt.answers(answer.get("state", "")):
            raise BadRequest(f"this answer of the issuer belongs to another login: {AGAIN}")
        discovery = await self._issuer.discovery()
        iss = answer.get("iss")
        if iss is None and discovery.authorization_response_iss_parameter_supported:
            raise BadRequest(f"the answer does not name its issuer: {AGAIN}")
        if iss is not None and iss != self.issuer:
            raise BadRequest(f"this is the answer of another issuer: {AGAIN}")
        if "error" in answer:
            raise Forbidden(f"the issuer refuses this login: {shown_error(answer['error'])}")
        code = answer.get("code", "")
        if not 1 <= len(code) <= CODE_CHARS_MAX:
            raise BadRequest(f"the answer of the issuer has no code: {AGAIN}")
        return code

    def _token(self, identity: Identity, now_s: float) -> str:
        roles = self._settings.roles_of(identity.groups)
        if not roles:
            raise Forbidden(
                f"{identity.subject} is logged in at {self.issuer}, but none of this user's groups has access here: "
                "ask an operator to map one with --oidc-map"
            )
        ttl_s = max(TTL_S_MIN, identity.expires_s - now_s)
        return self._signer.mint(
            subject=identity.subject, tenant=self._settings.tenant, roles=roles, ttl_s=ttl_s, now_s=now_s
        )

    def _scopes(self, discovery: Discovery) -> tuple[str, ...]:
        offered = (scope for scope in OPTIONAL_SCOPES if scope in discovery.scopes_supported)
        return tuple(dict.fromkeys(("openid", *offered, *self._settings.scopes)))


def make_oidc(
    settings: OidcSettings, home: Home, cookie_key: bytes, public_url: str, report: Callable[[str], None]
) -> Oidc:
    """Make the login of these settings. Raises `OperatorError`: this machine has no key to sign tokens with."""
    key = find_signing_key(os.environ, home)
    if key is None:
        raise OperatorError(
            f"--oidc-issuer: users who log in get tokens that are signed here, and the key for that is missing: copy "
            f"{home.token_secret.name} of the broker's home to {home.token_secret}, or name it with {SIGNING_VARIABLE}"
        )
    issuer = Issuer(settings, time.monotonic, report)
    return Oidc(issuer, TokenSigner(key), Attempts(cookie_key), public_url, time.time)
