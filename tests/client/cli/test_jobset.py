"""A job file that describes several jobs, and what is wrong with one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from airunner.client.cli.jobfile import JobDocument, fields_in
from airunner.client.cli.jobset import JOBS_MAX, is_job_set, job_documents
from airunner.client.cli.setstatus import BAR_CHARS, progress_text
from airunner.client.cli.sources import Sources
from airunner.client.cli.written import Entries, load
from airunner.client.specs import batches
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Job, JobState
from airunner.protocol.names import JobId

MATRIX = """
name: tests
matrix:
  python: ["3.11", "3.12"]
  os: [linux, macos]
  exclude: [{python: "3.11", os: macos}]
command: make
args: ["PY={{matrix.python}}", "{{ matrix.os }}-{{matrix.os}}", "{{other}}"]
require: {os: "{{matrix.os}}"}
"""
LIST = """
queue: ci
environment: {LEVEL: low}
jobs:
  - {name: lint, command: ruff}
  - {name: "py{{matrix.v}}", command: pytest, queue: slow, matrix: {v: [1, 2]}}
"""


def jobs(text: str) -> list[dict[str, Any]]:
    document = load(text.encode(), "jobs.yaml")
    assert isinstance(document, Entries)
    assert is_job_set(document)
    return [fields_in(JobDocument(job, "jobs.yaml"), 0, Sources()) for job in job_documents(document, "jobs.yaml")]


def test_each_cell_of_a_matrix_is_a_job_with_its_values_in_every_text() -> None:
    made = jobs(MATRIX)
    assert [job["name"] for job in made] == ["tests (3.11, linux)", "tests (3.12, linux)", "tests (3.12, macos)"]
    assert made[2]["args"] == ("PY=3.12", "macos-macos", "{{other}}")
    assert made[2]["require"] == {"os": "macos"}
    assert jobs("{command: x, matrix: {a: [b]}}") == [{"command": "x", "name": "b"}]


def test_the_job_sets_of_the_how_to_page_are_read() -> None:
    page = Path(__file__).parents[3] / "docs" / "howto" / "matrix.md"
    files = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    assert [len(jobs(file)) for file in files] == [5, 2]


def test_each_job_of_a_list_has_the_keys_of_the_file_and_its_own() -> None:
    made = jobs(LIST)
    assert [(job["name"], job["queue"]) for job in made] == [("lint", "ci"), ("py1", "slow"), ("py2", "slow")]
    assert all(job["environment"] == {"LEVEL": "low"} for job in made)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("jobs: x", "jobs: expected a list of jobs, not the text 'x'"),
        ("jobs: []", "no job is described here"),
        ("jobs:\n- a", "line 2: jobs: expected a job's keys, not the text 'a'"),
        ("jobs: []\nmatrix: {}", "line 2: matrix: give each of the jobs its matrix"),
        ("command: x\nmatrix: 3", "line 2: matrix: expected names and lists of values, not the number 3"),
        ("command: x\nmatrix: {a: b}", "line 2: matrix.a: expected a list of values such as [linux, macos]"),
        (
            "command: x\nmatrix: {a: []}",
            "line 2: matrix.a: expected a list of values such as [linux, macos], not an empty",
        ),
        ("command: x\nmatrix: {a: [{b: c}]}", "[linux, macos], not a list with a mapping"),
        ("command: x\nmatrix: {a: [1, 2, 1]}", "line 2: matrix.a: the value '1' is here again"),
        ("command: '{{matrix.b}}'\nmatrix: {a: [1]}", "line 1: {{matrix.b}}: the matrix has a, not 'b'"),
        ("command: x\nmatrix: {a: [1], exclude: 3}", "line 2: matrix.exclude: expected a list of cells"),
        ("command: x\nmatrix: {a: [1], exclude: [{b: 1}]}", "matrix.exclude: b is none of the matrix: a"),
        ("command: x\nmatrix: {a: [1], exclude: [{a: 1}]}", "no job is described here"),
        ("jobs:\n- {command: x, nope: 1}", "line 2: unknown key 'nope'; the keys are command, "),
        ("command: x\nnope: 1\nmatrix: {a: [1]}", ", jobs, matrix"),
        (
            f"command: x\nmatrix: {{a: {list(range(11))}, b: {list(range(100))}}}",
            f"more than {JOBS_MAX:,} jobs are described here",
        ),
    ],
)
def test_what_is_wrong_with_a_job_set_is_said_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(OperatorError) as error:
        jobs(text)
    assert error.value.message.startswith("jobs.yaml")
    assert problem in error.value.message


def test_a_set_is_sent_in_requests_that_a_broker_accepts() -> None:
    small, large = JobSpec(command="x"), JobSpec(command="x", args=("y" * 60_000,))
    assert [len(batch) for batch in batches([small] * 130)] == [64, 64, 2]
    assert [len(batch) for batch in batches([large] * 9)] == [4, 4, 1]


def test_progress_is_a_bar_and_counts() -> None:
    states = (JobState.COMPLETED, JobState.CANCELLED)
    ends = [Job(id=JobId(state), state=state, submitted_ms=0, spec=JobSpec(command="x")) for state in states]
    assert progress_text((), 3) == f"[{'.' * BAR_CHARS}] 0 of 3 ended"
    assert progress_text(ends, 2) == f"[{'#' * BAR_CHARS}] 2 of 2 ended, 1 not completed"
