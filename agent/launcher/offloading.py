"""Offloading: runs slow calls in threads; where the machine has none to give, in the event loop after all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread

T = TypeVar("T")


async def offload(call: Callable[[], T], *, abandon: bool = False) -> T:
    """Run `call` in a thread and return its result; with `abandon` a cancelled task does not wait for it."""
    begun = False

    def run() -> T:
        nonlocal begun
        begun = True
        return call()

    try:
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=abandon)
    except RuntimeError:  # threading's own word for it: there is no errno
        if begun:
            raise
        return call()
