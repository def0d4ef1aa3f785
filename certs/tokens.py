"""Tokens: JWTs signed with ES256, which state subject, tenant, roles and expiry.

The header is `{"alg": "ES256", "kid": <thumbprint of the key>, "typ": "JWT"}`; the claims are `Claims` below.

How RFC 8725 (JSON Web Token Best Current Practices) is met, point by point
- 3.1, 3.2  one algorithm, ES256, fixed here and never taken from the token; keys are used for no other algorithm.
- 3.3, 3.4  the signature is checked before any claim is used; `cryptography` refuses points off the curve.
- 3.5       keys are generated, never derived from a password.
- 3.6, 3.7  nothing is compressed or decompressed; JSON is UTF-8 or it is refused.
- 3.8       the issuer is fixed, the subject required; all keys belong to that issuer.
- 3.9       the audience is required and must be this system.
- 3.10      `kid` selects one of the known keys and does nothing else; `jku`, `x5u` and `jwk` are ignored.
- 3.11      `typ` is JWT or absent: a token of another declared type is refused.
- 3.12      keys, issuer and audience are used for one kind of token only.

A token with `crit` requires extensions (RFC 7515, 4.1.11); none are supported, so it is refused.

`tokenverifier` checks tokens with PyJWT. They are signed here without it, because its imports take a client longer than
all else until its first job. The caller passes the time in Unix seconds.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Meta, Struct

from airunner.certs.principal import ALL_ROLES, DEFAULT_TENANT, QUEUES_BOUND_MAX, QueueScope, Role
from airunner.certs.tokenkeys import thumbprint
from airunner.protocol.caches import CACHE_NAME_PATTERN, CacheScope
from airunner.protocol.errors import OperatorError
from airunner.protocol.misfits import misfit_in
from airunner.protocol.names import Label, Name
from airunner.protocol.printable import escaped, is_plain

ISSUER: Final = "airunner"
AUDIENCE: Final = "airunner"
ALGORITHM: Final = "ES256"
COORDINATE_BYTES: Final = 32  # of a number on the curve P-256
TTL_S_MIN: Final = 1  # the instants in a token are whole seconds
TTL_S_MAX: Final = 315_360_000  # ten years

_FLAGS: Final = {"sub": "subject", "queues": "queue", "caches": "cache"}
_LAST_INSTANT_S: Final = 253_402_300_799  # the end of the year 9999: `datetime` cannot print a later instant
_Instant = Annotated[float, Meta(ge=0, le=_LAST_INSTANT_S)]
_CacheLabel = Annotated[str, Meta(pattern=rf"{CACHE_NAME_PATTERN}|^[*]\Z")]


class Claims(Struct, frozen=True, omit_defaults=True):
    """Claims of a token; all are required except `nbf`, `queues` (absent: every queue of the tenant) and `caches`.

    `caches`: labels of the caches that jobs of the subject save, for which it has the right `cache:LABEL`.
    """

    iss: str
    aud: str | list[str]
    sub: Label
    tenant: Name
    roles: frozenset[Role]
    iat: _Instant
    exp: _Instant
    nbf: _Instant = 0
    queues: Annotated[frozenset[Name], Meta(min_length=1, max_length=QUEUES_BOUND_MAX)] | None = None
    caches: Annotated[frozenset[_CacheLabel], Meta(max_length=QUEUES_BOUND_MAX)] = frozenset()


class TokenSigner:
    """Token signer: makes tokens with one private key."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self._kid = thumbprint(key.public_key())

    def mint(
        self,
        *,
        subject: str,
        tenant: str = DEFAULT_TENANT,
        roles: Iterable[Role] = ALL_ROLES,
        queues: QueueScope = None,
        caches: CacheScope = frozenset(),
        ttl_s: float,
        now_s: float,
    ) -> str:
        """Make a token for `subject`, valid from `now_s` (Unix seconds) for `ttl_s` s, limited to `queues` if given.

        Its jobs save caches of the labels `caches`.

        Raises `OperatorError`: a subject, tenant or lifetime that no broker would accept.
        """
        if not TTL_S_MIN <= ttl_s <= TTL_S_MAX:
            raise OperatorError(
                f"the lifetime of a token is {TTL_S_MIN} s to {TTL_S_MAX} s (ten years), not {ttl_s:g} s"
            )
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "tenant": tenant,
            "roles": sorted(roles),
            "iat": int(now_s),
            "exp": int(now_s + ttl_s),
            **({} if queues is None else {"queues": sorted(queues)}),
            **({"caches": sorted(caches)} if caches else {}),
        }
        if (misfit := misfit_in(Claims, claims)) is not None:
            raise OperatorError(f"--{_FLAGS.get(misfit.field, misfit.field)}: {misfit.problem}")
        try:
            msgspec.convert(claims, Claims)
        except msgspec.ValidationError as error:  # queues, which have no words of their own
            raise OperatorError(f"the broker would refuse this token: {error}") from error
        if not is_plain(subject):
            raise OperatorError(f"--subject: {escaped(subject)} contains a control character or an invisible one")
        header = {"alg": ALGORITHM, "kid": self._kid, "typ": "JWT"}
        signed = b".".join(_base64url(msgspec.json.encode(part)) for part in (header, claims))
        return (signed + b"." + _base64url(self._sign(signed))).decode()

    def _sign(self, content: bytes) -> bytes:
        """Return the signature of RFC 7518, 3.4: the numbers R and S, where `cryptography` makes a DER sequence."""
        numbers = decode_dss_signature(self._key.sign(content, ec.ECDSA(SHA256())))
        return b"".join(number.to_bytes(COORDINATE_BYTES, "big") for number in numbers)


def _base64url(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")
