"""Screen of `airunner top`: formats a board for the size of a terminal, or whole for a pipe. Pure.

Each part has a share of the rows: what it does not need the running jobs get.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Final

from airunner.client.cli.columns import Table, table_text
from airunner.client.cli.listing import AGENT_HEADINGS, AGENTS_LEAVE, QUEUE_HEADINGS, QUEUES_LEAVE, agent_row, queue_row
from airunner.client.cli.rowtable import cut, table_lines
from airunner.client.cli.topboard import Rates, TopBoard

RUNNING: Final = ("id", "title", "queue", "ran", "owner")  # columns of running jobs
_PARTS: Final = 3  # queues, agents, jobs
_EDGE: Final = 2  # rows of a part besides its own: the headings, and a free line above


def top_lines(
    board: TopBoard, now_ms: int, rates: Rates | None, width: float = math.inf, height: float = math.inf
) -> list[str]:
    """Format the board; `rates`: None for a single look."""
    lines = [cut(line, width) for line in _summary(board, rates, width)]
    queues = [queue_row(board.queues[name], now_ms) for name in sorted(board.queues)]
    agents = [agent_row(board.agents[name], now_ms) for name in sorted(board.agents)]
    room = height - len(lines) - _PARTS * _EDGE
    shares = _shares(room, len(queues), len(agents))
    lines += ["", *_table(QUEUE_HEADINGS, queues, QUEUES_LEAVE, width, shares[0])]
    lines += ["", *_table(AGENT_HEADINGS, agents, AGENTS_LEAVE, width, shares[1])]
    left = max(0, height - len(lines) - _EDGE)
    jobs = board.jobs if len(board.jobs) <= left else board.jobs[: max(0, int(left) - 1)]
    if math.isinf(width):
        return [*lines, "", *Table().lines(jobs, now_ms, RUNNING)]
    lines += ["", *table_text(jobs, now_ms, RUNNING, width=int(width)).splitlines()]
    if len(jobs) < len(board.jobs):
        lines.append(f"… and {len(board.jobs) - len(jobs)} more")
    return lines[: int(height)]


def _summary(board: TopBoard, rates: Rates | None, width: float) -> list[str]:
    """Sum up in a line, or in several on a narrow terminal."""
    waiting = sum(queue.waiting for queue in board.queues.values())
    running = sum(queue.running for queue in board.queues.values())
    slots = sum(agent.slots for agent in board.agents.values())
    busy = sum(agent.leases for agent in board.agents.values())
    facts = [f"{waiting:,} waiting, {running:,} running", f"{busy:,} of {slots:,} slots busy"]
    if rates is not None:
        facts.append(f"a second: {rates.submitted:.1f} submitted, {rates.started:.1f} started, {rates.ended:.1f} ended")
    line = "; ".join(facts)
    return [line] if math.isinf(width) else textwrap.wrap(line, max(1, int(width)))


def _shares(room: float, queues: int, agents: int) -> tuple[float, float]:
    """Divide the rows of queues and agents: each gets a third at least, and what the others leave."""
    third = room // _PARTS
    if math.isinf(room):
        return room, room
    first = min(queues, max(third, room - third - min(agents, third)))
    return max(1, first), max(1, min(agents, max(third, room - third - first)))


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], leave: Sequence[str], width: float, share: float
) -> list[str]:
    """Format a table of at most `share` rows."""
    lines = list(table_lines(headings, rows, leave, width))
    if len(rows) > share:
        kept = max(0, int(share) - 1)
        lines[kept + 1 :] = [f"… and {len(rows) - kept} more"]
    return lines
