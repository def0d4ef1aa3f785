"""Control socket of the broker: lets its operator back up the store on the broker's own machine.

It is a Unix socket beside the store, 0600: a process that may write there may read the store anyway, and no other can
connect; so it needs no token, and no tenant's administrator can reach it.

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
from airunner.broker.inbox import Between
from airunner.broker.store.sqlite.copying import Progress

BACKUP: Final = b"backup\n"
SUFFIX: Final = "-control"  # of the store's name; SQLite has -wal and -shm there
STALL_S: Final = 60.0  # for the client to read a line
CLOSE_S: Final = 1.0  # when the broker ends, the Ledger may no longer close the copy
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
    """Shorten the path of the store's control socket through /proc: a socket's path may have 107 bytes at most."""
    folder = os.open(store.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{store.name}{SUFFIX}"
    finally:
        os.close(folder)


async def open_control(store: Path, ledger: FairQueue, copy_to: Callable[[int], Copy]) -> ControlDoor:
    """Open the control socket of the broker that has this store locked; it replaces one that a dead broker left."""
    with short_path(store) as path:
        listener = await anyio.create_unix_listener(path, mode=0o600)
    return ControlDoor(listener, ledger, copy_to)


class ControlDoor:
    """Control socket actor; `copy_to` begins a copy of the store into a descriptor."""

    def __init__(self, listener: SocketListener, ledger: FairQueue, copy_to: Callable[[int], Copy]) -> None:
        self._listener = listener
        self._ledger = ledger
        self._copy_to = copy_to
        self._one = anyio.Lock()  # a copy in progress doubles every write: one at a time

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self._listener:
            await self._listener.serve(self._serve)

    async def _serve(self, stream: SocketStream) -> None:
        assert isinstance(stream, UNIXSocketStream), "what a Unix listener accepts"
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream, TimeoutError):  # the client has left
            async with stream:
                asked, descriptors = await stream.receive_fds(len(BACKUP), 1)
                try:
                    await self._answer(stream, asked, descriptors)
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)

    async def _answer(self, stream: UNIXSocketStream, asked: bytes, descriptors: list[int]) -> None:
        if asked != BACKUP or not descriptors:
            await _say(stream, error="this socket only answers `backup`")
            return
        async with self._one:
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
        """Run `work` while no transaction is open; return or raise what it does."""
        results: list[T] = []
        failures: list[OSError] = []

        def attempt() -> None:
            try:
                results.append(work())
            except OSError as error:
                failures.append(error)

        entry = Between(attempt, anyio.Event())
        await self._ledger.send(entry)
        await entry.done.wait()
        for failure in failures:
            raise failure
        return results[0]


async def _say(stream: UNIXSocketStream, **words: object) -> None:
    with anyio.fail_after(STALL_S):
        await stream.send(msgspec.json.encode(words) + b"\n")
