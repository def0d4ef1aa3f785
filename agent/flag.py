"""Flag: an event that is set once and stays set, such as a drain, a lost lease or a cancelled job.

`cancelled_by` opens a block that is cancelled when a flag is set, so that no second task has to wait for the flag.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import anyio

from airunner.transport.bell import Bell


class Flag:
    """Flag that can be set once. Then waiting tasks wake, and functions are called, such as `cancel` of a scope."""

    def __init__(self) -> None:
        self._set = False
        self._bell = Bell()
        self._calls: set[Callable[[], object]] = set()

    def is_set(self) -> bool:
        """Return whether the flag has been set."""
        return self._set

    def set(self) -> None:
        """Set the flag: wake the waiting tasks and call the functions. May be called again."""
        self._set = True
        self._bell.ring()
        for call in tuple(self._calls):
            call()

    async def wait(self) -> None:
        """Wait until the flag is set."""
        if not self._set:
            await self._bell.wait()

    def add(self, call: Callable[[], object]) -> None:
        """Add a function, to be called when the flag is set, or at once if the flag is set already."""
        self._calls.add(call)
        if self._set:
            call()

    def remove(self, call: Callable[[], object]) -> None:
        """Remove a function."""
        self._calls.discard(call)


class _CancelledBy:
    def __init__(self, flags: tuple[Flag, ...], timeout_s: float | None) -> None:
        self._flags = flags
        self._scope = anyio.CancelScope() if timeout_s is None else anyio.move_on_after(timeout_s)

    def __enter__(self) -> anyio.CancelScope:
        self._scope.__enter__()
        for flag in self._flags:
            flag.add(self._scope.cancel)
        return self._scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        for flag in self._flags:
            flag.remove(self._scope.cancel)
        return bool(self._scope.__exit__(kind, error, traceback))


def cancelled_by(*flags: Flag, timeout_s: float | None = None) -> _CancelledBy:
    """Open a block that is cancelled after `timeout_s`, or when a flag is set; at once if a flag is set already."""
    return _CancelledBy(flags, timeout_s)
