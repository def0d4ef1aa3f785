"""What a job may be, and what follows from how it ended."""

from __future__ import annotations

import msgspec
import pytest

from airunner.protocol.dependencies import dependency_of
from airunner.protocol.fields import FIELDS, JobSpec, TerminalSize
from airunner.protocol.job import (
    SPEC_BYTES_MAX,
    SUMMARY_COMMAND_CHARS,
    Job,
    JobState,
    Reason,
    Result,
    command_summary,
    decode_spec,
    encode_spec,
)
from airunner.protocol.states import FINISHING, TRANSITIONS, mermaid
from tests.protocol.examples import JOB_ID, SPEC


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"command": "a\0"}, "command"),
        ({"args": ("a\0",)}, "args"),
        ({"owner": "\0"}, "owner"),
        ({"environment": {"A=B": ""}}, "environment"),
        ({"environment": {"A": "\0"}}, "environment"),
        ({"metadata": {"\0": ""}}, "metadata"),
        ({"secrets": ("A=B",)}, "secrets"),
        ({"secrets": ("A\0",)}, "secrets"),
        ({"working_directory": "/etc"}, "working_directory"),
        ({"working_directory": "a/../../b"}, "working_directory"),
        ({"artifacts": ("dist/*", "/etc/*")}, "artifacts"),
        ({"artifacts": ("a/../../b",)}, "artifacts"),
        ({"keep": ("/etc",)}, "keep"),
        ({"keep": ("a/../../b",)}, "keep"),
        ({"keep": ("./.git/hooks",)}, "keep"),
        ({"keep_every_seconds": 60}, "keep_every_seconds"),
        ({"commit": "c0ffee"}, "needs a repository"),
        ({"branch": "main"}, "needs a repository"),
        ({"after": ("job", "job:any")}, "job is named twice"),
    ],
)
def test_what_no_process_can_be_given_is_refused(fields: dict[str, object], why: str):
    with pytest.raises(ValueError, match=why):
        JobSpec(**({"command": "true"} | fields))


def test_a_job_is_stored_whole_and_bounded():
    assert decode_spec(encode_spec(SPEC)) == SPEC
    assert str(TerminalSize(cols=120, rows=40)) == "120x40"  # as --terminal takes it
    assert msgspec.structs.replace(SPEC, working_directory="a/b..c").working_directory == "a/b..c"
    with pytest.raises(ValueError, match=r"command: this has \d+ bytes, and the whole job \d+ of at most \d+"):
        encode_spec(JobSpec(command="x" * SPEC_BYTES_MAX))


def test_a_long_command_is_one_short_line():
    assert command_summary(JobSpec(command="echo", args=("a", "b"))) == "echo a b"
    line = command_summary(JobSpec(command="x" * 1_000))
    assert len(line) == SUMMARY_COMMAND_CHARS
    assert line.endswith("…")


@pytest.mark.parametrize(
    ("result", "state", "exit_status"),
    [
        (Result(exit_code=0), JobState.COMPLETED, 0),
        (Result(exit_code=7, reason=Reason.EXIT_CODE), JobState.FAILED, 7),
        (Result(signal=9, reason=Reason.SIGNAL), JobState.FAILED, 137),
        (Result(exit_code=0, reason=Reason.PROCESS_ERROR), JobState.FAILED, 125),
        (Result(signal=15, reason=Reason.TIMEOUT), JobState.FAILED, 124),
        (Result(exit_code=0, reason=Reason.CANCELLED), JobState.CANCELLED, 125),
        (Result(reason=Reason.SKIPPED), JobState.SKIPPED, 125),
        (Result(exit_code=1, reason=Reason.HOOK_FAILED), JobState.FAILED, 125),
        (Result(), JobState.FAILED, 125),
    ],
)
def test_how_it_ended_says_the_state_and_the_exit_status(result: Result, state: JobState, exit_status: int):
    assert (result.state, result.exit_status) == (state, exit_status)


@pytest.mark.parametrize(
    ("state", "result", "exit_status"),
    [
        (JobState.RUNNING, None, None),
        (JobState.FAILED, Result(exit_code=7, reason=Reason.EXIT_CODE), 7),
        (JobState.CANCELLED, None, 125),
    ],
)
def test_a_job_has_an_exit_status_once_it_has_ended(state: JobState, result: Result | None, exit_status: int | None):
    assert Job(id=JOB_ID, state=state, submitted_ms=0, result=result, spec=SPEC).exit_status == exit_status


def test_a_terminal_state_never_changes_and_is_reached_by_its_own_change_as_the_diagram_draws_it():
    assert set(FINISHING) == {state for state in JobState if state.terminal}
    for state in JobState:
        assert state.terminal == (state not in {before for before, _ in TRANSITIONS})
    for state, change in FINISHING.items():
        before = JobState.BLOCKED if state is JobState.SKIPPED else JobState.RUNNING
        assert TRANSITIONS[before, change] is state
    lines = mermaid().splitlines()
    for (state, change), target in TRANSITIONS.items():
        assert f"    {state} --> {target}: {change}" in lines
    assert sum(line.endswith("--> [*]") for line in lines) == len(FINISHING)


def test_a_field_knows_its_bounds_where_its_type_has_both() -> None:
    assert (FIELDS["priority"].bounds, FIELDS["command"].bounds) == ((-100, 100), None)


@pytest.mark.parametrize("text", ["job", "job:failure", "build:prod", "build:prod:any", ":any"])
def test_a_dependency_is_written_as_it_is_read(text: str) -> None:
    assert str(dependency_of(text)) == text
    assert str(dependency_of("job:success")) == "job"
