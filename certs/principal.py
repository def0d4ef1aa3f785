"""Who asks, and what that one may do.

A principal comes out of a verified token (certs/tokens.py) and belongs to exactly one tenant.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

from msgspec import Struct

from airunner.protocol.errors import Forbidden, OperatorError


class Role(StrEnum):
    """What a request may need; `protocol/messages.py` says which message needs which."""

    SUBMIT = "submit"
    READ = "read"
    WORK = "work"
    ADMIN = "admin"


DEFAULT_TENANT: Final = "default"
ALL_ROLES: Final = frozenset(Role)


class Principal(Struct, frozen=True):
    """`subject` of `tenant`, with `roles`, until the instant `expires_s` (Unix seconds; then no more)."""

    subject: str
    tenant: str
    roles: frozenset[Role]
    expires_s: float

    def require(self, role: Role) -> None:
        """Raises `Forbidden` unless this principal has `role`; no role implies another."""
        if role not in self.roles:
            raise Forbidden(f"this needs the role {role}, and the token of {self.subject} does not carry it")


ANONYMOUS: Final = Principal("anonymous", DEFAULT_TENANT, ALL_ROLES, math.inf)
"""Everybody, where tokens are turned off."""


def parse_roles(text: str) -> frozenset[Role]:
    """The roles in a comma-separated list.

    Raises `OperatorError`: none, or one that does not exist.
    """
    words = [word.strip() for word in text.split(",")]
    try:
        return frozenset(Role(word) for word in words)
    except ValueError as error:
        raise OperatorError(f"roles {text!r}: give one or more of {','.join(Role)}") from error
