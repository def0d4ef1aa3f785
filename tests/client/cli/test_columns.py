"""How lists of jobs are shown as tables."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from airunner.client.cli.columns import TERMINAL, Table, fitting, table_text
from airunner.client.cli.rowtable import table_lines
from airunner.protocol.job import JobState, JobSummary, Result
from airunner.protocol.names import JobId


def summary(letter: str, state: JobState = JobState.SCHEDULED, **more: Any) -> JobSummary:
    return JobSummary(
        **{"id": JobId(letter * 36), "state": state, "queue": "q", "submitted_ms": 0, "command": "make"} | more
    )


def test_a_table_of_other_rows_is_whole_in_a_pipe_and_as_wide_as_a_terminal() -> None:
    rows = [("one", "", "3", "a long\nlast line of it"), ("two", "", "", "")]
    headings, leave = ("ID", "NAME", "EXIT", "LAST LINE"), ("EXIT", "LAST LINE")
    assert list(table_lines(headings, rows, leave, math.inf)) == [
        "ID   NAME  EXIT  LAST LINE",
        "one  -     3     a long last line of it",
        "two  -     -     -",
    ]
    assert list(table_lines(headings, rows, leave, 27)) == [
        "ID   EXIT  LAST LINE",
        "one  3     a long last lin…",
        "two",
    ]
    assert next(table_lines(headings, rows, leave, 26)) == "ID   LAST LINE"
    assert next(table_lines(headings, rows, leave, 20)) == "ID"


def test_a_list_is_aligned_and_no_command_breaks_its_lines() -> None:
    ended = {"started_ms": 1, "finished_ms": 2_001, "result": Result(exit_code=3)}
    named = {
        "name": "tidy",
        "queue": "longer",
        "owner": "ada",
        "repository": "https://example.org/p.git",
        "command": "y z",
    }
    jobs = [summary("a", command="x\n\x1b[2J"), summary("b", JobState.FAILED, **named, **ended)]
    heading, first, second = Table().lines(jobs)
    assert heading.split() == ["ID", "STATE", "NAME", "QUEUE", "OWNER", "SUBMITTED", "TOOK", "REPOSITORY", "COMMAND"]
    assert first.endswith("x \\x1b[2J")
    shown = ["b" * 36, "FAILED", "3", "tidy", "longer", "ada", "1970-01-01T00:00:00Z", "2.0s"]
    assert second.split() == [*shown, "https://example.org/p.git", "y", "z"]
    assert first.split()[2:8] == ["-", "q", "-", "1970-01-01T00:00:00Z", "-", "-"]
    assert {line.index(word) for line, word in ((heading, "COMMAND"), (first, "x \\"), (second, "y z"))} == {
        heading.index("COMMAND")
    }


@pytest.mark.parametrize("width", [40, 60, 72, 80, 81, 110, 130, 200])
def test_only_the_command_is_cut_on_a_narrow_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    ended = {"started_ms": 0, "finished_ms": 187_000, "result": Result(signal=9)}
    done = summary("a", JobState.FAILED, queue="default", command="make " + "x" * 300, **ended)
    waiting = summary("b", queue="builds", command="sh -c 'echo hello'")
    heading, *rows = table_text([done, waiting], 7_500_000).splitlines()
    assert [row.split()[:2] for row in rows] == [["a" * 8, "FAILED"], ["b" * 8, "SCHEDULED"]]
    assert "FAILED signal 9" in rows[0]
    assert ("QUEUE" in heading, "AGE" in heading) == ("default" in rows[0], "2h05m" in rows[0])
    assert all(len(line) <= width for line in (heading, *rows))


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (200, TERMINAL),
        (120, ("id", "state", "title", "queue", "reason", "age", "took")),
        (80, ("id", "state", "title", "queue", "age", "took")),
        (53, ("id", "state", "title", "queue", "age")),
        (47, ("id", "state", "title", "age")),
        (40, ("id", "state", "title")),
        (30, ("id", "state")),
        (10, ("id", "state")),
    ],
)
def test_a_narrow_terminal_loses_columns_and_never_the_id(width: int, shown: tuple[str, ...]) -> None:
    widths = {"id": 8, "state": 9, "title": 99, "queue": 7, "reason": 25, "owner": 8, "age": 5, "took": 6}
    widths["repository"] = 32
    assert tuple(fitting(TERMINAL, widths, width)) == shown


def test_owner_and_repository_have_columns_where_some_job_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "dumb")
    plain = summary("a")
    assert table_text([plain], 0).splitlines()[0].split() == ["ID", "STATE", "NAME", "OR", "COMMAND", "QUEUE", "AGE"]
    owned = msgspec.structs.replace(plain, owner="ada", repository="https://example.org/p.git")
    heading, _, second = table_text([plain, owned], 0).splitlines()
    assert heading.split() == ["ID", "STATE", "NAME", "OR", "COMMAND", "QUEUE", "AGE", "OWNER", "REPOSITORY"]
    assert second.split()[2:] == ["make", "q", "0ms", "ada", "example.org/p"]
    deep = f"https://example.org/{'x' * 40}/project.git"
    assert "xxx/project\n" in table_text([msgspec.structs.replace(plain, repository=deep)], 0)


@pytest.mark.parametrize(("term", "no_color", "coloured"), [("xterm", "", 1), ("xterm", "1", 0), ("dumb", "", 0)])
def test_a_state_is_coloured_where_the_terminal_has_colours(
    term: str, no_color: str, coloured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_color)
    text = table_text([summary("a")], 0)
    assert (text.count("\x1b[33mSCHEDULED\x1b[0m"), "\x1b" in text) == (coloured, bool(coloured))
