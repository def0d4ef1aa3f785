"""Session cookie: seals the token of a browser, so that the server remembers nothing of it but one key.

The cookie is a JWE (RFC 7516) with `dir` and A256GCM. Its key is `$AIRUNNER_HOME/web/cookie.key`, which is made when
it is missing: sessions survive the server, and removing the file ends all of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from starlette.requests import HTTPConnection
from starlette.responses import Response

from airunner.certs.secretfile import create, make_folder, read_secret
from airunner.protocol.errors import OperatorError, Unauthenticated

NAME: Final = "airunner"
SECURE_NAME: Final = "__Host-airunner"  # RFC 6265bis: only https, only this host, only the path /
KEY_BYTES: Final = 32  # of AES-256
COOKIE_BYTES_MAX: Final = 4_000  # browsers take 4,096 bytes with the name and the attributes
UNKNOWN: Final = "this session is not known here: log in again"
_ALGORITHMS: Final = ("dir", "A256GCM")
_HEADER: Final = {"alg": "dir", "enc": "A256GCM"}


class Cookies:
    """Session cookies with one key; `secure`: browsers reach this server by https."""

    def __init__(self, key: bytes, *, secure: bool) -> None:
        self._key = OctKey.import_key(key)
        self._secure = secure
        self._head = self.seal("").partition(".")[0]
        self.name = SECURE_NAME if secure else NAME

    def seal(self, token: str) -> str:
        """Seal a token. Raises `OperatorError`: it is too long for a cookie."""
        sealed = jwe.encrypt_compact(_HEADER, token.encode(), self._key, algorithms=list(_ALGORITHMS))
        if len(sealed) > COOKIE_BYTES_MAX:
            raise OperatorError(f"this token has {len(token)} characters, which is too long for a cookie")
        return sealed

    def open(self, sealed: str) -> str:
        """Open a sealed token. Raises `Unauthenticated`: it was sealed with another key, or changed.

        Only what begins with our own header is read: the library expects no hostile one.
        """
        if sealed.partition(".")[0] != self._head:
            raise Unauthenticated(UNKNOWN)
        try:
            plain = jwe.decrypt_compact(sealed, self._key, algorithms=list(_ALGORITHMS)).plaintext
            return (plain or b"").decode()
        except (JoseError, ValueError) as error:
            raise Unauthenticated(UNKNOWN) from error

    def sealed_in(self, request: HTTPConnection) -> str:
        """Return the cookie of a request, or an empty text."""
        return request.cookies.get(self.name, "")

    def set(self, response: Response, sealed: str, left_s: float) -> None:
        """Set the cookie, for the `left_s` seconds that the token has left."""
        response.set_cookie(
            self.name, sealed, max_age=max(1, int(left_s)), path="/", secure=self._secure, httponly=True, samesite="lax"
        )

    def clear(self, response: Response) -> None:
        """Remove the cookie from the browser."""
        response.delete_cookie(self.name, path="/", secure=self._secure, httponly=True, samesite="lax")


def cookie_key(folder: Path) -> bytes:
    """Read the key of the cookies, or make it. Raises `OperatorError`: its file cannot be used."""
    make_folder(folder)
    path = folder / "cookie.key"
    create(path, os.urandom(KEY_BYTES))
    key = read_secret(path, "the key of the cookies")
    if len(key) != KEY_BYTES:
        raise OperatorError(f"{path} has {len(key)} bytes, not {KEY_BYTES}: remove it, and everybody logs in again")
    return key
