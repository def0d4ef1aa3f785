"""What the words of `airunner submit` ask for."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from msgspec import structs

from airunner.client.cli.commands import split_operands, words_behind_dashes
from airunner.client.cli.request import SubmitFlags, fields_of, hints_of
from airunner.client.cli.retrying import policy_text
from airunner.client.client import spec_of
from airunner.client.requestid import request_id_of
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import TerminalSize
from airunner.protocol.jobretry import RetryOn, RetryPolicy


@pytest.mark.parametrize(
    ("argv", "operands", "repository", "words"),
    [
        (["submit", "--", "sh", "-c", "x"], ["sh", "-c", "x"], [], ["sh", "-c", "x"]),
        (["submit", "URL", "--", "make"], ["URL", "make"], ["URL"], ["make"]),
        (["submit", "URL"], ["URL"], ["URL"], None),
        (["submit", "--", "a", "--", "b"], ["a", "--", "b"], [], ["a", "--", "b"]),
        (["submit", "URL", "--"], ["URL"], ["URL"], []),
    ],
)
def test_the_command_is_what_stands_behind_the_first_dashes(
    argv: list[str], operands: list[str], repository: list[str], words: list[str] | None
) -> None:
    assert split_operands(operands, words_behind_dashes(argv)) == (repository, words)


def test_a_flag_beats_the_file_and_variables_are_merged(tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("command: make\nargs: [all]\nqueue: slow\nenvironment: {A: '1', B: '2'}\n")
    fields = fields_of(SubmitFlags(config=config, queue="fast", env=["B=3", "C=x=y"], operands=["https://x"]))
    assert fields == {
        "command": "make",
        "args": ("all",),
        "queue": "fast",
        "environment": {"A": "1", "B": "3", "C": "x=y"},
        "repository": "https://x",
    }


def test_words_behind_dashes_beat_the_files_command_and_its_arguments(tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("command: make\nargs: [all]\n")
    assert fields_of(SubmitFlags(config=config, words=["true"])) == {"command": "true", "args": ()}


def test_a_folder_is_named_absolutely_and_a_url_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path)
    assert fields_of(SubmitFlags(operands=["project"], words=["x"]))["repository"] == str(tmp_path / "project")
    assert fields_of(SubmitFlags(operands=["git@host:x.git"], words=["x"]))["repository"] == "git@host:x.git"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (SubmitFlags(), "there is no command to run"),
        (SubmitFlags(words=[]), "there is no command to run"),
        (SubmitFlags(operands=["URL"]), "there is no command to run"),
        (SubmitFlags(operands=["URL", "make"]), "put -- before the command"),
        (SubmitFlags(words=["a"], command="b"), "not both"),
        (SubmitFlags(words=["a"], env=["NAME"]), "--env 'NAME': expected NAME=VALUE"),
        (SubmitFlags(words=["a"], metadata=["=x"]), "--metadata '=x': expected NAME=VALUE"),
    ],
)
def test_words_that_make_no_job_are_told(flags: SubmitFlags, told: str) -> None:
    with pytest.raises(OperatorError, match=told):
        fields_of(flags)


def test_a_request_id_is_a_uuid_or_the_hash_of_any_text() -> None:
    uuid = "0197a2b4-1111-7222-8333-444455556666"
    assert request_id_of(uuid) == UUID(uuid).bytes
    assert len(request_id_of("nightly")) == 16
    assert request_id_of("nightly") == request_id_of("nightly") != request_id_of("weekly")
    for refused in ("", str(UUID(int=0))):
        with pytest.raises(OperatorError):
            request_id_of(refused)


def test_when_and_how_often_a_job_is_run_are_told_in_flags() -> None:
    flags = SubmitFlags(
        words=["true"],
        priority=7,
        not_before="+2h",
        max_attempts=1,
        retry=2,
        retry_on=["75,kill"],
        retry_backoff="500ms",
    )
    fields = fields_of(flags, 1_000)
    assert (fields["priority"], fields["not_before_ms"], fields["max_attempts"]) == (7, 7_201_000, 1)
    assert fields["retry"] == RetryPolicy(limit=2, backoff_ms=500, on=RetryOn(exit_codes=(75,), signals=(9,)))


def test_no_retries_beat_those_of_the_file(tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("command: make\nretry: 3\n")
    assert fields_of(SubmitFlags(config=config, retry=0))["retry"] is None


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (SubmitFlags(timeout="0"), "timeout_seconds", None),
        (SubmitFlags(timeout=""), "timeout_seconds", None),
        (SubmitFlags(timeout="1h30m"), "timeout_seconds", 5_400),
        (SubmitFlags(timeout="90"), "timeout_seconds", 90),
        (SubmitFlags(branch=""), "branch", ""),
        (SubmitFlags(commit=""), "commit", ""),
        (SubmitFlags(queue=""), "queue", "default"),
        (SubmitFlags(owner=""), "owner", ""),
        (SubmitFlags(depth=0), "depth", None),
        (SubmitFlags(priority=0), "priority", 0),
        (SubmitFlags(max_attempts=0), "max_attempts", 3),
        (SubmitFlags(working_directory=""), "working_directory", ""),
        (SubmitFlags(terminal=""), "terminal", TerminalSize()),
        (SubmitFlags(not_before=""), "not_before_ms", None),
        (SubmitFlags(retry=0), "retry", None),
    ],
)
def test_a_flag_that_is_empty_or_zero_unsets_what_the_file_says(
    flags: SubmitFlags, field: str, value: object, tmp_path: Path
) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(
        "command: make\nrepository: https://example.org/x.git\ntimeout: 9\nbranch: b\ncommit: c\nqueue: q\nowner: o\n"
        "depth: 1\npriority: 1\nmaxAttempts: 1\nworkingDirectory: d\nterminal: {cols: 9}\nnotBefore: +1h\nretry: 1\n"
    )
    spec = spec_of(fields_of(structs.replace(flags, config=config)))
    assert getattr(spec, field) == value


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (SubmitFlags(words=["x"], retry_on=["1"]), "need --retry"),
        (SubmitFlags(words=["x"], retry=1, retry_on=["256"]), "256 is no exit code of a failure"),
        (SubmitFlags(words=["x"], retry=1, retry_on=["nine"]), "neither an exit code nor a signal"),
        (SubmitFlags(words=["x"], not_before="noon"), "expected an instant"),
        (SubmitFlags(words=["x"], not_before="+5y"), "expected an instant"),
        (SubmitFlags(words=["x"], not_before="+5"), "expected an instant"),
        (SubmitFlags(words=["x"], timeout="1.5"), "--timeout-seconds '1.5': expected whole seconds"),
        (SubmitFlags(words=["x"], timeout="-1"), "--timeout-seconds '-1': expected a number and a unit"),
        (SubmitFlags(words=["x"], retry=1, retry_backoff="2d"), "--retry-backoff 2d: expected up to 86400 s"),
        (SubmitFlags(words=["x"], not_before="1900-01-01T00:00:00Z"), "expected an instant"),
        (SubmitFlags(words=["x"], not_before="2027-01-31"), "does not say how far it is from UTC"),
    ],
)
def test_what_cannot_be_meant_is_told(flags: SubmitFlags, told: str) -> None:
    with pytest.raises(OperatorError) as error:
        fields_of(flags)
    assert told in error.value.message


def test_a_policy_is_shown_in_words() -> None:
    assert policy_text(RetryPolicy(limit=3)) == "up to 3 times, first after 1 s"
    policy = RetryPolicy(limit=1, backoff_ms=1_500, on=RetryOn(exit_codes=(75,), signals=(9,)))
    assert policy_text(policy) == "up to 1 times, first after 1.5 s, on exit code 75, signal 9"


def test_what_a_job_needs_and_how_large_its_terminal_is(tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("command: make\nrequire: {os: linux, arch: arm64}\n")
    flags = SubmitFlags(
        config=config, require=["arch=x86"], secrets=["A", "B"], terminal="120x40", depth=1, submodules=False
    )
    assert fields_of(flags) == {
        "command": "make",
        "require": {"os": "linux", "arch": "x86"},
        "secrets": ("A", "B"),
        "terminal": TerminalSize(cols=120, rows=40),
        "depth": 1,
        "submodules": False,
    }


@pytest.mark.parametrize("size", ["120", "0x1", "80x10001", "80X24", "-1x5", "axb", "99999x1"])
def test_a_size_that_is_none_is_told(size: str) -> None:
    with pytest.raises(OperatorError, match="expected COLSxROWS"):
        fields_of(SubmitFlags(terminal=size, words=["x"]))


def test_what_looks_like_a_list_is_taken_literally_with_a_hint() -> None:
    flags = SubmitFlags(
        command="sh", args=["-c,echo a"], env=["A=1;B=2"], metadata=["a=1,b=2"], require=["os=linux"], secrets=["A,B"]
    )
    assert fields_of(flags)["environment"] == {"A": "1;B=2"}
    assert fields_of(flags)["args"] == ("-c,echo a",)
    assert [hint.split()[0] for hint in hints_of(flags)] == ["--env", "--metadata", "--args", "--secret"]
