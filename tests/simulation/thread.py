"""The store's thread in a simulation: a task of the broker's machine, in which work takes a while."""

from __future__ import annotations

from random import Random

import anyio

from airunner.broker.offload import Then, Work

MOST_S = 0.002  # that work takes before it does anything, and again after it


class SimThread:
    """An `Offload`: the machine may end before the work, after it, or before anybody knows."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._given, self._waiting = anyio.create_memory_object_stream[tuple[Work, Then]](1)

    def __call__(self, work: Work, then: Then) -> None:
        self._given.send_nowait((work, then))

    async def run(self) -> None:
        with self._given, self._waiting:
            while True:
                work, then = await self._waiting.receive()
                await anyio.sleep(self._random.random() * MOST_S)  # virtual
                failed: Exception | None = None
                try:
                    work()
                except Exception as error:  # noqa: BLE001 - `then` gets it
                    failed = error
                else:
                    await anyio.sleep(self._random.random() * MOST_S)  # virtual
                then(failed)
