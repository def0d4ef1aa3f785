"""A board of jobs follows the changes that are published, and knows when only a list can tell."""

from __future__ import annotations

from typing import Any

import pytest

from airunner.client.filters import JobFilters
from airunner.client.jobboard import JobBoard
from airunner.protocol.changes import JobChange, JobChanges
from airunner.protocol.job import JobState
from airunner.protocol.names import JobId
from tests.client.cli.test_columns import summary

RUNNING, SCHEDULED, DONE = JobState.RUNNING, JobState.SCHEDULED, JobState.COMPLETED


def change(letter: str, state: JobState = SCHEDULED, was: JobState | None = SCHEDULED, **more: Any) -> JobChange:
    """A change of a job that was submitted after all whose letters come before its own."""
    known = {"id": JobId(letter * 36), "queue": "q", "submitted_ms": ord(letter), "command": "make"}
    return JobChange(state=state, was=was, **(known | more))


def changes(*jobs: JobChange, number: int = 1) -> JobChanges:
    return JobChanges(sender=bytes(8), number=number, jobs=jobs)


def board(limit: int = 3, **filters: Any) -> JobBoard:
    """A board that has b and a."""
    found = JobBoard(limit, **JobFilters(**filters))
    found.replace([summary("b", submitted_ms=ord("b"), name="two"), summary("a", submitted_ms=ord("a"))])
    found.take_changed()
    return found


def letters(found: JobBoard) -> str:
    return "".join(job.id[0] for job in found.jobs)


def test_a_board_has_the_newest_jobs_as_they_are_now() -> None:
    found = board()
    assert found.apply(change("c", was=None))
    assert found.apply(change("b", RUNNING, attempt=1, command=""))
    assert (letters(found), [job.state for job in found.jobs]) == ("cba", [SCHEDULED, RUNNING, SCHEDULED])
    assert (found.jobs[1].name, found.jobs[1].command) == ("two", "make"), "what did not come stays"
    assert found.apply(change("d", was=None))
    assert letters(found) == "dcb"
    assert found.apply(change("a", RUNNING, attempt=1, command="")), "older than all of a full board"
    assert [job.id[0] for job in found.take_changed()] == ["c", "b", "d"]
    assert found.take_changed() == []
    assert found.apply(change("c", was=None)), "it is so already"
    assert found.take_changed() == []


def test_a_change_that_a_list_has_overtaken_is_ignored() -> None:
    found = board()
    course = [(RUNNING, 1), (SCHEDULED, 1), (RUNNING, 2), (DONE, 2)]
    for at, (state, attempt) in enumerate(course):
        assert found.apply(change("b", state, attempt=attempt))
        for old, earlier in course[:at]:
            assert found.apply(change("b", old, attempt=earlier))
        assert (found.jobs[0].state, found.jobs[0].attempt) == (state, attempt)


@pytest.mark.parametrize(
    ("filters", "came", "known", "shown"),
    [
        ({"state": RUNNING}, change("c", was=None), True, "ba"),
        ({"state": [RUNNING, SCHEDULED]}, change("c", RUNNING), True, "cba"),
        ({"state": SCHEDULED}, change("c", command=""), False, "ba"),
        ({"queue": "other"}, change("c", was=None), True, "ba"),
        ({"queue": "other"}, change("c", command=""), True, "ba"),
        ({"name": "two"}, change("c", was=None, name="two"), True, "cba"),
        ({"owner": "ann"}, change("c", was=None, owner="bo"), True, "ba"),
        ({"owner": "ann"}, change("c", command=""), False, "ba"),
        ({"metadata": {"build": "42"}}, change("c", was=None), True, "ba"),
        ({"metadata": {"build": "42"}}, change("c", was=None, metadata={"build": "42", "a": "b"}), True, "cba"),
        ({"metadata": {"build": "42"}}, change("b", RUNNING, attempt=1), True, "ba"),
        ({"state": SCHEDULED}, change("b", RUNNING, attempt=1), True, "a"),
    ],
)
def test_a_filtered_board_says_when_only_a_list_can_tell(
    filters: dict[str, Any], came: JobChange, shown: str, *, known: bool
) -> None:
    found = board(**filters)
    assert found.apply(came) is known
    assert letters(found) == shown


def test_when_a_job_leaves_a_full_board_an_older_one_may_take_its_place() -> None:
    found = board(2, state=SCHEDULED)
    assert not found.apply(change("b", RUNNING, attempt=1))
    assert [job.state for job in found.take_changed()] == [RUNNING], "that it left is a change too"
