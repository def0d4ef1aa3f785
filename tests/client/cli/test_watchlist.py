"""A list of jobs that is shown again as it changes, and which page of how many it is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import anyio
import pytest
from msgspec.structs import replace

from airunner.client.changes import JobNews
from airunner.client.cli.columns import PIPE, TERMINAL
from airunner.client.cli.joblist import more_text
from airunner.client.cli.watchlist import AGAIN_S, JsonLines, Lines, Screen, watch_list
from airunner.client.jobboard import JobBoard
from airunner.protocol.errors import NotFound
from airunner.protocol.job import JobState, JobSummary
from airunner.protocol.replies import JobsListed
from tests.client.cli.test_columns import summary as job
from tests.client.cli.test_output import Files, Terminal, one_terminal, two_files  # noqa: F401 - fixtures
from tests.client.test_jobboard import change, changes


def test_a_pipe_is_given_the_list_and_then_what_is_new_or_has_changed_oldest_first(files: Files) -> None:
    view = Lines(files.console(), PIPE)
    view.show([], [job("a"), job("b")], 0)
    view.show([], [], 99_000)
    view.show([], [job("b", JobState.RUNNING), job("c"), job("d")], 99_000)
    heading, *rows = files.written[0].decode().splitlines()
    assert heading.split()[:3] == ["ID", "STATE", "NAME"]
    assert [row[0] for row in rows] == ["b", "a", "b", "c", "d"]
    assert ["RUNNING" in row for row in rows] == [False, False, True, False, False]
    assert len({row.index(" q ") for row in rows}) == 1, "in the columns of the first"


def test_json_is_an_object_for_each_job_that_is_new_or_has_changed(files: Files) -> None:
    view = JsonLines(files.console())
    view.show([], [job("a")], 0)
    view.show([], [], 0)
    view.show([], [job("a", JobState.COMPLETED)], 0)
    assert [json.loads(line)["state"] for line in files.written[0].splitlines()] == ["SCHEDULED", "COMPLETED"]


@pytest.mark.parametrize("width", [80, 16])
def test_a_terminal_is_given_a_table_over_the_one_before_of_as_many_jobs_as_it_has_room_for(
    width: int, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "6")
    monkeypatch.setenv("TERM", "dumb")
    view = Screen(terminal.console, TERMINAL)
    view.show([job(letter, command="x" * 99) for letter in "abcdefgh"], [], 0)
    first = terminal.shown().decode()
    assert "\x1b[" not in first
    shown = [line[0] for line in first.splitlines()]
    assert shown == (["I", "a", "b", "c", "d"] if width == 80 else ["a", " ", "b", " "])
    assert all(len(line) <= width for line in first.splitlines())
    view.show([job("a", JobState.RUNNING)], [], 0)
    second = terminal.shown().decode()
    assert second.startswith(f"\x1b[{len(shown)}A\r\x1b[J")
    assert "RUNNING" in second


async def test_a_list_is_read_when_it_begins_and_when_it_is_unsure_and_else_only_shown() -> None:
    asked_s: list[float] = []
    shown: list[tuple[list[str], list[str]]] = []
    came = [
        JobNews([], again=True),
        JobNews([changes(change("b", was=None))], again=False),
        JobNews([changes(change("c", command=""))], again=False),  # unknown: only a list says what it is
        JobNews([], again=False),
        JobNews([], again=False),
    ]

    async def news(within_s: float) -> JobNews:
        if not came:
            raise NotFound
        with anyio.move_on_after(0.25):
            await anyio.sleep(within_s)  # virtual
        return came.pop(0)

    async def ask() -> JobsListed:
        asked_s.append(anyio.current_time())
        letters = "a" if len(asked_s) == 1 else "cba"
        return JobsListed(jobs=tuple(job(letter, submitted_ms=ord(letter)) for letter in letters), more=False)

    class Seen:
        redraw_s = math.inf

        def show(self, jobs: Sequence[JobSummary], changed: Sequence[JobSummary], _now_ms: int) -> None:
            shown.append(([one.id[0] for one in jobs], [one.id[0] for one in changed]))

    with pytest.raises(NotFound):
        await watch_list(news, ask, JobBoard(3), Seen(), lambda: 0)
    assert [lists for lists, _ in shown] == [["a"], ["b", "a"], ["b", "a"], ["b", "a"], ["c", "b", "a"]]
    assert [changed for _, changed in shown] == [["a"], ["b"], [], [], ["c"]]
    assert asked_s[1] - asked_s[0] == AGAIN_S


def test_which_page_of_how_many_is_told() -> None:
    last = job("b")
    go_on = f"go on with --after {last.id}, or list --all"
    counted = JobsListed(jobs=(last,), more=True, total=1_045)
    assert more_text(counted, 20, last) == f"the newest 20 of 1,045 jobs; {go_on}"
    assert more_text(replace(counted, beyond=True), 1_000, last) == f"the newest 1,000 of over 1,045 jobs; {go_on}"
    for uncounted in (replace(counted, total=None), None):
        assert more_text(uncounted, 20, last) == f"20 jobs; {go_on}"
    assert more_text(None, 1, last) == f"1 job; {go_on}"
