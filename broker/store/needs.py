"""Needs of a job: the tags that it requires of its agent, as a text that a database can index. Pure.

`needs` is empty, or the required tags as sorted lines `NAME=VALUE`; these are the *facts* that an agent has to have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NEEDS_MAX: Final = 256  # different needs among a queue's jobs that have not ended: a DequeueJob searches all of them
TENANT_NEEDS_MAX: Final = 512  # sum of that number over a tenant's queues: a DequeueJob may search many queues


def needs_of(require: Mapping[str, str]) -> str:
    """Format required tags as needs."""
    return "\n".join(sorted(_facts(require)))


def facts_of(tags: Mapping[str, str]) -> frozenset[str]:
    """Convert an agent's tags to facts, for `meets`."""
    return frozenset(_facts(tags))


def needed(needs: str) -> frozenset[str]:
    """Convert needs to the facts that an agent has to have."""
    return frozenset(needs.split("\n")) if needs else frozenset()


def meets(facts: frozenset[str], needs: str) -> bool:
    """Check whether an agent with these facts may run a job with these needs."""
    return needed(needs) <= facts


def _facts(tags: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in tags.items()]  # no name has an equals sign, and no value a line end
