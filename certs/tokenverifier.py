"""Token verification: checks the signature and the claims of a token, and caches the tokens that were accepted.

`tokens` says what a token holds. The caller passes the time in Unix seconds: `exp` is checked exactly, `iat` and `nbf`
with `LEEWAY_S`.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from airunner.certs.principal import Principal
from airunner.certs.tokenkeys import thumbprint
from airunner.certs.tokens import ALGORITHM, AUDIENCE, ISSUER, Claims
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import Unauthenticated
from airunner.protocol.frames import TOKEN_BYTES_MAX

LEEWAY_S: Final = 60.0  # how far the signer's clock may be ahead of the broker's
CACHE_ENTRIES_MAX: Final = 4_096  # about 2 MiB; each live peer uses one or two tokens at a time

_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
"""RFC 7515, 3.1. If other characters were skipped, one token would have endless spellings, none of them cached."""


class _Header(Struct, frozen=True):
    """Token header: the fields that are read before the signature is checked, and so are not proven."""

    alg: str
    kid: str | None = None
    typ: str | None = None
    crit: list[str] | None = None


class TokenVerifier:
    """Token verifier for tokens signed with one of `keys`."""

    def __init__(self, keys: Iterable[ec.EllipticCurvePublicKey]) -> None:
        self._keys: Mapping[str, ec.EllipticCurvePublicKey] = {thumbprint(key): key for key in keys}
        self._jws = jwt.PyJWS(algorithms=[ALGORITHM])  # no other algorithm can be chosen

    def verify(self, token: bytes, now_s: float) -> Principal:
        """Verify `token` at `now_s` (Unix seconds) and return its principal. Raises `Unauthenticated`."""
        claims = self._authentic_claims(token)
        _check_meant_for_us(claims)
        _check_time(claims, now_s)
        return Principal(claims.sub, claims.tenant, claims.roles, claims.exp, claims.queues, claims.caches)

    def _authentic_claims(self, token: bytes) -> Claims:
        """Return the claims of a token whose signature is valid."""
        key = self._key_of(token)
        try:
            payload = self._jws.decode(token, key, algorithms=[ALGORITHM])
        except jwt.InvalidTokenError as error:
            raise Unauthenticated("the token's signature is not valid") from error
        try:
            return msgspec.json.decode(payload, type=Claims)
        except UNDECODABLE as error:
            raise Unauthenticated("the token's claims are not those of airunner: " + str(error)[:200]) from error

    def _key_of(self, token: bytes) -> ec.EllipticCurvePublicKey:
        """Return the key that the token's header names, if it is one of ours."""
        if not token:
            raise Unauthenticated(
                "a token is needed: use --token or AIRUNNER_TOKEN, or a home that holds the signing key"
            )
        if len(token) > TOKEN_BYTES_MAX:
            raise Unauthenticated(f"the token is longer than {TOKEN_BYTES_MAX} bytes")
        if not _COMPACT.fullmatch(token):
            raise Unauthenticated("the token is not a JWT")
        try:
            header = msgspec.json.decode(_decoded(token.partition(b".")[0]), type=_Header)
        except (ValueError, *UNDECODABLE) as error:
            raise Unauthenticated("the token is not a JWT") from error
        if header.crit is not None:
            raise Unauthenticated("the token requires extensions (crit) that are not supported")
        if header.alg != ALGORITHM:
            raise Unauthenticated(f"the token is not signed with {ALGORITHM}")
        if header.typ is not None and header.typ.upper() != "JWT":
            raise Unauthenticated("the token's type is not JWT")
        if header.kid is None:
            raise Unauthenticated("the token does not name the key that signed it (kid)")
        key = self._keys.get(header.kid)
        if key is None:
            raise Unauthenticated("the token is signed with a key that this broker does not know")
        return key


class CachedVerifier:
    """Token cache: remembers the tokens that `inner` accepted, so that their signatures are not checked again.

    It stores hashes instead of tokens, retains the most recently used until they expire, and stores no refusal.
    """

    def __init__(self, inner: TokenVerifier, entries_max: int = CACHE_ENTRIES_MAX) -> None:
        assert entries_max > 0
        self._inner = inner
        self._entries_max = entries_max
        self._principals: dict[bytes, Principal] = {}  # least recently used first

    def known(self, token: bytes, now_s: float) -> Principal | None:
        """Return the cached principal, at a hundredth of the cost of verifying; None: the token has to be verified."""
        name = _name_of(token)
        principal = self._principals.pop(name, None)
        if principal is None or now_s >= principal.expires_s:
            return None
        self._principals[name] = principal
        return principal

    def verify(self, token: bytes, now_s: float) -> Principal:
        """Verify the token as `TokenVerifier.verify` does, and cache the result."""
        if (known := self.known(token, now_s)) is not None:
            return known
        principal = self._inner.verify(token, now_s)
        if len(self._principals) >= self._entries_max:
            del self._principals[next(iter(self._principals))]
        self._principals[_name_of(token)] = principal
        return principal


def _decoded(segment: bytes) -> bytes:
    """Decode a segment, whose characters are checked. Raises `ValueError`.

    PyJWT would decode all three segments here, and again for the signature: a fifth of what a verification takes.
    """
    return urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))


def _name_of(token: bytes) -> bytes:
    return blake2b(token, digest_size=32).digest()


def _check_meant_for_us(claims: Claims) -> None:
    if claims.iss != ISSUER:
        raise Unauthenticated(f"the token's issuer (iss) is not {ISSUER!r}")
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if AUDIENCE not in audiences:
        raise Unauthenticated(f"the token's audience (aud) is not {AUDIENCE!r}")


def _check_time(claims: Claims, now_s: float) -> None:
    if now_s >= claims.exp:
        raise Unauthenticated(
            f"the token expired at {_printed(claims.exp)}, and the broker's clock shows {_printed(now_s)}: get a new "
            "one, or set the clock of the machine that signed it"
        )
    begin_s = max(claims.iat, claims.nbf)
    if begin_s > now_s + LEEWAY_S:
        raise Unauthenticated(
            f"the token is valid from {_printed(begin_s)}, and the broker's clock shows {_printed(now_s)}: set the "
            "clock that is wrong"
        )


def _printed(instant_s: float) -> str:
    return datetime.fromtimestamp(instant_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
