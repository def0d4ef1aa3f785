"""Login links: a link logs in one browser, once, within five minutes of being made.

A link is a file `$AIRUNNER_HOME/web/links/HASH`, named by the SHA-256 of its secret, with its token and when it ends.
It is redeemed by removing the file, which one process alone can do: so it is used once, whatever is killed, and the
disk holds no secret of a link.
"""

from __future__ import annotations

import secrets
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from airunner.certs.secretfile import create, make_folder, read_secret
from airunner.protocol.errors import NotFound, OperatorError

LINK_S: Final = 300  # five minutes: to copy it from a terminal to a browser
SECRET_BYTES: Final = 32
SECRET_CHARS_MAX: Final = 64
_GONE: Final = "this link was used before, or is older than five minutes: `airunner login-link` prints another"


class _Link(Struct, frozen=True):
    """Content of a link's file: the token, and when the link ends, in Unix seconds."""

    token: str
    ends_s: float


class LoginLinks:
    """Login links in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "links"

    def make(self, token: str, now_s: float) -> str:
        """Make a link for a token, and return its secret. Raises `OperatorError`: it cannot be written."""
        make_folder(self._folder)
        self._remove_old(now_s)
        secret = secrets.token_urlsafe(SECRET_BYTES)
        made = create(self._path(secret), msgspec.json.encode(_Link(token, now_s + LINK_S)))
        assert made, "two links have one secret"
        return secret

    def redeem(self, secret: str, now_s: float) -> str:
        """Return the token of a link, and end the link. Raises `NotFound`: it was used, is too old, or never was."""
        path = self._path(secret[:SECRET_CHARS_MAX])
        try:
            link = msgspec.json.decode(read_secret(path, "the login link"), type=_Link)
            path.unlink()  # fails for all but one of those that redeem it
        except (OperatorError, OSError, ValueError) as error:
            raise NotFound(_GONE) from error
        if link.ends_s <= now_s:
            raise NotFound(_GONE)
        return link.token

    def _remove_old(self, now_s: float) -> None:
        """Remove the files of links that have ended."""
        for path in self._folder.iterdir():
            try:
                if path.stat().st_mtime + LINK_S <= now_s:
                    path.unlink()
            except OSError:
                continue  # it was redeemed meanwhile

    def _path(self, secret: str) -> Path:
        return self._folder / sha256(secret.encode()).hexdigest()
