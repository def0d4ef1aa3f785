"""Interleaving of threads at each use of a store of objects: which thread goes on next is drawn from a seed.

Each use waits for its turn; between two turns one thread alone runs. So a seed gives the same order each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from threading import Condition, Thread
from typing import Final

from airunner.broker.blobs.objects import Objects

STUCK_S: Final = 60.0  # a test that waits for longer has a thread that is stuck


class Interleaving:
    """Interleaving of the threads that are `added`; `run` runs all of them to their ends.

    `stays` is the probability that a thread has the next turn too, for orders in which one of them is slow.
    """

    def __init__(self, seed: int, stays: float = 0) -> None:
        self._stays = stays
        self._random = Random(seed)
        self._turned = Condition()
        self._turn: int | None = None  # of the thread that runs; None: the next one is to be drawn
        self._live: dict[int, Thread] = {}
        self._raised: list[BaseException] = []
        self._me: dict[int | None, int] = {}

    def add(self, work: Callable[[], object]) -> None:
        """Add a thread."""
        number = len(self._live)

        def run() -> None:
            self._wait(number)
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again by `run`
                self._raised.append(error)
            with self._turned:
                del self._live[number]
                self._turn = None
                self._turned.notify_all()

        self._live[number] = thread = Thread(target=run, daemon=True)
        thread.start()
        self._me[thread.ident] = number

    def pause(self) -> None:
        """Let another thread go on, or this one."""
        from threading import get_ident

        number = self._me.get(get_ident())
        if number is None:
            return  # not a thread of this interleaving
        if self._stays and self._random.random() < self._stays:
            return  # no other thread runs now, so the draws are in the same order each time
        with self._turned:
            self._turn = None
            self._turned.notify_all()
        self._wait(number)

    def run(self) -> None:
        """Run all threads to their ends. Raises what the first of them has raised."""
        while True:
            with self._turned:
                if not self._turned.wait_for(lambda: self._turn is None, STUCK_S):
                    raise AssertionError("a thread is stuck")
                if not self._live:
                    break
                self._turn = self._random.choice(sorted(self._live))
                self._turned.notify_all()
        for error in self._raised:
            raise error

    def _wait(self, number: int) -> None:
        with self._turned:
            assert self._turned.wait_for(lambda: self._turn == number, STUCK_S), "nobody's turn"


class InterleavedObjects:
    """Objects in memory, each use of which is a turn of the interleaving."""

    def __init__(self, interleaving: Interleaving) -> None:
        self.stored: dict[str, bytes] = {}
        self._interleaving = interleaving

    def put(self, objects: Mapping[str, bytes]) -> None:
        for key, content in objects.items():
            self._interleaving.pause()
            self.stored[key] = content

    def get(self, key: str) -> bytes | None:
        self._interleaving.pause()
        return self.stored.get(key)

    def has(self, key: str) -> bool:
        self._interleaving.pause()
        return key in self.stored

    def keys(self, prefix: str) -> Iterator[str]:
        self._interleaving.pause()
        yield from [key for key in self.stored if key.startswith(f"{prefix}/")]

    def folders(self) -> list[str]:
        self._interleaving.pause()
        return sorted({key.partition("/")[0] for key in self.stored})

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._interleaving.pause()
            self.stored.pop(key, None)


_PORT: Callable[[Interleaving], Objects] = InterleavedObjects  # it is one
