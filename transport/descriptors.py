"""File descriptors of this process: raises its soft limit, up to the hard limit (getrlimit(2)).

The soft limit that a shell or systemd sets is meant for programs that wait with select(), which can watch 1,024. So a
process that raises its own limit leaves its children the one that it was started with.
"""

from __future__ import annotations

import resource


def soft_descriptors() -> int:
    """Return the soft limit of open descriptors."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_descriptors(wanted: int) -> int:
    """Raise the limit to `wanted`, or as far as the hard limit allows, and return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return max(soft, wanted)
    had = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (had, hard))
    return had
