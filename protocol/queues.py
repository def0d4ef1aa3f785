"""Queues as clients see them: a name, a mode, and counts of jobs."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from airunner.protocol.names import Natural


class QueueMode(StrEnum):
    """Mode of a queue. Running jobs continue in every mode."""

    OPEN = "open"
    PAUSED = "paused"  # accepts jobs, and leases none
    DRAINING = "draining"  # leases jobs, and accepts none


class QueueSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of a queue: `waiting` jobs, including the `delayed` ones that are not due yet, and `running` jobs.

    `oldest_ms` is when the job that has waited longest was submitted, in ms since the epoch; None: no job waits.
    """

    queue: str
    mode: QueueMode
    waiting: Natural
    running: Natural
    delayed: Natural = 0
    oldest_ms: Natural | None = None
