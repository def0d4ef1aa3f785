"""Bare process: /bin/true, started and waited for as cheaply as Python can. A job's command costs so much by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

COMMAND: Final = "/bin/true"


def run_command() -> None:
    """Run `COMMAND`, and wait for its end."""
    os.waitpid(os.posix_spawn(COMMAND, [COMMAND], os.environ), 0)


def in_threads(threads: int, work: Callable[[], None]) -> None:
    """Run `work` in so many threads at once, and wait until all have ended."""
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work) for _ in range(threads)]:
            future.result()
