"""What `airunner top` shows follows from what is published, and fits the terminal."""

from __future__ import annotations

import pytest

from airunner.client.cli.topboard import RATE_S, Rates, TopBoard
from airunner.client.cli.topscreen import top_lines
from airunner.protocol.changes import JobChanges
from airunner.protocol.job import JobState
from airunner.protocol.replies import AgentSummary, QueueMode, QueueSummary
from tests.client.cli.test_columns import summary
from tests.client.test_jobboard import change, changes

SCHEDULED, RUNNING, DONE = JobState.SCHEDULED, JobState.RUNNING, JobState.COMPLETED


def board(queues: int = 1, agents: int = 1, jobs: str = "a") -> TopBoard:
    found = TopBoard(0.0)
    found.replace(
        [QueueSummary(queue=f"q{n or ''}", mode=QueueMode.OPEN, waiting=2, running=1) for n in range(queues)],
        [AgentSummary(name=f"build-{n}", slots=2, leases=1, seen_ms=0, silent_ms=0) for n in range(agents)],
        [summary(letter, RUNNING, attempt=1, submitted_ms=ord(letter), started_ms=0) for letter in jobs],
    )
    return found


def counts(found: TopBoard) -> tuple[int, int, int]:
    return found.queues["q"].waiting, found.queues["q"].running, found.agents["build-0"].leases


def test_counts_and_jobs_follow_each_change() -> None:
    found = board()
    found.apply(changes(change("b", was=None), change("c", RUNNING, None, attempt=1, agent="build-0")), 1.0)
    assert (counts(found), [job.id[0] for job in found.jobs]) == ((3, 2, 2), ["c", "a"])
    found.apply(changes(change("a", DONE, RUNNING, attempt=1, agent="build-0", command="")), 2.0)
    assert (counts(found), [job.id[0] for job in found.jobs]) == ((3, 1, 1), ["c"])
    found.apply(changes(change("c", SCHEDULED, RUNNING, attempt=1, agent="build-0", command="")), 2.0)
    assert (counts(found), found.jobs, found.unsure) == ((4, 0, 0), [], False)
    modes = JobChanges(sender=bytes(8), number=1, modes={"q": QueueMode.PAUSED, "new": QueueMode.DRAINING})
    found.apply(modes, 3.0)
    assert [(queue.mode, queue.waiting) for queue in found.queues.values()] == [("paused", 4), ("draining", 0)]
    found.apply(JobChanges(sender=bytes(8), number=2, left_out=True, started=5), 4.0)
    assert found.unsure
    found.unsure = False
    found.apply(changes(change("d", RUNNING, SCHEDULED, attempt=1, agent="build-9", queue="other")), 4.0)
    assert (found.unsure, found.queues["other"].running) == (True, 1)
    assert found.rates(4.0) == Rates(2 / 4, 7 / 4, 1 / 4)
    assert found.rates(3.5 + RATE_S) == Rates(0, 6 / RATE_S, 0)
    assert found.rates(99.0) == Rates(0, 0, 0)


@pytest.mark.parametrize("width", [160, 80, 40, 20])
@pytest.mark.parametrize("height", [60, 24, 10, 4, 1])
def test_a_board_of_any_size_fits_its_terminal(width: int, height: int) -> None:
    for found in (board(0, 0, ""), board(), board(30, 40, "abcdefghijklmnopqrstuvwxyz")):
        lines = top_lines(found, 9_000, found.rates(1.0), width, height)
        assert len(lines) <= height
        assert all(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) <= width for line in lines)
    if (width, height) == (80, 24):
        more = [line for line in lines if line.startswith("… and")]
        assert [line.rstrip("more").split()[2] for line in more] == ["25", "36", "22"]
