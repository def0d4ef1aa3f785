"""A list of jobs that is shown again as it changes, and which page of how many it is."""

from __future__ import annotations

import json

import anyio
import pytest
from msgspec.structs import replace

from airunner.client.cli.columns import PIPE, TERMINAL
from airunner.client.cli.joblist import more_text
from airunner.client.cli.watchlist import WATCH_S, JsonLines, Lines, Screen, watch_list
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobsListed
from tests.client.cli.test_columns import summary as job
from tests.client.cli.test_output import Files, Terminal, one_terminal, two_files  # noqa: F401 - fixtures


def test_a_pipe_is_given_the_list_and_then_what_is_new_or_has_changed_oldest_first(files: Files) -> None:
    view = Lines(files.console(), PIPE)
    view.show([job("b"), job("a")], 0)
    view.show([job("b"), job("a")], 99_000)
    view.show([job("d"), job("c"), job("b", JobState.RUNNING), job("a")], 99_000)
    heading, *rows = files.written[0].decode().splitlines()
    assert heading.split()[:3] == ["ID", "STATE", "NAME"]
    assert [row[0] for row in rows] == ["b", "a", "b", "c", "d"]
    assert ["RUNNING" in row for row in rows] == [False, False, True, False, False]
    assert len({row.index(" q ") for row in rows}) == 1, "in the columns of the first"


def test_json_is_an_object_for_each_job_that_is_new_or_has_changed(files: Files) -> None:
    view = JsonLines(files.console())
    view.show([job("a")], 0)
    view.show([job("a")], 0)
    view.show([job("a", JobState.COMPLETED)], 0)
    assert [json.loads(line)["state"] for line in files.written[0].splitlines()] == ["SCHEDULED", "COMPLETED"]


@pytest.mark.parametrize("width", [80, 16])
def test_a_terminal_is_given_a_table_over_the_one_before_of_as_many_jobs_as_it_has_room_for(
    width: int, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "6")
    monkeypatch.setenv("TERM", "dumb")
    view = Screen(terminal.console, TERMINAL)
    view.show([job(letter, command="x" * 99) for letter in "abcdefgh"], 0)
    first = terminal.shown().decode()
    assert "\x1b[" not in first
    shown = [line[0] for line in first.splitlines()]
    assert shown == (["I", "a", "b", "c", "d"] if width == 80 else ["a", " ", "b", " "])
    assert all(len(line) <= width for line in first.splitlines())
    view.show([job("a", JobState.RUNNING)], 0)
    second = terminal.shown().decode()
    assert second.startswith(f"\x1b[{len(shown)}A\r\x1b[J")
    assert "RUNNING" in second


async def test_the_list_is_asked_for_one_interval_after_each_answer() -> None:
    asked_s: list[float] = []
    shown: list[object] = []

    async def ask() -> JobsListed:
        asked_s.append(anyio.current_time())
        return JobsListed(jobs=(job("a"),), more=False)

    await watch_list(ask, lambda *listed: shown.append(listed), lambda: 0, times=3)
    assert [at_s - asked_s[0] for at_s in asked_s] == pytest.approx([0, WATCH_S, 2 * WATCH_S])
    assert len(shown) == 3


def test_which_page_of_how_many_is_told() -> None:
    last = job("b")
    go_on = f"go on with --after {last.id}, or list --all"
    counted = JobsListed(jobs=(last,), more=True, total=1_045)
    assert more_text(counted, 20, last) == f"the newest 20 of 1,045 jobs; {go_on}"
    assert more_text(replace(counted, beyond=True), 1_000, last) == f"the newest 1,000 of over 1,045 jobs; {go_on}"
    for uncounted in (replace(counted, total=None), None):
        assert more_text(uncounted, 20, last) == f"20 jobs; {go_on}"
    assert more_text(None, 1, last) == f"1 job; {go_on}"
