"""Token authority: the interface that turns a request's token into a principal, and its stand-in for `--no-auth`.

Separate from `tokens`, so that a broker without tokens imports no cryptography.
"""

from __future__ import annotations

from typing import Protocol

from airunner.certs.principal import ANONYMOUS, Principal


class Authority(Protocol):
    """Token authority: turns a valid token into its principal; only a token not cached costs a signature check."""

    def verify(self, token: bytes, now_s: float) -> Principal:
        """Verify `token` at `now_s` (Unix seconds) and return its principal.

        Raises `Unauthenticated`, whose message states the reason and never repeats the token.
        """
        ...

    def known(self, token: bytes, now_s: float) -> Principal | None:
        """Return the principal of a cached token; None: it is not cached or has expired, so it must be verified."""
        ...


class NoVerifier:
    """Token authority of `--no-auth` and `airunner run`: every request is from `ANONYMOUS`."""

    def known(self, token: bytes, now_s: float) -> Principal:
        """Return `ANONYMOUS`."""
        return self.verify(token, now_s)

    def verify(self, token: bytes, now_s: float) -> Principal:
        """Return `ANONYMOUS`, whatever the token; never raises."""
        del token, now_s
        return ANONYMOUS
