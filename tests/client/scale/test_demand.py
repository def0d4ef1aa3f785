"""How many agents are missing, and which names they get."""

from __future__ import annotations

import pytest

from airunner.client.scale.cluster import Unit, UnitState
from airunner.client.scale.demand import free_names, is_unit_of, missing_agents
from airunner.protocol.replies import AgentSummary, QueueMode, QueueSummary

OPEN, PAUSED, DRAINING = QueueMode.OPEN, QueueMode.PAUSED, QueueMode.DRAINING


def queue(waiting: int, mode: QueueMode = OPEN, **more: int) -> QueueSummary:
    return QueueSummary(queue="ci", mode=mode, waiting=waiting, running=more.pop("running", 0), **more)


def agents(*slots_and_leases: tuple[int, int], trouble: str = "") -> dict[str, AgentSummary]:
    found = (
        AgentSummary(name=f"a-{number}", slots=slots, leases=leases, seen_ms=1, trouble=trouble)
        for number, (slots, leases) in enumerate(slots_and_leases)
    )
    return {agent.name: agent for agent in found}


@pytest.mark.parametrize(
    ("jobs", "known", "starting", "slots", "missing"),
    [
        (None, {}, 0, 1, 0),  # a queue that no job was ever in
        (queue(0, running=9), {}, 0, 1, 0),  # what others run is no reason to start an agent
        (queue(7), {}, 0, 1, 7),
        (queue(7), {}, 3, 1, 4),  # those that start will run three
        (queue(7), {}, 9, 1, 0),
        (queue(7), {}, 1, 4, 1),
        (queue(9), {}, 1, 4, 2),
        (queue(7), agents((1, 1), (1, 1)), 0, 1, 7),
        (queue(7), agents((1, 1), (1, 0)), 1, 1, 5),
        (queue(1), agents((1, 0), trouble="its disk is full"), 0, 1, 1),
        (queue(3), agents((0, 1)), 0, 4, 0),  # a broker that was restarted knows of its lease alone
        (queue(5, delayed=4), {}, 0, 1, 1),
        (queue(5, PAUSED), {}, 0, 1, 0),
        (queue(5, DRAINING), {}, 0, 1, 5),
        (queue(5, suitable=2), {}, 0, 1, 2),  # three require other tags
        (queue(5, suitable=2), agents((1, 1)), 0, 1, 1),  # one of the two runs already
        (queue(5, suitable=0), agents((1, 1)), 0, 1, 0),
        (queue(5, running=9, suitable=14), {}, 0, 1, 5),
    ],
)
def test_an_agent_is_missing_for_each_job_that_could_begin_and_that_none_is_free_for(
    jobs: QueueSummary | None, known: dict[str, AgentSummary], starting: int, slots: int, missing: int
) -> None:
    assert missing_agents(jobs, known, [f"b-{number}" for number in range(starting)], slots) == missing


def test_a_name_is_free_when_its_unit_has_ended_and_there_are_never_more_than_the_maximum() -> None:
    def unit(number: int, state: UnitState) -> Unit:
        return Unit(f"a-{number}", f"key {number}", state)

    units = [
        unit(0, UnitState.LIVE),
        unit(1, UnitState.DONE),
        unit(2, UnitState.ENDING),
        unit(3, UnitState.FAILED),
        unit(4, UnitState.FAILED),
    ]
    assert free_names("a", 7, units, {"key 4"}) == ["a-1", "a-3", "a-5", "a-6"]
    assert free_names("a", 2, [unit(7, UnitState.LIVE)], ()) == ["a-0"]  # --max was more before
    assert free_names("a", 2, [unit(7, UnitState.LIVE), unit(8, UnitState.LIVE)], ()) == []


def test_units_of_other_scalers_are_not_its_own() -> None:
    names = ["a-0", "a-10", "a-b-0", "a-", "a-00", "a-0x", "a-٣", "a", "b-0"]
    assert [name for name in names if is_unit_of("a", name)] == ["a-0", "a-10"]
