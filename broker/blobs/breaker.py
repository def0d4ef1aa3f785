"""Breaker between a broker and a bucket that is away: requests are refused at once, and one at a time tries again.

Without it each request would wait for its own timeout, in one of a few threads, and those behind it for as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Final

from airunner.protocol.errors import Busy

if TYPE_CHECKING:
    from airunner.broker.blobs.objects import Objects

FIRST_S: Final = 0.5  # pause after the first failure; it doubles with each further one
LAST_S: Final = 8.0  # longest pause, so long a bucket that is back may stay unused
TRY_S: Final = 30.0  # after which a try that has neither failed nor succeeded is no longer waited for
_DOUBLINGS_MAX: Final = 8


class Breaker:
    """Breaker before `objects`: after a failure it refuses with `Busy` for a while. Any thread may call it."""

    def __init__(self, objects: Objects, now_s: Callable[[], float] = time.monotonic) -> None:
        self._objects = objects
        self._now_s = now_s
        self._lock = Lock()
        self._failures = 0  # since the last success
        self._refused_until_s = 0.0

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects."""
        with self._tried():
            self._objects.put(objects)

    def get(self, key: str) -> bytes | None:
        """Read an object; None: there is none."""
        with self._tried():
            return self._objects.get(key)

    def missing(self, keys: Sequence[str]) -> tuple[int, ...]:
        """Return the places of the keys of which there is no object."""
        with self._tried():
            return self._objects.missing(keys)

    def keys(self, prefix: str) -> Iterator[str]:
        """List the keys of the objects in a folder and those in it."""
        with self._tried():
            yield from self._objects.keys(prefix)

    def folders(self) -> list[str]:
        """List the topmost folders."""
        with self._tried():
            return self._objects.folders()

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; a missing one is ignored."""
        with self._tried():
            self._objects.delete(keys)

    @contextmanager
    def _tried(self) -> Generator[None]:
        self._enter()
        try:
            yield
        except Busy:
            self._fail()
            raise
        except BaseException:
            self._succeed()
            raise
        self._succeed()

    def _enter(self) -> None:
        """Begin to use the objects, alone if they have failed before. Raises `Busy`: not yet."""
        with self._lock:
            if not self._failures:
                return
            left_s = self._refused_until_s - self._now_s()
            if left_s > 0:
                raise Busy("the broker's blob store does not answer", retry_ms=int(left_s * 1_000) + 1)
            self._refused_until_s = self._now_s() + TRY_S

    def _fail(self) -> None:
        with self._lock:
            pause_s = min(LAST_S, FIRST_S * 2 ** min(self._failures, _DOUBLINGS_MAX))
            self._failures += 1
            self._refused_until_s = self._now_s() + pause_s

    def _succeed(self) -> None:
        with self._lock:
            self._failures = 0
