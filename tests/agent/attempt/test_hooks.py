"""The operator's programs around a job: real processes of an agent whose broker is in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from msgspec.structs import replace

from airunner.agent.attempt import attempt
from airunner.agent.launcher.local import ChildLauncher
from airunner.agent.plan import hooks_folder
from airunner.client.client import Client
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import Event, GitCloneError, Output, ProcessError, Stream
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, Reason, Result
from tests.agent.checkout.repositories import git, new_repository
from tests.agent.playing import staged

HOOKS = ("pre-command", "post-command", "pre-exit")
SPEAKING = "echo 'subverted' >&2; exit 1"


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    """A folder with hooks that tell what they see."""
    folder = tmp_path / "hooks"
    folder.mkdir()
    for hook in HOOKS:
        write(folder, hook, 'echo "$AIRUNNER_HOOK $AIRUNNER_COMMAND_EXIT_STATUS $AIRUNNER_ENV_LEVEL"')
    return folder


@pytest.fixture
async def client(tmp_path: Path, hooks: Path, launcher: ChildLauncher) -> AsyncIterator[Client]:
    async with staged(tmp_path, hooks=hooks, real=launcher) as stage:
        yield stage.client


def write(folder: Path, program: str, script: str, shell: str = "/bin/sh") -> None:
    (folder / program).write_text(f"#!{shell}\n{script}\n")
    (folder / program).chmod(0o755)


def let_others_write(folder: Path) -> None:
    folder.chmod(0o757)


class Ran:
    """A job that has ended."""

    def __init__(self, log: list[Event], state: JobState, result: Result | None) -> None:
        self.kinds = [event.kind for event in log]
        self.said = [event.body.message for event in log if isinstance(event.body, ProcessError)]
        self.checkout_error = "".join(event.body.message for event in log if isinstance(event.body, GitCloneError))
        outputs = [event.body for event in log if isinstance(event.body, Output)]
        self.lines = b"".join(one.data for one in outputs if one.stream is Stream.STDOUT).decode().splitlines()
        self.state = state
        self.result = result and replace(result, usage=None)


async def ran(
    client: Client, script: str, cancel_at: Callable[[Event], bool] = lambda _: False, **fields: object
) -> Ran:
    """What becomes of a job, which is cancelled at such an event."""
    job = await client.submit(command="/bin/sh", args=("-c", script), **fields)
    log: list[Event] = []
    async for event in client.follow(job.id):
        log.append(event)
        if cancel_at(event):
            await client.cancel(job.id)
    found = await client.get(job.id)
    return Ran(log, found.state, found.result)


async def test_hooks_run_around_the_command_and_see_its_environment_under_a_prefix(client: Client) -> None:
    job = await ran(client, "echo command; exit 4", environment={"LEVEL": "3"})
    assert job.lines == ["pre-command  3", "command", "post-command 4 3", "pre-exit 4 3"]
    assert job.result == Result(exit_code=4, reason=Reason.EXIT_CODE)


async def test_a_hook_obeys_nothing_that_a_job_says(client: Client, hooks: Path, tmp_path: Path) -> None:
    """Neither its variables, nor the files of its home, nor programs of the repository that PATH leads to."""
    repository = new_repository(tmp_path / "repository")
    evil = tmp_path / "evil"
    evil.mkdir()
    for program in ("ls", "git-remote-x", "true"):
        write(repository, program, SPEAKING)
    for program in ("ls", "startup"):
        write(evil, program, SPEAKING)
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "programs")
    script = (
        "set -e\nls $AIRUNNER_WORKSPACE > /dev/null; echo fine $AIRUNNER_HOOK\n"
        "test $AIRUNNER_ENV_BASH_ENV; test ! -v LD_PRELOAD; git config --global evil.name || echo clean\n"
        f'{sys.executable} -c "import os"'
    )
    for hook in HOOKS:
        write(hooks, hook, script, "/bin/bash")
    environment = {
        "PATH": f"{evil}:{os.environ['PATH']}",
        "BASH_ENV": str(evil / "startup"),
        "ENV": str(evil / "startup"),
        "BASH_FUNC_echo%%": f"() {{ {SPEAKING}; }}",
        "LD_PRELOAD": str(evil / "startup"),
        "PYTHONHOME": str(evil),
        "GIT_CONFIG_GLOBAL": str(evil / "startup"),
        "SHELLOPTS": "noexec",
    }
    configure = 'printf "[evil]\\n\\tname = evil\\n" > $HOME/.gitconfig'
    job = await ran(client, configure, environment=environment, repository=str(repository))
    assert job.lines == ["fine pre-command", "clean", "fine post-command", "clean", "fine pre-exit", "clean"], job.said
    assert job.state is JobState.COMPLETED


async def test_a_hook_that_fails_before_the_command_keeps_it_from_running(client: Client, hooks: Path) -> None:
    write(hooks, "pre-command", "sleep 1000 & exit 9")
    job = await ran(client, "echo command")
    assert (job.state, job.result) == (JobState.FAILED, Result(exit_code=9, reason=Reason.HOOK_FAILED))
    left, failed = job.said
    assert left.startswith("the hook pre-command has ended; these processes that it had started were ended after it:")
    assert failed == "the hook pre-command exited with 9"
    assert job.lines == ["pre-exit 125 "]
    assert "PROCESS_START" not in job.kinds


async def test_a_hook_that_fails_afterwards_fails_the_job_but_hides_no_failure(client: Client, hooks: Path) -> None:
    write(hooks, "post-command", "kill -TERM $$")
    assert (await ran(client, "true")).result == Result(signal=15, reason=Reason.HOOK_FAILED)
    assert (await ran(client, "exit 3")).result == Result(exit_code=3, reason=Reason.EXIT_CODE)


async def test_a_job_chooses_no_other_folder_for_the_hooks_after_it(
    client: Client, hooks: Path, tmp_path: Path
) -> None:
    for hook in ("post-command", "pre-exit"):
        write(hooks, hook, "ls | wc -l; touch left; pwd -P | sed s,.*/,,")
    (tmp_path / "others").mkdir()
    for instead in ("true", f'ln -s "{tmp_path}/others" "$at/checkout"', 'rm -r "$at"; : > "$at"'):
        job = await ran(client, f'at=${{PWD%/*}}; cd /; rm -r "$at/checkout"; {instead}')
        assert (job.state, job.lines[-4:]) == (JobState.COMPLETED, ["0", "checkout", "1", "checkout"])
    assert not any((tmp_path / "others").iterdir())


async def test_a_cancelled_job_is_cleared_up_after(client: Client) -> None:
    job = await ran(client, "exec sleep 1000", lambda event: event.kind == "PROCESS_START")
    assert job.state is JobState.CANCELLED
    assert job.lines[-1].startswith("pre-exit")


async def test_a_hook_that_runs_when_its_job_is_cancelled_is_told_and_given_a_grace(
    client: Client, hooks: Path
) -> None:
    write(hooks, "pre-command", "trap 'echo told; exit 0' TERM; echo begun; while :; do sleep 0.01; done")
    job = await ran(client, "echo command", lambda event: event.kind == "OUTPUT")
    assert job.state is JobState.CANCELLED
    assert job.lines[:2] == ["begun", "told"]
    assert "command" not in job.lines
    assert job.lines[-1].startswith("pre-exit")


async def test_hooks_stand_around_the_checkout_too(client: Client, hooks: Path, tmp_path: Path) -> None:
    write(hooks, "pre-checkout", "ls | wc -l")
    write(hooks, "post-checkout", "ls; test -n $AIRUNNER_COMMIT")
    job = await ran(client, "true", repository=str(new_repository(tmp_path / "repository")))
    assert job.lines[:2] == ["0", "file"]


@pytest.mark.parametrize(
    ("mode", "told"),
    [(0o644, "the hook pre-command cannot be run"), (0o757, "the hook pre-command is not run")],
    ids=["no program", "others could write it"],
)
async def test_a_hook_that_is_not_to_be_run_is_told(client: Client, hooks: Path, mode: int, told: str) -> None:
    (hooks / "pre-command").chmod(mode)
    job = await ran(client, "echo command")
    assert job.result == Result(exit_code=126, reason=Reason.HOOK_FAILED)
    assert job.said[0].startswith(told)


async def test_hooks_in_a_folder_that_others_could_write_are_not_run(client: Client, hooks: Path) -> None:
    let_others_write(hooks)
    assert "`chmod go-w " in (await ran(client, "true")).said[0]
    with pytest.raises(OperatorError, match=r"the hooks in .* are not safe to run"):
        hooks_folder(None, hooks)
    with pytest.raises(OperatorError, match="there is no such folder"):
        hooks_folder(hooks / "none", hooks)


async def test_a_short_command_is_in_the_log_before_the_hooks_after_it_have_ended(
    tmp_path: Path, hooks: Path, launcher: ChildLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "SHORT_S", 10.0)
    seen = tmp_path / "seen"
    os.mkfifo(seen)
    write(hooks, "post-command", f"read -r _ < {seen}")
    async with staged(tmp_path, hooks=hooks, real=launcher) as stage:
        for job in await stage.client.submit_many([JobSpec(command="/bin/true")] * 2):  # the second has waited
            async for event in stage.client.follow(job.id):
                if event.kind == "PROCESS_END":
                    await anyio.to_thread.run_sync(seen.write_text, "\n")
