"""Board of `airunner top`: queues, agents, running jobs and rates, kept current by published changes. Pure.

Counts follow from each change and the state before it. Whatever may have been lost is put right by the next reading of
the lists (`replace`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from airunner.client.jobboard import JobBoard
from airunner.protocol.changes import JobChange, JobChanges
from airunner.protocol.job import JobState, JobSummary
from airunner.protocol.replies import AgentSummary, QueueMode, QueueSummary

RATE_S: Final = 10.0  # seconds of which rates are the mean
RUNNING_MAX: Final = 100  # running jobs that are kept: a page of a list


class Rates(Struct, frozen=True):
    """Jobs a second that were submitted, started and ended."""

    submitted: float
    started: float
    ended: float


class TopBoard:
    """Board, which begins at `now_s` of any steady clock."""

    def __init__(self, now_s: float) -> None:
        self.queues: dict[str, QueueSummary] = {}
        self.agents: dict[str, AgentSummary] = {}
        self.unsure = False  # whether a job has begun on an agent that is not in the list, or a change was lost
        self._running = JobBoard(RUNNING_MAX, state=JobState.RUNNING)
        self._began_s = now_s
        self._counted: deque[tuple[float, int, int, int]] = deque()  # when; submitted, started, ended

    @property
    def jobs(self) -> list[JobSummary]:
        """The newest running jobs, newest first."""
        return self._running.jobs

    def replace(
        self, queues: Sequence[QueueSummary], agents: Sequence[AgentSummary], jobs: Sequence[JobSummary]
    ) -> None:
        """Replace all by what the broker has listed."""
        self.queues = {queue.queue: queue for queue in queues}
        self.agents = {agent.name: agent for agent in agents}
        self.unsure = False
        self._running.replace(jobs)

    def apply(self, message: JobChanges, now_s: float) -> None:
        """Apply a message."""
        self.unsure |= message.left_out
        submitted, started, ended = message.submitted, message.started, message.ended
        for change in message.jobs:
            self.unsure |= not self._running.apply(change)
            self._running.take_changed()  # all of them are drawn
            submitted += change.was is None
            started += change.state is JobState.RUNNING and change.was is not JobState.RUNNING
            ended += change.state.terminal
            self._count(change)
            self._occupy(change)
        for name, mode in message.modes.items():
            self.queues[name] = replace(self._queue(name), mode=mode)
        self._counted.append((now_s, submitted, started, ended))

    def rates(self, now_s: float) -> Rates:
        """Return the rates of the last `RATE_S`, or since the board began."""
        while self._counted and self._counted[0][0] < now_s - RATE_S:
            self._counted.popleft()
        length_s = max(1.0, min(RATE_S, now_s - self._began_s))
        sums = (sum(counts) / length_s for counts in list(zip(*self._counted, strict=True))[1:] or ((), (), ()))
        return Rates(*sums)

    def _queue(self, name: str) -> QueueSummary:
        return self.queues.get(name) or QueueSummary(queue=name, mode=QueueMode.OPEN, waiting=0, running=0)

    def _count(self, change: JobChange) -> None:
        """Move the job from the count of its state before to that of its state now."""
        queue = self._queue(change.queue)
        waiting = change.state.waiting - (change.was is not None and change.was.waiting)
        running = (change.state is JobState.RUNNING) - (change.was is JobState.RUNNING)
        now_waiting = max(0, queue.waiting + waiting)
        oldest_ms = queue.oldest_ms if now_waiting else None
        if oldest_ms is None and waiting > 0 and change.due_ms is None:
            oldest_ms = change.submitted_ms
        running += queue.running
        self.queues[change.queue] = replace(queue, waiting=now_waiting, running=max(0, running), oldest_ms=oldest_ms)

    def _occupy(self, change: JobChange) -> None:
        """Count the slot of the agent that has begun or ended the job."""
        begun = (change.state is JobState.RUNNING) - (change.was is JobState.RUNNING)
        agent = self.agents.get(change.agent)
        if begun and agent is not None:
            self.agents[change.agent] = replace(agent, leases=max(0, agent.leases + begun))
        self.unsure |= begun > 0 and agent is None
