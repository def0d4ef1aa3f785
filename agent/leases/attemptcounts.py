"""Counts of the attempts that an agent has run, for its /metrics."""

from __future__ import annotations

from typing import Final

from airunner.agent.leases.settlement import Completed, LeftBehind, Lost, Released, Settlement
from airunner.protocol.job import JobState
from airunner.transport.metric import Histogram

RETRIED: Final = "retried"
_PREPARE_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
_NAMES: Final[dict[type[Settlement], str]] = {Released: "released", Lost: "lost", LeftBehind: "left_behind"}
_ENDS: Final = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)  # of a job by an attempt
OUTCOMES: Final = (*(state.lower() for state in _ENDS), RETRIED, *_NAMES.values())


class AttemptCounts:
    """Counts of settled attempts, and how long it took to start their commands."""

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.prepared = Histogram(_PREPARE_S)

    def record(self, settlement: Settlement, prepared_s: float | None) -> None:
        """Record an attempt; `prepared_s`: time from its lease to its command's start, None: it was not started."""
        if isinstance(settlement, Completed):
            name = RETRIED if settlement.state is JobState.SCHEDULED else settlement.state.lower()
        else:
            name = _NAMES[type(settlement)]
        self.outcomes[name] += 1
        if prepared_s is not None:
            self.prepared.observe((prepared_s,))
