"""Principals: the authenticated senders of requests, and what each may do.

A principal comes from a verified token (certs/tokenverifier.py), or is `ANONYMOUS`, and belongs to exactly one tenant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from airunner.protocol.caches import CACHE_NAME_EXPECTED, EVERY_LABEL, CacheScope, fits_cache_name
from airunner.protocol.errors import Forbidden, OperatorError
from airunner.protocol.names import NAME_EXPECTED, fits_name


class Role(StrEnum):
    """Roles that requests require: each kind of request requires one, except Ping, which requires none."""

    SUBMIT = "submit"
    READ = "read"
    WORK = "work"
    ADMIN = "admin"


DEFAULT_TENANT: Final = "default"
QUEUES_BOUND_MAX: Final = 32  # queues that one key or token can be limited to, because a token has to fit its frame
ALL_ROLES: Final = frozenset(Role)


QueueScope = frozenset[str] | None
"""The queues that a key or a token is limited to; None: every queue of its tenant."""


def narrowed(scope: QueueScope, other: QueueScope) -> QueueScope:
    """Return the queues that both scopes allow."""
    if scope is None or other is None:
        return other if scope is None else scope
    return scope & other


def check_cache_labels(labels: Iterable[str]) -> CacheScope:
    """Check the labels of a `--cache` option: valid ones or `*`, at most `QUEUES_BOUND_MAX`; raises `OperatorError`."""
    scope = frozenset(labels)
    for label in scope:
        if label != EVERY_LABEL and not fits_cache_name(label):
            raise OperatorError(f"--cache {label!r}: expected {CACHE_NAME_EXPECTED}; or '*' for every label")
    if len(scope) > QUEUES_BOUND_MAX:
        raise OperatorError(f"--cache: a token has at most {QUEUES_BOUND_MAX} labels; '*' stands for every label")
    return scope


def check_queue_names(names: Iterable[str]) -> frozenset[str]:
    """Check the queue names of a `--queue` option: valid, and at most `QUEUES_BOUND_MAX`; raises `OperatorError`."""
    queues = frozenset(names)
    for name in queues:
        if not fits_name(name):
            raise OperatorError(f"--queue {name!r}: expected {NAME_EXPECTED}")
    if len(queues) > QUEUES_BOUND_MAX:
        raise OperatorError(f"--queue: a key or a token is limited to at most {QUEUES_BOUND_MAX} queues")
    return queues


class Principal(Struct, frozen=True):
    """The principal `subject` of `tenant`, with `roles` in `queues`, valid before `expires_s` (Unix seconds).

    Its jobs may save caches of `cache_labels`.
    """

    subject: str
    tenant: str
    roles: frozenset[Role]
    expires_s: float
    queues: QueueScope = None
    cache_labels: CacheScope = frozenset()

    def require(self, *roles: Role) -> None:
        """Require one of these roles; no role implies another. Raises `Forbidden`: this principal has none of them."""
        if self.roles.isdisjoint(roles):
            named = " or ".join(roles)
            raise Forbidden(f"this needs the role {named}, which the token of {self.subject} does not have")


ANONYMOUS: Final = Principal("anonymous", DEFAULT_TENANT, ALL_ROLES, math.inf, cache_labels=frozenset({EVERY_LABEL}))
"""The principal of every request when tokens are turned off."""


def parse_roles(text: str) -> frozenset[Role]:
    """Parse the roles in a comma-separated list. Raises `OperatorError`: the list is empty or has an unknown role."""
    words = [word.strip() for word in text.split(",")]
    try:
        return frozenset(Role(word) for word in words)
    except ValueError as error:
        raise OperatorError(f"--role {text!r}: use one or more of {','.join(Role)}") from error
