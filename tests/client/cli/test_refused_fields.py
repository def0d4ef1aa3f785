"""What `airunner submit` and the SDK refuse, and how it is named there."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.client.cli.jobfile import read_job_file
from airunner.client.cli.options import Given
from airunner.client.cli.request import fields_of
from airunner.client.cli.sources import Sources
from airunner.client.specs import spec_of
from airunner.protocol.errors import BadRequest, OperatorError

LATIN = b"caf\xe9".decode(errors="surrogateescape")


@pytest.mark.parametrize(
    ("options", "words", "told"),
    [
        ({}, ["echo", LATIN], "the arguments after --: item 1: bytes that are not UTF-8 text cannot be sent"),
        (
            {"environment": [f"A={LATIN}"]},
            None,
            r"--env: 'A': bytes that are not UTF-8 text cannot be sent; encode them",
        ),
        ({"environment": ["A=\0"]}, None, "--env 'A=\\x00': 'A': a variable cannot contain a NUL character"),
        ({"args": ["x"] * 4_097}, None, "--args: expected 0 to 4096 items, not 4097"),
        ({"environment": [f"A{n}=" for n in range(1_025)]}, None, "--env: expected at most 1024 names, not 1025"),
        ({"metadata": [f"a{n}=" for n in range(65)]}, None, "--metadata: expected at most 64 names, not 65"),
        ({"args": ["x" * 131_073]}, None, "--args: item 1: expected at most 131072 characters, not 131073"),
        ({"args": ["x" * 70_000]}, None, "--args: this has 70006 bytes, and the whole job 70"),
        ({"secrets": [""]}, None, "--secret: item 1: expected text, and it is empty"),
        ({"queue": "a b"}, None, "--queue: expected 1 to 128 letters, digits and any of _.@:/+-"),
        (
            {"require": ["os=caf\u00e9"]},
            None,
            "--require: 'os': expected up to 128 characters of ASCII, not 'caf\u00e9'",
        ),
        (
            {"owner": LATIN},
            None,
            r"--owner: bytes that are not UTF-8 text cannot be sent",
        ),
        ({"owner": "a\u200b"}, None, "--owner: a\\u200b contains a control character or an invisible one"),
        ({"working_directory": "/x"}, None, "--working-directory: expected a folder in the checkout, not '/x'"),
        ({"branch": "b"}, None, "--branch: this needs a repository"),
        *(
            (
                {"branch": text, "repository": "/p"},
                None,
                f"--branch: expected the name of a branch or tag, not '{text}'",
            )
            for text in ("main~1", "-x", "a b", "main@{1}", "v1^{}", "feature/")
        ),
        ({"depth": "-1"}, None, "--depth: expected a whole number from 1 to 1000000 (0: all), not the number -1"),
    ],
)
def test_what_no_job_can_have_is_refused_by_option_or_line(
    options: dict[str, Given], words: list[str] | None, told: str
) -> None:
    if words is None:
        options = {**options, "command": "true"}
    sources = Sources()
    with pytest.raises((BadRequest, OperatorError)) as error:
        spec_of(fields_of(options, words=words, sources=sources), sources.label)
    assert told in error.value.message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("workingDirectory: ../x", "job.yaml, line 2: workingDirectory: expected a folder in the checkout, not '../x'"),
        ("environment:\n  A: 1\n  'B=': 2", "job.yaml, line 4: environment: 'B=': a name cannot contain ="),
        ("environment: {A: 1,\n  '': 2}", "job.yaml, line 3: environment: a name: expected text, and it is empty"),
        ('args:\n- a\n- "\\0"', "job.yaml, line 4: args: item 2: no process can be given a NUL character"),
        ("branch: b", "job.yaml, line 2: branch: this needs a repository"),
        (
            "repository: /p\ncommit: main~1",
            "job.yaml, line 3: commit: expected a hash, or the name of a branch or tag,",
        ),
        ("repository: https://exa\u200bmple.org/x", "job.yaml, line 2: repository: "),
        ('metadata:\n  a: "x\\u200b"\n  "b\\u200b": x', "job.yaml, line 4: metadata: b\\u200b contains"),
    ],
)
def test_what_a_rule_of_jobs_refuses_is_named_by_file_line_and_key(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(f"command: x\n{content}\n")
    sources = Sources()
    with pytest.raises(BadRequest) as error:
        spec_of(fields_of({}, config=read_job_file(str(tmp_path / "job.yaml")).only(), sources=sources), sources.label)
    assert error.value.message.removeprefix(f"{tmp_path}/").startswith(told)


@pytest.mark.parametrize("option", ["queue", "commit", "branch", "timeout_seconds", "working_directory", "retry"])
def test_an_option_that_is_empty_is_refused_where_no_job_file_is_overridden(option: str) -> None:
    with pytest.raises(OperatorError, match="is empty: give a value, or leave it out"):
        fields_of({option: ""}, words=["x"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"terminal": {"cols": 0}}, "terminal: cols: expected a whole number from 1 to 10000, not 0"),
        ({"retry": 3}, "retry: expected RetryPolicy(…), not 3"),
        ({"timeout_seconds": "10m"}, "timeout_seconds: expected a whole number of at least 1, not '10m'"),
        ({"not_before_ms": -1}, "not_before_ms: expected a whole number of at least 0, not -1"),
        ({"args": "x"}, "args: expected a list, not 'x'"),
        ({"environment": {"A": 1}}, "environment: 'A': expected text, not 1"),
        ({"environment": [("A", "1")]}, "environment: expected names with values, not [('A', '1')]"),
        ({"submodules": "yes"}, "submodules: expected true or false, not 'yes'"),
        ({"process_type": "tty"}, "process_type: expected pipe or pty, not 'tty'"),
        ({"queue": None}, "queue: expected text, not None"),
    ],
)
def test_a_wrong_field_of_the_sdk_is_named_as_it_is_called_there(fields: dict[str, object], message: str) -> None:
    with pytest.raises(BadRequest) as error:
        spec_of({"command": "x", **fields})
    assert error.value.message == message
