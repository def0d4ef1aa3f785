"""A fact that comes true once, and the blocks that end with it: a drain, a lost lease, a cancelled job."""

from __future__ import annotations

from types import TracebackType

import anyio


class Flag:
    """Not set at first. Whoever only has to end with it needs no task that waits for it: see `unless`."""

    def __init__(self) -> None:
        self._set = False
        self._event: anyio.Event | None = None
        self._scopes: set[anyio.CancelScope] = set()

    def is_set(self) -> bool:
        """Whether it has come true."""
        return self._set

    def set(self) -> None:
        """Let it be true from now on."""
        self._set = True
        if self._event is not None:
            self._event.set()
        for scope in self._scopes:
            scope.cancel()

    async def wait(self) -> None:
        """Return once it is true."""
        if self._set:
            return
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()

    def hang(self, scope: anyio.CancelScope) -> None:
        """Cancel `scope` when it comes true."""
        self._scopes.add(scope)
        if self._set:
            scope.cancel()

    def drop(self, scope: anyio.CancelScope) -> None:
        """The block has been left."""
        self._scopes.discard(scope)


class Unless:
    """See `unless`."""

    def __init__(self, flags: tuple[Flag, ...], timeout_s: float | None) -> None:
        self._flags = flags
        self._scope = anyio.CancelScope() if timeout_s is None else anyio.move_on_after(timeout_s)

    def __enter__(self) -> anyio.CancelScope:
        self._scope.__enter__()
        for flag in self._flags:
            flag.hang(self._scope)
        return self._scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        for flag in self._flags:
            flag.drop(self._scope)
        return bool(self._scope.__exit__(kind, error, traceback))


def unless(*flags: Flag, timeout_s: float | None = None) -> Unless:
    """A block that ends when one of `flags` is set, be it already; or after `timeout_s`."""
    return Unless(flags, timeout_s)
