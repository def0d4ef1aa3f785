"""Who asks, and what that one may do.

A principal comes out of a verified token (certs/tokens.py) and belongs to exactly one tenant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from airunner.protocol.errors import Forbidden, OperatorError
from airunner.protocol.names import fits_name


class Role(StrEnum):
    """What a request may need; `protocol/messages.py` says which message needs which."""

    SUBMIT = "submit"
    READ = "read"
    WORK = "work"
    ADMIN = "admin"


DEFAULT_TENANT: Final = "default"
QUEUES_BOUND_MAX: Final = 32  # queues that one key or token may be bound to: a token stays within its frame
ALL_ROLES: Final = frozenset(Role)


QueueScope = frozenset[str] | None
"""The queues that a key or a token is bound to; None: every queue of its tenant."""


def narrowed(scope: QueueScope, other: QueueScope) -> QueueScope:
    """The queues that both scopes allow."""
    if scope is None or other is None:
        return other if scope is None else scope
    return scope & other


def check_queue_names(names: Iterable[str]) -> frozenset[str]:
    """The queues of a `--queue` option, checked.

    Raises `OperatorError`: a name that no queue may have, or more than `QUEUES_BOUND_MAX`.
    """
    queues = frozenset(names)
    for name in queues:
        if not fits_name(name):
            raise OperatorError(f"--queue {name!r}: give letters, digits and any of _.@:/+-, not beginning with a sign")
    if len(queues) > QUEUES_BOUND_MAX:
        raise OperatorError(f"--queue: a key or a token is bound to at most {QUEUES_BOUND_MAX} queues")
    return queues


class Principal(Struct, frozen=True):
    """`subject` of `tenant`, with `roles` in `queues`, until the instant `expires_s` (Unix seconds; then no more)."""

    subject: str
    tenant: str
    roles: frozenset[Role]
    expires_s: float
    queues: QueueScope = None

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
