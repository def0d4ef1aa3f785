"""Reports: an agent's lines, of which many that come at once are few writes."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio
import pytest

from airunner.agent import command
from airunner.agent.reports import GATHER_S, LINES_MAX, Reports

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


async def test_a_line_is_written_at_once_and_what_follows_at_once_is_gathered() -> None:
    written: list[Sequence[str]] = []
    reports = Reports(written.append)
    async with anyio.create_task_group() as group:
        group.start_soon(reports.run)
        await anyio.wait_all_tasks_blocked()
        reports.add("a")
        assert written == [], "a job begins before its line is written"
        await anyio.wait_all_tasks_blocked()
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
    assert written == [["a"], ["b", "c"], ["d", "e"]], "an agent that ends loses no line"


async def test_gathered_lines_are_bounded() -> None:
    written: list[Sequence[str]] = []
    reports = Reports(written.append)
    for number in range(LINES_MAX + 1):
        reports.add(str(number))
    assert [len(lines) for lines in written] == [LINES_MAX]


class Raw(io.RawIOBase):
    """What is written to a descriptor."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, text: ReadableBuffer, /) -> int:
        self.writes.append(bytes(text))
        return len(self.writes[-1])


def test_several_lines_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = Raw()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True))
    command._say("one", "two")
    assert raw.writes == [b"one\ntwo\n"]
