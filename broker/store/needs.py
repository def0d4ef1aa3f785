"""Needs of a job: the tags that it requires of its agent, as a text that an index can hold. Pure.

`needs` is empty, or the required tags as sorted lines `NAME=VALUE`: two jobs that require the same have the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NEEDS_MAX: Final = 256  # different needs of the jobs in one queue that have not ended: a lease looks at each of them
TENANT_NEEDS_MAX: Final = 512  # of all of a tenant's queues, each counted by itself: a lease may look into many


def needs_of(require: Mapping[str, str]) -> str:
    """Format required tags as needs."""
    return "\n".join(sorted(_facts(require)))


def facts_of(tags: Mapping[str, str]) -> frozenset[str]:
    """Convert an agent's tags to facts, for `meets`."""
    return frozenset(_facts(tags))


def needed(needs: str) -> frozenset[str]:
    """Convert needs to the set of facts that an agent has to have."""
    return frozenset(needs.split("\n")) if needs else frozenset()


def meets(facts: frozenset[str], needs: str) -> bool:
    """Check whether an agent with these facts may run a job with these needs."""
    return needed(needs) <= facts


def _facts(tags: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in tags.items()]  # a name has no equals sign, neither has a line's end
