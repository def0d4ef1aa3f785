"""Filters of a list of jobs, as keyword arguments of the SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from airunner.protocol.job import JobState


class JobFilters(TypedDict, total=False):
    """Filters of a list of jobs: a job matches if it meets all that are given; None is the same as not given."""

    prefix: str | None
    """First characters of the id, at least 4."""
    name: str | None
    queue: str | None
    state: JobState | str | Sequence[JobState | str] | None
    """One state, or any of several, also by name, such as `"FAILED"`."""
    owner: str | None
    metadata: Mapping[str, str] | None
    """Entries that the job's metadata has, all of them."""
    details: bool
    """No filter: whether each job comes with its metadata and the tags that it requires."""
