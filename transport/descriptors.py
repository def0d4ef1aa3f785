"""Descriptors that this process may open: a soft bound, which it may raise itself, below a hard one (getrlimit(2)).

What a shell or systemd sets as the soft bound is meant for programs that wait with select(), which can watch 1,024. So
a process that raises its own is to leave its children the one that it was started with.
"""

from __future__ import annotations

import resource


def soft_descriptors() -> int:
    """How many this process may open as it is."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_descriptors(wanted: int) -> int:
    """Have `wanted`, or as many as the hard bound lets us; how many there are then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return max(soft, wanted)
    had = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (had, hard))
    return had
