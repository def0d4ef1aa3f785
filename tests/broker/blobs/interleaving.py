"""Interleaving of threads at each use of a store of objects: which thread goes on next is drawn from a seed.

Each use waits for its turn; between two turns one thread alone runs. So a seed gives the same order each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from threading import Semaphore, Thread, get_ident

from airunner.broker.blobs.objects import Objects


class Interleaving:
    """Interleaving of the threads that are `added`; `run` runs all of them to their ends.

    A thread hands its turn to the next one, so a turn costs a switch of threads, or nothing if it is the same one.
    `stays` is the probability that a thread has the next turn too, for orders in which one of them is slow.
    """

    def __init__(self, seed: int, stays: float = 0) -> None:
        self._stays = stays
        self._random = Random(seed)
        self._turns: dict[int, Semaphore] = {}  # of the threads that live, by number
        self._numbers: dict[int, int] = {}  # by a thread's identifier
        self._ended = Semaphore(0)
        self._raised: list[BaseException] = []

    def add(self, work: Callable[[], object]) -> None:
        """Add a thread."""
        number = len(self._turns)
        turn = self._turns[number] = Semaphore(0)

        def run() -> None:
            self._numbers[get_ident()] = number
            turn.acquire()
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again by `run`
                self._raised.append(error)
            del self._turns[number], self._numbers[get_ident()]
            self._next().release()

        Thread(target=run, daemon=True).start()

    def pause(self) -> None:
        """Let another thread go on, or this one."""
        number = self._numbers.get(get_ident())
        if number is None:
            return  # not a thread of this interleaving
        if self._stays and self._random.random() < self._stays:
            return  # no other thread runs now, so the draws are in the same order each time
        turn = self._turns[number]
        if (following := self._next()) is not turn:
            following.release()
            turn.acquire()

    def run(self) -> None:
        """Run all threads to their ends. Raises what the first of them has raised."""
        self._next().release()
        self._ended.acquire()
        for error in self._raised:
            raise error

    def _next(self) -> Semaphore:
        """Draw which thread goes on."""
        return self._turns[self._random.choice(sorted(self._turns))] if self._turns else self._ended


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

    def missing(self, keys: Sequence[str]) -> tuple[int, ...]:
        return tuple(place for place, key in enumerate(keys) if not self._has(key))

    def _has(self, key: str) -> bool:
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
