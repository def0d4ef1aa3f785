"""airunner with all that it does for a job: CURVE, tokens, an fsync for each commit, and every event stored."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from airunner.protocol.requests import ENQUEUE_MAX
from bench import commands, latency, queue
from bench.cluster import cluster
from bench.peers.works import AT_ONCE, BULK, LIVES, LONE, PROCESSES, RATE, SECONDS, Peer, Works
from bench.product import WORKING_TREE


@contextmanager
def _started(_: Path) -> Generator[Works]:
    """Run a broker alone for no-op jobs, and a broker with an agent for processes."""
    with (
        cluster(WORKING_TREE, spawn=1, agents=0, requests_per_s=1_000_000) as bare,
        cluster(WORKING_TREE, spawn=AT_ONCE, requests_per_s=1_000_000) as full,
    ):

        def enqueue(jobs: int, each: int, asking: int, name: str) -> float:
            return WORKING_TREE.call(queue.enqueue, bare, jobs, each, asking, name).rate

        yield Works(
            one_by_one=lambda: enqueue(LONE, 1, 1, "lone"),
            in_bulk=lambda: enqueue(BULK, ENQUEUE_MAX, queue.ASKING, "bulk"),
            end_to_end=lambda: WORKING_TREE.call(queue.live, bare, LIVES).rate,
            start_ms=lambda: latency.to_worker_ms(WORKING_TREE, bare, RATE, SECONDS),
            true=lambda: WORKING_TREE.call(commands.job_rate, full, PROCESSES),
        )


PEER: Final = Peer("airunner", "", _started)
