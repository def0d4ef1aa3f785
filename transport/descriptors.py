"""File descriptor limit of this process: raises the soft limit, up to the hard limit (getrlimit(2)).

Shells and systemd set a low soft limit for programs that wait with select(), which can watch 1,024 descriptors. So jobs
run with the soft limit that the agent was started with, not with the raised one.
"""

from __future__ import annotations

import resource


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
