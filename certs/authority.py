"""Token authority: the interface that turns a request's token into a principal, and its stand-in for `--no-auth`.

Separate from `tokens`, so that a broker without tokens imports no cryptography.
"""

from __future__ import annotations

from typing import Protocol

from airunner.certs.principal import ANONYMOUS, Principal


class Verifier(Protocol):
    """Token verifier: turns a valid token into the principal that it names."""

    def verify(self, token: bytes, now_s: float) -> Principal:
        """Raises `Unauthenticated`, which says what is wrong with the token and never repeats it."""
        ...


class Authority(Verifier, Protocol):
    """Token verifier with a cache: a token that it knows costs next to nothing, another one a signature check."""

    def known(self, token: bytes, now_s: float) -> Principal | None:
        """The principal, where this very token was verified before and has not expired."""
        ...


class NoVerifier:
    """Token authority of `--no-auth` and `airunner run`: every request is the `ANONYMOUS` principal's."""

    def known(self, token: bytes, now_s: float) -> Principal:
        """The anonymous principal is always known."""
        return self.verify(token, now_s)

    def verify(self, token: bytes, now_s: float) -> Principal:
        """Never raises; looks at nothing."""
        del token, now_s
        return ANONYMOUS
