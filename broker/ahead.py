"""Map ahead: a `map` whose function runs in a second thread, some results before they are asked for.

So a log is decompressed while it is searched: zstd and RE2 give up the GIL. The thread ends with the map; to start one
takes less than to decompress a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Final, TypeVar

from msgspec import Struct

AHEAD_MAX: Final = 8  # results that are made before they are asked for: 4 MiB of a log
AT_ONCE: Final = 4  # results that are asked for before the thread makes more: a wake-up takes as long as a small one
WORTH_IT: Final = 3  # items for which a thread is started

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _Raised(Struct):
    """What the function has raised."""

    error: Exception


def map_ahead(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Generator[_Result]:
    """Map a function on items, in their order; what it raises is raised where its result would be, and ends the map.

    To close the map ends its thread, after the call of the function that is under way.
    """
    if len(items) < WORTH_IT:
        yield from map(function, items)
        return
    made: SimpleQueue[_Result | _Raised] = SimpleQueue()
    room = Semaphore(AHEAD_MAX)
    over = False

    def make() -> None:
        for item in items:
            room.acquire()
            if over:
                return
            try:
                made.put(function(item))
            except Exception as error:  # noqa: BLE001 - raised again by the map
                made.put(_Raised(error))
                return

    thread = Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        for number in range(1, len(items) + 1):
            result = made.get()
            if isinstance(result, _Raised):
                raise result.error
            yield result
            if number % AT_ONCE == 0:
                room.release(AT_ONCE)
    finally:
        over = True
        room.release(len(items))
        thread.join()
