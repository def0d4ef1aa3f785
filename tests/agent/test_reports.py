"""Reports: an agent's lines, of which many that come at once are few writes."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from airunner.agent.reports import GATHER_S, LINES_MAX, Reports


async def test_a_line_is_written_at_once_and_what_follows_at_once_is_gathered() -> None:
    written: list[Sequence[str]] = []
    reports = Reports(written.append)
    async with anyio.create_task_group() as group:
        group.start_soon(reports.run)
        await anyio.wait_all_tasks_blocked()
        reports.add("a")
        assert written == [["a"]]
        reports.add("b")
        reports.add("c")
        assert written == [["a"]]
        await anyio.sleep(2 * GATHER_S)  # virtual
        assert written == [["a"], ["b", "c"]]
        await anyio.sleep(GATHER_S)  # virtual
        reports.add("d")
        reports.add("e")
        group.cancel_scope.cancel()
    assert written == [["a"], ["b", "c"], ["d"], ["e"]], "an agent that ends loses no line"


async def test_gathered_lines_are_bounded() -> None:
    written: list[Sequence[str]] = []
    reports = Reports(written.append)
    for number in range(LINES_MAX + 1):
        reports.add(str(number))
    assert [len(lines) for lines in written] == [1, LINES_MAX]
