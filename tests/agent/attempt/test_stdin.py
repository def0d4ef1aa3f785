"""The standard input of a job: read from the broker with each lease, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from airunner.agent.launcher.local import ChildLauncher
from airunner.broker import requests
from airunner.broker.lifecycle.reading import read_stdin
from airunner.broker.requests import KINDS, Kind
from airunner.certs.principal import Role
from airunner.protocol.errors import BadRequest, CorruptLog
from airunner.protocol.events import Output, ProcessError
from airunner.protocol.job import JobState, Reason
from airunner.protocol.replies import JobStdinRead
from airunner.protocol.requests import EnqueueJobWithStdin, ReadJobStdin
from tests.agent.attempt.test_hooks import HOOKS, write
from tests.agent.playing import Stage, staged

STDIN = bytes(range(256)) * 500  # several pieces on any link


def given(stage: Stage, process: int) -> bytes:
    """What such a process of the stage finds on its standard input."""
    stdin = stage.launcher.started[process].spec.stdin
    assert stdin is not None
    assert stdin.stat().st_mode & 0o777 == 0o600
    return stdin.read_bytes()


async def test_every_attempt_and_retry_reads_the_same_stdin(stage: Stage) -> None:
    retry = {"limit": 1}
    job, process = await stage.begun("make", stdin=STDIN, retry=retry)
    assert given(stage, 0) == STDIN
    process.exit(1)
    process = await stage.launcher.process(2)
    assert given(stage, 1) == STDIN
    process.exit(0)
    await stage.kinds(job.id)
    again = await stage.client.retry(job.id)
    (await stage.launcher.process(3)).exit(0)
    assert (given(stage, 2), (await stage.client.get(again.id)).spec.stdin_bytes) == (STDIN, len(STDIN))
    pieces = [one.bytes_max for one in stage.wire.requests if isinstance(one, ReadJobStdin)]
    assert len(pieces) > 3
    assert pieces == sorted(pieces), "as large as the link carries"


async def test_a_broker_of_before_refuses_a_job_with_stdin_in_words(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "request_decoder", requests.request_decoder.__wrapped__)
    monkeypatch.delitem(KINDS, EnqueueJobWithStdin)
    with pytest.raises(BadRequest, match="this broker is too old"):
        await stage.client.submit(command="make", stdin=STDIN)
    job, process = await stage.begun("make")
    process.exit(0)
    await stage.kinds(job.id)


async def test_a_job_without_stdin_asks_nothing_more(stage: Stage) -> None:
    _, process = await stage.begun("make", stdin=b"")
    assert process.spec.stdin is None
    assert not any(isinstance(one, ReadJobStdin) for one in stage.wire.requests)


@pytest.mark.parametrize("lost", [0, 40_000])
async def test_a_command_never_starts_with_a_part_of_its_stdin(
    stage: Stage, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*asked: object) -> JobStdinRead:
        """The broker's disk has lost the rest."""
        found = read_stdin(*asked)
        if not lost:
            raise CorruptLog
        return JobStdinRead(data=b"" if asked[2].offset >= lost else found.data)

    monkeypatch.setitem(KINDS, ReadJobStdin, Kind[ReadJobStdin](role=Role.WORK, look_up=damaged))
    job = await stage.client.submit(command="make", stdin=STDIN)
    said = [event.body.message async for event in stage.client.follow(job.id) if isinstance(event.body, ProcessError)]
    assert "standard input" in said[0]
    ended = await stage.client.get(job.id)
    assert (ended.state, ended.result.reason) == (JobState.FAILED, Reason.PROCESS_ERROR)
    assert stage.launcher.started == []


async def test_only_the_command_gets_the_stdin(tmp_path: Path, launcher: ChildLauncher) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for hook in HOOKS:
        write(hooks, hook, "wc -c; ls ../stdin 2>/dev/null | wc -l")
    async with staged(tmp_path, hooks=hooks, real=launcher) as stage:
        job = await stage.client.submit(command="/bin/sh", stdin=b"wc -c </dev/stdin; ls ../stdin; exit 3\n")
        log = [event async for event in stage.client.follow(job.id)]
        lines = b"".join(event.body.data for event in log if isinstance(event.body, Output)).decode().split("\n")
        assert [line for line in lines if line.isdigit()] == ["0", "1", "39", "0", "0", "0", "0"]
        assert (await stage.client.get(job.id)).result.exit_code == 3


async def test_git_gets_no_stdin(stage: Stage) -> None:
    _, git = await stage.begun("make", stdin=STDIN, repository="/srv/project")
    assert (git.spec.argv[0], git.spec.stdin) == ("git", None)


async def test_a_job_that_is_cancelled_while_its_stdin_is_read_ends(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, never = anyio.Event(), anyio.Event()

    async def read(*_: object) -> bytes:
        asked.set()
        await never.wait()
        return b""

    monkeypatch.setattr("airunner.agent.leases.leaser.read_stdin", read)
    job = await stage.client.submit(command="make", stdin=STDIN)
    await asked.wait()
    await stage.client.cancel(job.id)
    assert (await stage.kinds(job.id))[-1] == "JOB_FINISHED"
    assert (await stage.client.get(job.id)).state is JobState.CANCELLED
    assert stage.launcher.started == []
