"""What the words of `airunner submit` ask for."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from airunner.client.cli.commands import split_operands, words_after_dashes
from airunner.client.cli.jobfile import JobDocument, read_job_file
from airunner.client.cli.notation import policy_text
from airunner.client.cli.options import Given
from airunner.client.cli.request import fields_of, hints_of
from airunner.client.cli.sources import Sources
from airunner.client.requestids import request_id_of
from airunner.client.specs import spec_of
from airunner.protocol.errors import BadRequest, OperatorError
from airunner.protocol.expiry import Expiry
from airunner.protocol.fields import CancelSignal, ProcessType, TerminalSize
from airunner.protocol.jobretry import RetryOn, RetryPolicy


def document(path: Path) -> JobDocument:
    return read_job_file(str(path)).only()


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
    assert split_operands(operands, words_after_dashes(argv)) == (repository, words)


def test_a_flag_beats_the_file_and_variables_are_merged(tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("command: make\nargs: [all]\nqueue: slow\nenvironment: {A: '1', B: '2'}\n")
    fields = fields_of({"queue": "fast", "environment": ["B=3", "C=x=y"]}, ["https://x"], config=document(config))
    assert fields == {
        "command": "make",
        "args": ("all",),
        "queue": "fast",
        "environment": {"A": "1", "B": "3", "C": "x=y"},
        "repository": "https://x",
    }
    assert fields_of({"queue": ""}, words=["true"], config=document(config))["command"] == "true"
    assert fields_of({}, words=["true"], config=document(config))["args"] == ()


def test_a_folder_is_named_absolutely_and_a_url_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("project", "a:b", "job@2/project", "a@b:c", "user:1@x/y"):
        (tmp_path / folder).mkdir(parents=True)
        assert fields_of({}, [folder], ["x"])["repository"] == str(tmp_path / folder)
    (tmp_path / "x.bundle").touch()
    assert fields_of({}, ["x.bundle"], ["x"])["repository"] == str(tmp_path / "x.bundle")
    token = "t" * 300  # longer than the name of a file may be
    for address in ("git@host:x.git", f"https://user:{token}@host/x.git", f"host:{token}", "/no/such", "file:///srv/x"):
        assert fields_of({}, [address], ["x"])["repository"] == address
    for mistyped in ("projcet", "./projcet", "~/project", token):
        with pytest.raises(OperatorError, match="is no folder and no bundle here"):
            fields_of({}, [mistyped], ["x"])


@pytest.mark.parametrize(
    ("operands", "words", "told"),
    [
        ([], None, "there is no command to run"),
        ([], [], "there is no command to run"),
        (["URL"], None, "there is no command to run"),
        ([], [""], "the command after -- is empty: name a program"),
        ([""], ["true"], "REPOSITORY is empty: give a value, or leave it out"),
        (["URL", "make"], None, "put -- before the command"),
        ([".", "."], ["true"], "one word too many before --: only a repository is named there"),
    ],
)
def test_words_that_make_no_job_are_told(operands: list[str], words: list[str] | None, told: str) -> None:
    with pytest.raises(OperatorError, match=told):
        fields_of({}, operands, words)


HASH = "0123456789abcdef0123456789ABCDEF01234567"


@pytest.mark.parametrize(
    ("commit", "told"),
    [
        *((commit, None) for commit in ("HEAD", HASH, HASH[:7], HASH + HASH[:24])),
        ("v1.0", "--branch v1.0, or exactly one of them with --ref refs/tags/v1.0"),
        ("main", "--branch main"),
        ("abc", "--branch abc"),
        ("2024", "give more of its digits, or a branch or tag with --branch 2024"),
        ("refs/pull/7/head", "--ref refs/pull/7/head"),
        ("HEAD~1", "`git rev-parse 'HEAD~1'` prints"),
        (HASH * 2, "7 to 64 hexadecimal digits"),
    ],
)
def test_the_option_for_a_commit_takes_a_hash_and_says_what_to_give_instead(commit: str, told: str | None) -> None:
    options: dict[str, Given] = {"commit": commit}
    if told is None:
        assert fields_of(options, ["https://x"], ["make"])["commit"] == commit
    else:
        with pytest.raises(OperatorError) as caught:
            fields_of(options, ["https://x"], ["make"])
        assert told in str(caught.value)


@pytest.mark.parametrize(
    ("file", "options", "commit", "ref", "branch"),
    [
        ("branch: dev", {"ref": "refs/tags/v1"}, "refs/tags/v1", "refs/tags/v1", ""),
        ("commit: main", {"ref": "refs/tags/v1"}, "refs/tags/v1", "refs/tags/v1", ""),
        ("ref: refs/tags/v1", {"branch": "dev"}, "", "", "dev"),
        ("ref: refs/tags/v1", {"commit": HASH}, HASH, "refs/tags/v1", ""),
        ("branch: dev", {"commit": HASH}, HASH, "", "dev"),
    ],
)
def test_an_option_overrides_whatever_the_file_checks_out(
    tmp_path: Path, file: str, options: dict[str, Given], commit: str, ref: str, branch: str
) -> None:
    """Agents that know no ref find it in the commit."""
    config = tmp_path / "job.yaml"
    config.write_text(f"command: make\nrepository: https://x\n{file}\n")
    spec = spec_of(fields_of(options, config=document(config)))
    assert (spec.commit, spec.ref, spec.branch) == (commit, ref, branch)


@pytest.mark.parametrize("ref", ["main", "refs/heads/..", "-refs/x", "refs/heads/a b", "HEAD"])
def test_a_ref_is_a_full_name_and_excludes_a_branch(ref: str) -> None:
    for fields in ({"ref": ref}, {"ref": "refs/heads/main", "branch": "main"}):
        with pytest.raises(BadRequest, match=r"expected a full name such as|give only one"):
            spec_of({"command": "make", "repository": "https://x", **fields})


def test_a_request_id_is_a_uuid_or_the_hash_of_any_text() -> None:
    uuid = "0197a2b4-1111-7222-8333-444455556666"
    assert request_id_of(uuid) == UUID(uuid).bytes
    assert len(request_id_of("nightly")) == 16
    assert request_id_of("nightly") == request_id_of("nightly") != request_id_of("weekly")
    for refused in ("", str(UUID(int=0))):
        with pytest.raises(BadRequest):
            request_id_of(refused)


def test_what_a_job_needs_and_when_and_how_often_it_is_run_are_told_in_flags(tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("command: make\nrequire: {os: linux, arch: arm64}\n")
    options: dict[str, Given] = {
        "priority": "7",
        "not_before_ms": "+2h",
        "max_attempts": "1",
        "retry": "2",
        "retry_on": ["75,kill", "Timeout agent_lost"],
        "retry_backoff": "500ms",
        "require": ["arch=x86"],
        "secrets": ["A", "B"],
        "pty": True,
        "terminal": "120x40",
        "depth": "1",
        "submodules": False,
    }
    assert fields_of(options, config=document(config), now_ms=1_000) == {
        "command": "make",
        "priority": 7,
        "not_before_ms": 7_201_000,
        "max_attempts": 1,
        "retry": RetryPolicy(
            limit=2,
            backoff_ms=500,
            on=RetryOn(exit_codes=(75,), signals=(9,), reasons=("timeout", "agent-lost")),
        ),
        "require": {"os": "linux", "arch": "x86"},
        "secrets": ("A", "B"),
        "process_type": "pty",
        "terminal": TerminalSize(cols=120, rows=40),
        "depth": 1,
        "submodules": False,
    }


@pytest.mark.parametrize(
    ("option", "given", "value"),
    [
        ("timeout_seconds", "0", None),
        ("timeout_seconds", "", None),
        ("timeout_seconds", "1h30m", 5_400),
        ("timeout_seconds", "90", 90),
        ("branch", "", ""),
        ("commit", "", ""),
        ("queue", "", "default"),
        ("owner", "", ""),
        ("depth", "0", None),
        ("priority", "0", 0),
        ("max_attempts", "0", 3),
        ("working_directory", "", ""),
        ("terminal", "", TerminalSize()),
        ("not_before_ms", "", None),
        ("retry", "0", None),
        ("expires", "0", None),
        ("expires", "2h", Expiry(after_ms=7_200_000)),
        ("expires", "+90", Expiry(after_ms=90_000)),
        ("expires", "1970-01-01T00:00:05Z", Expiry(at_ms=5_000)),
        ("expires", "1893456000000", Expiry(at_ms=1_893_456_000_000)),
        ("submodules", False, False),
        ("process_type", "PTY", ProcessType.PTY),
        *(("cancel_signal", word, CancelSignal.INT) for word in ("INT", "SIGINT", "int", "sigint")),
    ],
)
def test_an_option_overrides_the_file_and_unsets_its_key_where_it_is_empty_or_zero(
    option: str, given: Given, value: object, tmp_path: Path
) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(
        "command: make\nrepository: https://example.org/x.git\ntimeout: 9\nbranch: b\ncommit: c\nqueue: q\nowner: o\n"
        "depth: 1\npriority: 1\nmaxAttempts: 1\nworkingDirectory: d\nterminal: {cols: 9}\nnotBefore: +1h\nretry: 1\n"
        "submodules: true\nexpires: 1h\n"
    )
    assert getattr(spec_of(fields_of({option: given}, config=document(config))), option) == value


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"command": "b"}, "not both"),
        ({"args": ["b"]}, "not both"),
        ({"environment": ["=x"]}, "--env '=x': expected NAME=VALUE, or NAME for a variable of your environment"),
        ({"metadata": ["=x"]}, "--metadata '=x': expected NAME=VALUE"),
        ({"retry_on": ["1"]}, "--retry-on needs --retry too"),
        ({"retry": "1", "retry_on": ["256"]}, "--retry-on: 256 is not an exit code of a failure"),
        ({"retry": "1", "retry_on": ["0"]}, "--retry-on: 0 is not an exit code of a failure"),
        (
            {"retry": "1", "retry_on": ["timeouts"]},
            "'timeouts' is not an exit code, a signal such as SIGKILL, or a reason",
        ),
        (
            {"retry": "1", "retry_on": ["cancelled"]},
            "or a reason: signal, timeout, checkout-failed, command-not-found,",
        ),
        ({"retry": "1", "retry_on": [""]}, "--retry-on: no failure is named; expected an exit code, a signal"),
        ({"retry": "1", "retry_on": [",", " "]}, "--retry-on: no failure is named"),
        ({"retry": "101"}, "--retry: expected a number up to 100, or {limit: 3"),
        (
            {"timeout_seconds": "9" * 16},
            f"--timeout: '{'9' * 16}' is too long a duration; at most 9007",
        ),
        ({"expires": "10x"}, "--expires: '10x': expected a duration such as 2h, or an instant such as 2027-01-31T03"),
        ({"expires": "-1h"}, "--expires: '-1h': expected a duration such as 2h, or an instant such as 2027-01-31T03"),
        ({"expires": "2027-03-29"}, "write 2027-03-29T00:00:00Z, or an offset such as +01:00"),
        ({"expires": "1970-01-01T00:00:00Z"}, "'1970-01-01T00:00:00Z' is past; it is 1970-01-01T00:00:00Z now"),
        ({"not_before_ms": "noon"}, "--not-before: 'noon': expected an instant"),
        ({"not_before_ms": "+5"}, "expected an instant"),
        ({"timeout_seconds": "1.5"}, "--timeout: expected whole seconds"),
        ({"retry": "1", "retry_backoff": "2d"}, "backoff: expected a number of seconds up to 86400"),
        ({"not_before_ms": "1900-01-01T00:00:00Z"}, "expected an instant"),
        *(
            ({"cancel_signal": word}, "--cancel-signal: expected TERM or INT or HUP")
            for word in ("KILL", "SIGSTOP", "2")
        ),
        ({"pty": True, "process_type": "pipe"}, "--pty contradicts --process-type pipe"),
        ({"retry": "101", "retry_on": ["1"]}, "--retry: expected a number up to 100, not the number 101"),
        ({"not_before_ms": "2027-03-29"}, "write 2027-03-29T00:00:00Z, or an offset such as +01:00"),
        ({"not_before_ms": "1801364400"}, "ms since the epoch, which have 12 digits or more"),
        ({"not_before_ms": "10m ago"}, "expected an instant"),
        ({"priority": "101"}, "--priority: expected a whole number from -100 to 100, not the number 101"),
        *(({"terminal": size}, "--terminal: expected a size") for size in ("120", "80X24", "-1x5", "axb", "0x1")),
        *(
            ({"terminal": size}, "--terminal: expected a whole number from 1 to 10000")
            for size in ("80x10001", "99999x1")
        ),
    ],
)
def test_what_cannot_be_meant_is_told(options: dict[str, Given], told: str) -> None:
    with pytest.raises(OperatorError) as error:
        fields_of(options, words=["x"])
    assert told in error.value.message


def test_a_policy_is_shown_in_words() -> None:
    assert policy_text(RetryPolicy(limit=3)) == "up to 3 times, first after 1 s"
    policy = RetryPolicy(limit=1, backoff_ms=1_500, on=RetryOn(exit_codes=(75,), signals=(9,), reasons=("oom",)))
    assert policy_text(policy) == "up to 1 times, first after 1.5 s, on exit code 75, signal 9, oom"


def test_what_looks_like_a_list_is_taken_literally_with_a_hint() -> None:
    options: dict[str, Given] = {
        "command": "sh",
        "args": ["-c,echo a"],
        "environment": ["A=1;B=2"],
        "metadata": ["a=1,b=2"],
        "require": ["os=linux"],
        "secrets": ["A,B"],
    }
    assert fields_of(options)["environment"] == {"A": "1;B=2"}
    assert fields_of(options)["args"] == ("-c,echo a",)
    assert {hint.split()[0] for hint in hints_of(options)} == {"--env", "--metadata", "--args", "--secret"}


def test_variables_are_merged_from_file_env_files_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "h")
    monkeypatch.delenv("NOT_HERE", raising=False)
    for name, content in (
        ("job.yaml", "command: x\nenvironment: {A: j, B: j, C: j, NOT_HERE: j}"),
        ("one.env", "B=1\nC=1\nHERE\nE=1"),
        ("two.env", "# C=0\nC=2"),
    ):
        (tmp_path / name).write_text(content)
    sources = Sources()
    fields = fields_of(
        {
            "environment": ["D=4", "D=5", "NOT_HERE", "E="],
            "env_file": [str(tmp_path / "one.env"), str(tmp_path / "two.env")],
        },
        config=document(tmp_path / "job.yaml"),
        sources=sources,
    )
    assert fields["environment"] == {"A": "j", "B": "1", "C": "2", "HERE": "h", "E": "", "D": "5"}
    assert sources.hints == ["--env: NOT_HERE is not set here, so the job does not get it"]
