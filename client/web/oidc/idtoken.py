"""ID token: checks what the issuer signed about a user, as OpenID Connect Core 1.0, 3.1.3.7, says.

| claim | check |
|---|---|
| signature | by a key of the issuer, with an algorithm of `ALGORITHMS`: not `none`, and no HMAC |
| `iss` | is the issuer |
| `aud`, `azp` | this client; with several audiences `azp` says that the token was made for this one |
| `iat`, `nbf`, `exp` | now is between them; for the first two, clocks may differ by `SKEW_S` |
| `nonce` | that of the attempt |

Keys that cannot be used, such as those of unknown kinds, are ignored (RFC 7517, 5).
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from typing import Final, cast

from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from msgspec import Struct

from airunner.client.web.oidc.settings import OidcSettings
from airunner.protocol.errors import Forbidden
from airunner.protocol.names import NAME_CHARS_MAX
from airunner.protocol.printable import is_plain

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
SKEW_S: Final = 60  # between the clocks of the issuer and of this machine
KEYS_MAX: Final = 64  # issuers have two to four: the present one, the next and the last
RSA_BITS_MIN: Final = 2_048  # RFC 7518, 3.3
SESSION_S_MAX: Final = 28_800  # eight hours, a day's work; then the issuer is asked again
GROUPS_MAX: Final = 10_000  # of one user, before the token's bound of 128,000 bytes
_SIGNATURES: Final = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)  # unknown headers are ignored
_KINDS: Final[Mapping[str, type[RSAKey | ECKey | OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


class UnknownKey(Exception):
    """The ID token is signed with a key that is not among these: the issuer may have a new one."""


class Identity(Struct, frozen=True):
    """Identity of a user: the subject, the groups, and when a session with it ends (Unix seconds)."""

    subject: str
    groups: tuple[str, ...]
    expires_s: float


def usable_keys(published: Sequence[object]) -> KeySet:
    """Return those of the published keys (JWKS) that can verify an ID token."""
    return KeySet([key for each in published[:KEYS_MAX] if (key := _usable_key(each)) is not None])


def _usable_key(published: object) -> Key | None:
    if not isinstance(published, dict):
        return None
    members = cast("dict[str, str | list[str]]", published)
    kind = _KINDS.get(str(members.get("kty")))
    if kind is None:
        return None
    try:
        if kind is RSAKey and _bits(str(members["n"])) < RSA_BITS_MIN:
            return None
        return kind.import_key(members)
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _bits(number: str) -> int:
    """Return the length of a number as keys have it: base64url of its bytes, the highest first (RFC 7518, 2)."""
    return int.from_bytes(urlsafe_b64decode(number + "==")).bit_length()


def check_id_token(token: str, keys: KeySet, settings: OidcSettings, nonce: str, now_s: float) -> Identity:
    """Check an ID token of the attempt with this nonce.

    Raises `UnknownKey`, which other keys may mend; `Forbidden`: it is not for this client, or not now.
    """
    claims = _signed_claims(token, keys)
    expected = jwt.JWTClaimsRegistry(
        now=int(now_s),
        leeway=SKEW_S,
        iss={"essential": True, "value": settings.issuer},
        sub={"essential": True},
        aud={"essential": True, "value": settings.client_id},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True, "value": nonce},
    )
    try:
        expected.validate(dict(claims))
    except ClaimError as error:
        raise _refused(f"its claim {error.claim} is not what was expected") from error
    audience = claims["aud"]
    is_shared = isinstance(audience, list) and len(cast("list[str]", audience)) > 1
    if claims.get("azp", None if is_shared else settings.client_id) != settings.client_id:
        raise _refused("it was made for another client (azp)")
    expires_s = cast("float", claims["exp"])
    if expires_s <= now_s:  # without the skew: the session would be over before it began
        raise _refused("it has expired; compare the clocks of the issuer and of this server")
    return Identity(_subject(claims, settings), _groups(claims, settings), float(min(expires_s, now_s + SESSION_S_MAX)))


def _signed_claims(token: str, keys: KeySet) -> Mapping[str, object]:
    try:
        return jwt.decode(token, keys, registry=_SIGNATURES).claims
    except InvalidKeyIdError as error:
        raise UnknownKey from error
    except JoseError as error:
        raise _refused(f"its signature or form is not accepted ({error.error})") from error
    except (ValueError, TypeError) as error:  # a key of another kind than the algorithm's, or what is no JSON
        raise _refused("its signature or form is not accepted") from error


def _subject(claims: Mapping[str, object], settings: OidcSettings) -> str:
    name = settings.subject_claim
    subject = claims.get(name)
    if not isinstance(subject, str) or not 1 <= len(subject) <= NAME_CHARS_MAX or not is_plain(subject):
        raise _refused(f"its claim {name} is no subject: expected a text of 1 to {NAME_CHARS_MAX} visible characters")
    if name == "email" and claims.get("email_verified") is not True:
        raise _refused("the issuer has not verified this e-mail address")
    return subject


def _groups(claims: Mapping[str, object], settings: OidcSettings) -> tuple[str, ...]:
    groups = claims.get(settings.groups_claim)
    listed = cast("list[object]", groups) if isinstance(groups, list) else [groups]
    return tuple(group for group in listed[:GROUPS_MAX] if isinstance(group, str))


def _refused(reason: str) -> Forbidden:
    return Forbidden(f"the ID token of the issuer is refused: {reason}")
