"""Fields of a job that its agent must know, because a job without their effect is not the job that was submitted. Pure.

An agent names those that it knows in each DequeueJob (`knows`), and the broker leases it no job with another one. So a
job waits for an agent that is new enough. All other fields an earlier agent may ignore: it does what the default says.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Final

from airunner.protocol.fields import JobSpec

MUST_KNOW: Final[tuple[str, ...]] = ("artifacts", "tree", "returns", "keep", "continues")
"""Names of these fields; a new one is added here and to the first line of `needs_of` in the broker's store."""

_values_of = attrgetter(*MUST_KNOW)


def musts_of(job: JobSpec) -> tuple[str, ...]:
    """List the fields of a job that its agent must know."""
    values = _values_of(job)
    if not any(values):
        return ()
    return tuple(name for name, value in zip(MUST_KNOW, values, strict=True) if value)
