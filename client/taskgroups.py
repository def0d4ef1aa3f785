"""Task groups whose first error is raised as it is, so that a command reports it as if it had made one call."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def first_error() -> Generator[None]:
    """Raise the first error of a task group in this block, and not the group."""
    try:
        yield
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors.exceptions[0].__cause__
