"""Control socket of the broker: lets its operator back up the store on the broker's own machine.

It is a Unix socket beside the store, with mode 0600. Only processes of the broker's user and of root can connect, and
these can read the store anyway. So the socket needs no token, and no tenant's administrator can reach it.

```
airunner backup                              the broker
  "backup" and a descriptor to write to ─►
                                          ◄─ {"copied": 128, "pages": 4096} …        a line for each step
                                          ◄─ {"done": true}   or   {"error": "…"}
```
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

import anyio
import msgspec
from anyio.abc import SocketListener, SocketStream, UNIXSocketStream

from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import BetweenBatches
from airunner.broker.store.sqlite.copying import Progress

BACKUP: Final = b"backup\n"  # the only request
SUFFIX: Final = "-control"  # appended to the store's name, as SQLite appends -wal and -shm
STALL_S: Final = 60.0  # seconds for the client to read a line, before its backup is ended
CLOSE_S: Final = 1.0  # seconds for the Ledger to close a copy; when the broker ends, the Ledger may be gone already
T = TypeVar("T")


class Copy(Protocol):
    """Copy of the store in progress: see `store.sqlite.copying.StoreCopy`."""

    done: bool

    def step(self) -> Progress:
        """Copy some pages. Raises `OSError`."""
        ...

    def close(self) -> None:
        """End the copy."""
        ...


@contextmanager
def short_path(store: Path) -> Generator[str]:
    """Yield a short path of the store's control socket, through /proc: a socket's path has 107 bytes at most."""
    folder = os.open(store.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{store.name}{SUFFIX}"
    finally:
        os.close(folder)


async def open_control(store: Path, ledger: FairQueue, copy_to: Callable[[int], Copy]) -> ControlSocket:
    """Open the control socket, once this broker has locked the store; it replaces the socket of a broker that died."""
    with short_path(store) as path:
        listener = await anyio.create_unix_listener(path, mode=0o600)
    return ControlSocket(listener, ledger, copy_to)


class ControlSocket:
    """Control socket actor; `copy_to` starts a copy of the store into a descriptor."""

    def __init__(self, listener: SocketListener, ledger: FairQueue, copy_to: Callable[[int], Copy]) -> None:
        self._listener = listener
        self._ledger = ledger
        self._copy_to = copy_to
        self._copying = anyio.Lock()  # one copy at a time, because every write to the store goes to the copy too

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self._listener:
            await self._listener.serve(self._serve)

    async def _serve(self, stream: SocketStream) -> None:
        assert isinstance(stream, UNIXSocketStream), "not a Unix socket"
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream, TimeoutError):  # the client is gone or stalls
            async with stream:
                asked, descriptors = await stream.receive_fds(len(BACKUP), 1)
                try:
                    await self._answer(stream, asked, descriptors)
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)

    async def _answer(self, stream: UNIXSocketStream, asked: bytes, descriptors: list[int]) -> None:
        if asked != BACKUP or not descriptors:
            await _say(stream, error="this socket accepts only `backup` with a descriptor to write to")
            return
        async with self._copying:
            try:
                await self._back_up(stream, descriptors[0])
            except OSError as error:
                await _say(stream, error=error.strerror or str(error))

    async def _back_up(self, stream: UNIXSocketStream, descriptor: int) -> None:
        """Copy the store into a descriptor. Raises `OSError`: the file cannot be written."""
        copy = await self._between(lambda: self._copy_to(descriptor))
        try:
            while not copy.done:
                progress = await self._between(copy.step)
                await _say(stream, copied=progress.copied, pages=progress.pages)
        finally:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await self._between(copy.close)
        await _say(stream, done=True)

    async def _between(self, work: Callable[[], T]) -> T:
        """Have the Ledger run `work` while no transaction is open; return its result, or raise its `OSError`."""
        results: list[T] = []
        failures: list[OSError] = []

        def attempt() -> None:
            try:
                results.append(work())
            except OSError as error:
                failures.append(error)

        entry = BetweenBatches(attempt, anyio.Event())
        await self._ledger.send(entry)
        await entry.done.wait()
        for failure in failures:
            raise failure
        return results[0]


async def _say(stream: UNIXSocketStream, **words: object) -> None:
    with anyio.fail_after(STALL_S):
        await stream.send(msgspec.json.encode(words) + b"\n")
