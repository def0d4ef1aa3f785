"""An agent takes what descriptors its slots need, leaves its jobs the bound that it was given, and takes on no more."""

from __future__ import annotations

import pytest

from airunner.agent.plan import AGENT_DESCRIPTORS, SLOT_DESCRIPTORS
from tests.acceptance.bounded import needs_prlimit, with_descriptors
from tests.acceptance.running import Cluster, Process

pytestmark = [pytest.mark.timeout(60), needs_prlimit]

SOFT = 80  # four slots' worth


def agent_with(cluster: Cluster, soft: int, hard: int, slots: int) -> Process:
    words = ["agent", "--broker", cluster.broker.requests, "--spawn", str(slots)]
    cluster.agents.append(with_descriptors(cluster.home, soft, hard, words))
    return cluster.agents[-1]


def test_an_agent_opens_what_its_slots_need_and_its_jobs_keep_the_bound_that_a_shell_gives(cluster: Cluster) -> None:
    agent = agent_with(cluster, SOFT, 4_096, slots=24)
    assert " 24 slots," in agent.line("airunner agent ready")
    done = cluster.airunner("submit", "--", "sh", "-c", "ulimit -Sn")
    assert done.stdout == f"{SOFT}\n".encode(), "a program that uses select() counts on it"


def test_no_more_slots_are_taken_than_descriptors_carry_and_that_is_said(cluster: Cluster) -> None:
    hard = AGENT_DESCRIPTORS + 3 * SLOT_DESCRIPTORS
    agent = agent_with(cluster, hard, hard, slots=9)
    said = agent.line("--spawn 9")
    assert "only 3 jobs run at once" in said
    assert "LimitNOFILE=" in said
    assert " 3 slots," in agent.line("airunner agent ready")
