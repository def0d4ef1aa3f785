"""Needs of a job: the tags that it requires of its agent, as a text that a database can index. Pure.

`needs` is empty, or the required tags as sorted lines `NAME=VALUE`; these are the *facts* that an agent has to have.
A job with a standard input has the need `STDIN_FACT` too, and one with fields that its agent must know (`musts`) has
their names: an agent that does not know of such jobs is leased none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from airunner.protocol.fields import JobSpec
from airunner.protocol.musts import musts_of
from airunner.protocol.requests import DequeueJob

STDIN_FACT: Final = "stdin"  # no tag is written like this: it has no equals sign
NEEDS_MAX: Final = 256  # different needs among a queue's jobs that have not ended: a DequeueJob searches all of them
TENANT_NEEDS_MAX: Final = 512  # sum of that number over a tenant's queues: a DequeueJob may search many queues


def needs_of(job: JobSpec) -> str:
    """Format what a job requires of its agent as needs."""
    # The fields of `MUST_KNOW` are written out: each call of a function would cost every job.
    files = job.artifacts or job.tree or job.returns or job.keep or job.continues
    if not files and not job.require and job.stdin_bytes is None:
        return ""
    return "\n".join(sorted(tag_facts(job.require, stdin=job.stdin_bytes is not None, knows=musts_of(job))))


def facts_of(request: DequeueJob) -> frozenset[str]:
    """List the facts of the agent that requests jobs, for `meets`."""
    return frozenset(tag_facts(request.tags, stdin=request.stdin, knows=request.knows))


def needed(needs: str) -> frozenset[str]:
    """Convert needs to the facts that an agent has to have."""
    return frozenset(needs.split("\n")) if needs else frozenset()


def meets(facts: frozenset[str], needs: str) -> bool:
    """Check whether an agent with these facts may run a job with these needs."""
    return needed(needs) <= facts


def is_tag(fact: str) -> bool:
    """Return whether a fact is a tag, and not what an agent knows."""
    return "=" in fact


def tag_facts(tags: Mapping[str, str], *, stdin: bool, knows: Iterable[str]) -> list[str]:
    """List the facts of an agent with these tags, or those that a job with these tags needs."""
    return [
        *([STDIN_FACT] if stdin else []),
        *knows,  # no tag is written like these either
        *(f"{name}={value}" for name, value in tags.items()),
    ]  # no name has an equals sign, and no value a line end
