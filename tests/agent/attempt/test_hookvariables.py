"""Variables of the operator and of hooks: how they are written, whom they reach, and who cannot change them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from airunner.agent.attempt.hookvariables import FILE_BYTES_MAX, BadVariables, variables_in
from airunner.agent.launcher.local import ChildLauncher
from airunner.client.client import Client
from airunner.protocol.job import JobState, Reason, Result
from tests.agent.attempt.test_hooks import ran, write
from tests.agent.playing import staged

OPERATORS = {"LEVEL": "operator", "PROXY": "http://proxy:1", "MIRROR_TOKEN": "trustno1", "HOME": "/operators"}


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    (folder := tmp_path / "hooks").mkdir()
    return folder


@pytest.fixture
async def client(tmp_path: Path, hooks: Path, launcher: ChildLauncher) -> AsyncIterator[Client]:
    async with staged(tmp_path, hooks=hooks, real=launcher, variables=OPERATORS) as stage:
        yield stage.client


@pytest.mark.parametrize(
    ("raw", "variables"),
    [
        (b"", {}),
        (b"A=1\nB=2", {"A": "1", "B": "2"}),
        (b"A=1\nA=2\n", {"A": "2"}),
        (b"\n# a comment\nA=a=b # no comment \n", {"A": "a=b # no comment "}),
        (b"A=\r\nB=b\r\n", {"A": "", "B": "b"}),
        (b"A=x<<y\n", {"A": "x<<y"}),
        (b"KEY<<EOF\n-----BEGIN-----\n\n a=b\nEOF2\nEOF\nB=1\n", {"KEY": "-----BEGIN-----\n\n a=b\nEOF2", "B": "1"}),
        (b"A<<E\nE\n", {"A": ""}),
        (b"A<<a=b\nline\r\na=b\r\n", {"A": "line\r"}),
        ("A=\u00e9\u20ac".encode(), {"A": "\u00e9\u20ac"}),
        (b"A=\xff", {"A": "\udcff"}),
        (b"A=" + b"x" * (FILE_BYTES_MAX - 2), {"A": "x" * (FILE_BYTES_MAX - 2)}),
    ],
)
def test_a_line_is_a_variable_and_a_heredoc_has_several_lines(raw: bytes, variables: dict[str, str]) -> None:
    assert variables_in(raw) == variables


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"A=1\nB\n", "line 2: expected NAME=VALUE or NAME<<END, not 'B'"),
        (b"export A=1", "line 1: 'export A' is not the name of a variable; write NAME=VALUE, without export"),
        (b"=1", "line 1: '' is not the name of a variable"),
        (b"1A=1", "'1A' is not the name of a variable"),
        (b"A<<\nx\n", "line 1: A<< names no line that ends the value"),
        (b"B=1\nA<<EOF\nx\nEOF \n", "line 2: no line 'EOF' ends the value of A"),
        (b"AIRUNNER_JOB_ID=1", "AIRUNNER_JOB_ID is not set: only the agent sets variables that begin with AIRUNNER"),
        (b"AIRUNNER=1", "only the agent sets"),
        (b"A=\0", "line 1: the value of A contains a NUL character"),
        (b"A=" + b"x" * FILE_BYTES_MAX, f"the file is larger than {FILE_BYTES_MAX} bytes"),
        (b"".join(b"A%d=\n" % number for number in range(1_025)), "there are 1025 variables"),
    ],
)
def test_a_malformed_variable_is_refused_with_its_line(raw: bytes, said: str) -> None:
    with pytest.raises(BadVariables) as refused:
        variables_in(raw)
    assert said in str(refused.value)


async def test_what_a_hook_sets_reaches_the_later_steps_and_no_other_job(client: Client, hooks: Path) -> None:
    seen = 'echo "$AIRUNNER_HOOK:$LEVEL:$PROXY:$A:$LINES_OF"'
    write(hooks, "pre-command", f"{seen}; printf 'A=1\\nLEVEL=hook\\nLINES_OF<<E\\na\\nb\\nE\\n' > $AIRUNNER_ENV")
    write(hooks, "post-command", f"{seen}; test ! -s $AIRUNNER_ENV; echo A=2 >> $AIRUNNER_ENV")
    write(hooks, "pre-exit", seen)
    job = await ran(client, seen, environment={"LEVEL": "job"})
    assert job.state is JobState.COMPLETED, job.said
    assert job.lines == [
        "pre-command:operator:http://proxy:1::",
        *(":hook:http://proxy:1:1:a", "b"),
        *("post-command:hook:http://proxy:1:1:a", "b"),
        *("pre-exit:hook:http://proxy:1:2:a", "b"),
    ]
    (hooks / "pre-command").unlink()
    assert (await ran(client, "echo $A:$LEVEL:$HOME", environment={"LEVEL": "job"})).lines[0] == ":job:/operators"


async def test_the_checkout_gets_a_proxy_that_a_hook_or_the_operator_has_set(client: Client, hooks: Path) -> None:
    write(hooks, "git", 'echo "fatal: git has $HTTPS_PROXY, $A" >&2; exit 1')
    write(hooks, "pre-checkout", f"printf 'PATH={hooks}:/bin:/usr/bin\\nHTTPS_PROXY=http://p\\nA=1\\n' > $AIRUNNER_ENV")
    job = await ran(client, "true", repository="https://example.org/x.git")
    assert job.result == Result(reason=Reason.CHECKOUT_FAILED)
    assert job.checkout_error.endswith("git has http://p,"), "and no variable that git has no use for"


@pytest.mark.parametrize(
    ("write_it", "said"),
    [
        ("echo nonsense > $f", "that cannot be used: line 1: expected NAME=VALUE"),
        ("ln -sf /etc/passwd $f", "it is a link"),
        ("rm $f; mkfifo $f", "it is no longer a regular file"),
        ("rm $f; mkdir -p $f/sub", "it is no longer a regular file"),
        ("head -c 65537 /dev/zero > $f", "the file is larger than"),
        ("rm $f", ""),
        ("echo A=1 > $f.new; mv $f.new $f", ""),
        ("echo nonsense > $f; exit 3", "exited with 3"),
    ],
)
async def test_variables_that_cannot_be_used_fail_the_job_and_no_file_is_left(
    client: Client, hooks: Path, tmp_path: Path, write_it: str, said: str
) -> None:
    write(hooks, "pre-command", f"f=$AIRUNNER_ENV; {write_it}")
    job = await ran(client, f"ls {tmp_path}/workspaces | grep hook; echo command $A")
    if said:
        assert (job.state, job.result and job.result.reason) == (JobState.FAILED, Reason.HOOK_FAILED)
        assert said in job.said[0]
        assert "command" not in "".join(job.lines)
    else:
        assert job.lines in (["command"], ["command 1"]), "and a command finds no file of a hook"
    assert not any("hook" in entry.name for entry in os.scandir(tmp_path / "workspaces"))


async def test_secret_variables_of_operator_and_hooks_are_redacted(client: Client, hooks: Path) -> None:
    write(hooks, "pre-command", "printf 'API_TOKEN<<E\\nswordfish\\nE\\n' > $AIRUNNER_ENV")
    write(hooks, "pre-exit", "echo $API_TOKEN $AIRUNNER_ENV_NPM_TOKEN")
    job = await ran(client, "echo $API_TOKEN $MIRROR_TOKEN $NPM_TOKEN", environment={"NPM_TOKEN": "hunter22"})
    assert job.lines == ["[REDACTED] [REDACTED] [REDACTED]", "[REDACTED] [REDACTED]"]
