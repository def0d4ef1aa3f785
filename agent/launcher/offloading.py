"""Offloading: runs slow calls in threads or, if no thread can be started, in the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread

T = TypeVar("T")


async def offload(call: Callable[[], T], *, abandon: bool = False) -> T:
    """Run `call` in a thread and return its result; with `abandon` a cancelled task does not wait for the thread."""
    begun = False

    def run() -> T:
        nonlocal begun
        begun = True
        return call()

    try:
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=abandon)
    except RuntimeError:  # `threading` raises it when it cannot start a thread
        if begun:
            raise
        return call()
