"""The store's thread in a simulation with a real thread: what it does may wait for the world in the middle.

Only one of the two ever runs: the world hands over and stands still until the thread has ended its work, or asks to
wait for something. So what happens is the same for the same seed, as if there were no thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from random import Random
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import anyio

from airunner.broker.offload import Then, Work
from tests.simulation.thread import MOST_S

T = TypeVar("T")


class _Ended(NamedTuple):
    failed: Exception | None


class Baton:
    """An `Offload`; the machine may end before the work, in the middle of it, after it, or before anybody knows."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._given, self._waiting = anyio.create_memory_object_stream[tuple[Work, Then]](1)
        self._to_thread: SimpleQueue[Any] = SimpleQueue()
        self._to_world: SimpleQueue[Any] = SimpleQueue()

    def __call__(self, work: Work, then: Then) -> None:
        self._given.send_nowait((work, then))

    def start(self) -> None:
        """Begin, before the first work."""
        Thread(target=self._work, daemon=True).start()

    async def run(self) -> None:
        """Do what is given, until cancelled."""
        with self._given, self._waiting:
            while True:
                work, then = await self._waiting.receive()
                await anyio.sleep(self._random.random() * MOST_S)  # virtual
                failed = await self.do(work)
                await anyio.sleep(self._random.random() * MOST_S)  # virtual
                then(failed)

    async def do(self, work: Work) -> Exception | None:
        """Have the thread do something; what it raised."""
        self._to_thread.put(work)
        while True:
            asked = self._to_world.get()  # the world stands still
            if isinstance(asked, _Ended):
                return asked.failed
            try:
                self._to_thread.put(await asked())
            except Exception as error:  # noqa: BLE001 - the thread gets it
                self._to_thread.put(error)

    def wait(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Wait for something of the world; called in the thread."""
        self._to_world.put(ask)
        answer = self._to_thread.get()
        if isinstance(answer, Exception):
            raise answer
        found: T = answer
        return found

    def _work(self) -> None:
        while True:
            work = self._to_thread.get()
            failed: Exception | None = None
            try:
                work()
            except Exception as error:  # noqa: BLE001 - `then` gets it
                failed = error
            self._to_world.put(_Ended(failed))
