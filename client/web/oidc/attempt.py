"""Login attempt: what binds the answer of the issuer to the browser that began the login.

It is sealed in a cookie, so that the server remembers nothing: it may be killed between the two halves of a login.

- `state` shows that the answer belongs to this browser (no login is forced on it);
- `nonce` shows that the ID token was made for this attempt (none is replayed);
- `verifier` shows the issuer that who redeems the code is who began (RFC 7636: a code that leaks is worth nothing).
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from hashlib import blake2b, sha256
from hmac import compare_digest
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from msgspec import Struct

from airunner.protocol.errors import BadRequest

ATTEMPT_S: Final = 600  # to log in at the issuer, with a second factor that has to be found first
RANDOM_BYTES: Final = 32  # of state, nonce and verifier each, as RFC 7636 recommends
_HEADER: Final = {"alg": "dir", "enc": "A256GCM"}
_ALGORITHMS: Final = ["dir", "A256GCM"]
_PERSON: Final = b"airunner oidc"
AGAIN: Final = "log in again"


class Attempt(Struct, frozen=True):
    """Attempt to log in, which leads to the path `next_path`; void from `until_s` (Unix seconds)."""

    state: str
    nonce: str
    verifier: str
    next_path: str
    until_s: float

    def answers(self, state: str) -> bool:
        """Return whether an answer with this state is the one to this attempt."""
        return compare_digest(self.state.encode(), state.encode(errors="replace"))


class Attempts:
    """Attempts in cookies, sealed with a key that is derived from that of the session cookies."""

    def __init__(self, cookie_key: bytes) -> None:
        self._key = OctKey.import_key(blake2b(key=cookie_key, digest_size=32, person=_PERSON).digest())

    def seal(self, attempt: Attempt) -> str:
        """Seal an attempt for its cookie."""
        return jwe.encrypt_compact(_HEADER, msgspec.json.encode(attempt), self._key, algorithms=_ALGORITHMS)

    def open(self, sealed: str, now_s: float) -> Attempt:
        """Open the attempt of a cookie. Raises `BadRequest`: there is none, it was changed, or is too old."""
        if not sealed:
            raise BadRequest(f"this login did not begin in this browser, or its cookie is gone: {AGAIN}")
        try:
            plain = jwe.decrypt_compact(sealed, self._key, algorithms=_ALGORITHMS).plaintext
            attempt = msgspec.json.decode(plain or b"", type=Attempt)
        except (JoseError, ValueError) as error:
            raise BadRequest(f"the cookie of this login cannot be read: {AGAIN}") from error
        if attempt.until_s <= now_s:
            raise BadRequest(f"this login took more than {ATTEMPT_S // 60} minutes: {AGAIN}")
        return attempt


def new_attempt(next_path: str, now_s: float) -> Attempt:
    """Begin an attempt."""
    state, nonce, verifier = (secrets.token_urlsafe(RANDOM_BYTES) for _ in range(3))
    return Attempt(state, nonce, verifier, next_path, now_s + ATTEMPT_S)


def challenge_of(verifier: str) -> str:
    """Return the challenge S256 of a verifier (RFC 7636, 4.2)."""
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def with_query(address: str, **parameters: str) -> str:
    """Add parameters to an address of the issuer, which may have some already."""
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(parameters)}"
