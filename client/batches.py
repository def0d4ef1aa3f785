"""Iterators whose items come in batches, as pages of a list and events of a job do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import Generic, Self, TypeVar

from airunner.protocol.errors import OperatorError

_T = TypeVar("_T")


class BatchIterator(ABC, Generic[_T]):
    """Iterator, for `async for`, of items that come in batches; `next_batch` takes a batch at once.

    Nothing is requested before the first item is awaited. A caller that leaves the loop early may use `async with`,
    which stops the iteration at once. Only one task at a time may iterate.
    """

    def __init__(self) -> None:
        self._ready: list[_T] = []  # items to return, in reverse order

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        if not self._ready:
            self._ready = (await self.next_batch())[::-1]
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.pop()

    async def next_batch(self) -> list[_T]:
        """Wait for the next item, and return it with those that have come with it; none: the iteration has ended."""
        if self._ready:
            ready, self._ready = self._ready[::-1], []
            return ready
        return await self._receive()

    @abstractmethod
    async def _receive(self) -> list[_T]:
        """Wait for the next batch; an empty one: the iteration has ended."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @abstractmethod
    async def aclose(self) -> None:
        """Stop the iteration."""


class Batches(BatchIterator[_T]):
    """Iterator of the items of all batches that a generator yields, empty ones left out.

    A generator cannot go on after a call that was cancelled: the next one raises `OperatorError`, and is no silent end.
    """

    def __init__(self, batches: AsyncGenerator[Sequence[_T]]) -> None:
        super().__init__()
        self._batches = batches
        self._interrupted = False

    async def _receive(self) -> list[_T]:
        if self._interrupted:
            raise OperatorError("this iteration was interrupted while it waited; begin another one")
        self._interrupted = True
        try:
            async for batch in self._batches:
                if batch:
                    self._interrupted = False
                    return list(batch)
        except Exception:
            self._interrupted = False
            raise
        self._interrupted = False
        return []

    async def aclose(self) -> None:
        """Stop the iteration."""
        self._ready = []
        await self._batches.aclose()
