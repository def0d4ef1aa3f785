"""File descriptor limit of this process: raises the soft limit, up to the hard limit (getrlimit(2)).

Shells and systemd set a low soft limit for programs that wait with select(), which can watch 1,024 descriptors. So jobs
run with the soft limit that the agent was started with, not with the raised one.
"""

from __future__ import annotations

import os
import resource
from typing import Final

from airunner.protocol.errors import OperatorError

DESCRIPTORS_MIN: Final = 20  # a client opens 17; with fewer, ZeroMQ aborts the process


def require_descriptors() -> None:
    """Check that this process may open enough files. Raises `OperatorError`."""
    if (limit := soft_descriptors()) != resource.RLIM_INFINITY and limit < DESCRIPTORS_MIN:
        raise OperatorError(f"this process may open only {limit} files: run `ulimit -n 1024` first")


def has_descriptor() -> bool:
    """Check whether this process can open another file now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def soft_descriptors() -> int:
    """Return the soft limit of open descriptors."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_descriptors(wanted: int) -> int:
    """Raise the soft limit to at least `wanted`, or as far as the hard limit allows, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return max(soft, wanted)
    had = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (had, hard))
    return had
