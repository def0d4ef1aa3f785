"""The store's thread in a simulation: what it does may wait for the world in the middle.

Only one of the two ever runs: the world hands over and stands still until the thread has ended its work, or asks to
wait for something. So it is a greenlet and no real thread, which takes a hundred times as long to hand over: an engine
on DynamoDB makes thousands of calls in a run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import NamedTuple, TypeVar

import anyio
from greenlet import getcurrent, greenlet

from airunner.broker.offload import Then, Work
from tests.simulation.thread import MOST_S

T = TypeVar("T")
_KEPT: list[greenlet] = []  # for ever: one that nobody refers to is unwound, and the dead do nothing


class _Ended(NamedTuple):
    failed: Exception | None


class Baton:
    """An `Offload`; the machine may end before the work, in the middle of it, after it, or before anybody knows."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._given, self._waiting = anyio.create_memory_object_stream[tuple[Work, Then]](1)
        self._thread = greenlet(self._work)

    def __call__(self, work: Work, then: Then) -> None:
        self._given.send_nowait((work, then))

    def start(self) -> None:
        """Begin, before the first work."""
        _KEPT.append(self._thread)

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
        asked = self._thread.switch(work)  # the world stands still
        while not isinstance(asked, _Ended):
            try:
                answer: object = await asked()
            except Exception as error:  # noqa: BLE001 - the thread gets it
                answer = error
            asked = self._thread.switch(answer)
        return asked.failed

    async def get(self, make: Callable[[], T]) -> T:
        """Have the thread make something. Raises what that raises."""
        made: list[T] = []
        failed = await self.do(lambda: made.append(make()))
        if failed is not None:
            raise failed
        return made[0]

    def wait(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Wait for something of the world; called in the thread."""
        answer = getcurrent().parent.switch(ask)
        if isinstance(answer, Exception):
            raise answer
        found: T = answer
        return found

    def _work(self, work: Work) -> None:
        while True:
            failed: Exception | None = None
            try:
                work()
            except Exception as error:  # noqa: BLE001 - `then` gets it
                failed = error
            work = getcurrent().parent.switch(_Ended(failed))
