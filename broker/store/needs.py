"""What a job needs of its agent, as a text that an index can hold. Pure.

`needs` is empty, or the required tags as sorted lines `NAME=VALUE`: two jobs that require the same have the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NEEDS_MAX: Final = 256  # different ones of the jobs that wait in one queue: a lease looks at each of them


def needs_of(require: Mapping[str, str]) -> str:
    """The text for these tags."""
    return "\n".join(sorted(_facts(require)))


def facts_of(tags: Mapping[str, str]) -> frozenset[str]:
    """What an agent has, to be asked whether it `meets` a need."""
    return frozenset(_facts(tags))


def meets(facts: frozenset[str], needs: str) -> bool:
    """Whether an agent with these may run a job that needs those."""
    return not needs or facts.issuperset(needs.split("\n"))


def _facts(tags: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in tags.items()]  # a name has no equals sign, neither has a line's end
