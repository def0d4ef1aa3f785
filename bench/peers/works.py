"""Works that airunner and its peers do alike: the figures, how much of each is done, and what a peer has to offer.

A peer is a context manager that starts it with an empty folder and an fsync for each commit, and yields its `Works`.
Each work is a function; the two that measure an instant return it on the steady clock, which all processes share.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import anyio
from msgspec import Struct

from bench.figures import Figure, Reading, Sample

LONE: Final = 500  # jobs enqueued one after another
BULK: Final = 8_192  # jobs enqueued in bulk
LIVES: Final = 4_096  # no-op jobs from enqueue to their end
RATE: Final = 50.0  # jobs a second, whose latency is measured
SECONDS: Final = 6.0  # for which they are submitted
PROCESSES: Final = 512  # jobs of /bin/true
AT_ONCE: Final = 4  # of these

ONE_BY_ONE: Final = Figure("enqueue one by one", "jobs/s")
IN_BULK: Final = Figure("enqueue in bulk", "jobs/s")
END_TO_END: Final = Figure("end to end, no-op jobs", "jobs/s")
MEDIAN: Final = Figure("submit to start, median", "ms")
P99: Final = Figure("submit to start, p99", "ms")
TRUE: Final = Figure("/bin/true, 4 at once", "jobs/s")
FIGURES: Final = (ONE_BY_ONE, IN_BULK, END_TO_END, MEDIAN, P99, TRUE)


class Works(Struct, frozen=True):
    """Works of one peer, each of which measures itself: rates in jobs/s, and latencies in ms."""

    one_by_one: Callable[[], float]
    in_bulk: Callable[[], float]
    end_to_end: Callable[[], float]
    start_ms: Callable[[], list[float]]
    true: Callable[[], float]

    def measure(self) -> Sample:
        """Do every work once."""
        start_ms = self.start_ms()
        return {
            ONE_BY_ONE.name: Reading(self.one_by_one()),
            IN_BULK.name: Reading(self.in_bulk()),
            END_TO_END.name: Reading(self.end_to_end()),
            MEDIAN.name: Reading(median(start_ms)),
            P99.name: Reading(quantiles(start_ms, n=100)[98]),
            TRUE.name: Reading(self.true()),
        }


class Peer(Struct, frozen=True):
    """Program that is measured: its name, what has to be installed ("" : nothing), and what starts it in a folder."""

    name: str
    missing: str
    started: Callable[[Path], AbstractContextManager[Works]]


async def submitted_s(submit: Callable[[], Awaitable[str]]) -> dict[str, float]:
    """Submit jobs one after another at a steady rate; return for each the instant before. `submit` returns its id."""
    instants: dict[str, float] = {}
    begin_s = anyio.current_time()
    for number in range(int(RATE * SECONDS)):
        await anyio.sleep_until(begin_s + number / RATE)
        began_s = time.monotonic()
        instants[await submit()] = began_s
    return instants


def between_ms(submitted_s: dict[str, float], started_s: dict[str, float]) -> list[float]:
    """Compute the milliseconds between two instants of each job; jobs that only warmed up are left out."""
    return [(started_s[job] - began_s) * 1_000 for job, began_s in submitted_s.items()]
