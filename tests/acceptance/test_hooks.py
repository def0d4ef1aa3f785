"""The operator's programs around a job, and the secrets that an agent offers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.acceptance.gate import Gate, events, submit
from tests.acceptance.running import Cluster
from tests.agent.checkout.repositories import git, new_repository

pytestmark = pytest.mark.timeout(60)

HOOKS = ("pre-command", "post-command", "pre-exit")


@pytest.fixture
def hooks(home: Path) -> Path:
    """The usual folder, with hooks that tell what they see."""
    folder = home / "hooks"
    folder.mkdir()
    for hook in HOOKS:
        write(folder, hook, 'echo "$AIRUNNER_HOOK $AIRUNNER_COMMAND_EXIT_STATUS $AIRUNNER_ENV_LEVEL"')
    return folder


def write(folder: Path, hook: str, script: str) -> None:
    (folder / hook).write_text(f"#!/bin/sh\n{script}\n")
    (folder / hook).chmod(0o755)


def test_hooks_run_around_the_command_and_see_its_environment_under_a_prefix(cluster: Cluster, hooks: Path) -> None:
    assert hooks.is_dir()
    cluster.agent()
    done = cluster.airunner("submit", "--env", "LEVEL=3", "--", "sh", "-c", "echo command; exit 4")
    assert done.returncode == 4
    assert done.stdout.decode().splitlines() == ["pre-command  3", "command", "post-command 4 3", "pre-exit 4 3"]


SPEAKING = "echo 'subverted'; exit 0"


def test_a_hook_obeys_nothing_that_a_job_says(cluster: Cluster, hooks: Path, tmp_path: Path) -> None:
    """Neither its variables, nor the files of its home, nor programs of the repository that PATH leads to."""
    repository = new_repository(tmp_path / "repository")
    for program in ("ls", "git-remote-x", "true"):
        write(repository, program, SPEAKING)
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "programs")
    evil = tmp_path / "evil"
    evil.mkdir()
    write(evil, "ls", SPEAKING)
    write(evil, "startup", SPEAKING)
    for hook in HOOKS:
        (hooks / hook).write_text(
            "#!/bin/bash\nset -e\nls $AIRUNNER_WORKSPACE > /dev/null; echo fine $AIRUNNER_HOOK\n"
            "test $AIRUNNER_ENV_BASH_ENV; test ! -v LD_PRELOAD; git config --global evil.name || echo clean\n"
            f'{sys.executable} -c "import os"\n'
        )
    cluster.agent(more={"PATH": f".::{os.environ['PATH']}:"})
    variables = {
        "PATH": f"{evil}:{os.environ['PATH']}",
        "BASH_ENV": str(evil / "startup"),
        "ENV": str(evil / "startup"),
        "BASH_FUNC_echo%%": f"() {{ {SPEAKING}; }}",
        "LD_PRELOAD": str(evil / "startup"),
        "PYTHONHOME": str(evil),
        "GIT_CONFIG_GLOBAL": str(evil / "startup"),
        "SHELLOPTS": "noexec",
    }
    given = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    command = ["/bin/sh", "-c", 'printf "[evil]\\n\\tname = evil\\n" > $HOME/.gitconfig']
    done = cluster.airunner("submit", *given, str(repository), "--", *command)
    assert (done.returncode, done.stdout.decode().splitlines()) == (
        0,
        ["fine pre-command", "clean", "fine post-command", "clean", "fine pre-exit", "clean"],
    ), done.stderr


def test_a_hook_that_fails_before_the_command_keeps_it_from_running(cluster: Cluster, hooks: Path) -> None:
    write(hooks, "pre-command", "exit 9")
    cluster.agent()
    done = cluster.airunner("submit", "--json", "--", "echo", "command")
    log = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    assert done.returncode == 9
    assert (log[-1]["state"], log[-1]["reason"], log[-1]["exit_code"]) == ("FAILED", "hook-failed", 9)
    assert [event["message"] for event in log if event["kind"] == "PROCESS_ERROR"] == [
        "the hook pre-command exited with 9"
    ]
    assert [event["data"] for event in log if event["kind"] == "OUTPUT"] == ["pre-exit 9 \n"]
    assert "PROCESS_START" not in [event["kind"] for event in log]


def test_a_hook_that_fails_afterwards_fails_the_job_but_hides_no_failure(cluster: Cluster, hooks: Path) -> None:
    write(hooks, "post-command", "kill -TERM $$")
    cluster.agent()
    for command, reason, code in (("true", "hook-failed", 128 + 15), ("exit 3", "exit-code", 3)):
        done = cluster.airunner("submit", "--json", "--", "sh", "-c", command)
        last = json.loads(done.stdout.splitlines()[-1])
        assert (last["state"], last["reason"], done.returncode) == ("FAILED", reason, code)


def test_a_job_chooses_no_other_folder_for_the_hooks_after_it(cluster: Cluster, hooks: Path, tmp_path: Path) -> None:
    for hook in ("post-command", "pre-exit"):
        write(hooks, hook, "ls | wc -l; touch left; pwd -P | sed s,.*/,,")
    cluster.agent()
    (tmp_path / "others").mkdir()
    for instead in ("true", f'ln -s "{tmp_path}/others" "$at/checkout"', 'rm -r "$at"; : > "$at"'):
        script = f'at=${{PWD%/*}}; cd /; rm -r "$at/checkout"; {instead}'
        done = cluster.airunner("submit", "--", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().split()[-4:] == ["0", "checkout", "1", "checkout"]
    assert not any((tmp_path / "others").iterdir())


def test_a_cancelled_job_is_cleared_up_after(cluster: Cluster, hooks: Path, gate: Gate) -> None:
    assert hooks.is_dir()
    cluster.agent("--cancel-grace", "5")
    job_id = submit(cluster, gate.script)
    gate.wait()
    assert cluster.airunner("cancel", job_id).returncode == 0
    log = list(events(cluster, job_id))
    assert log[-1]["state"] == "CANCELLED"
    assert any("pre-exit" in str(event.get("data")) for event in log)


def test_a_hook_that_runs_when_its_job_is_cancelled_is_told_and_given_a_grace(
    cluster: Cluster, hooks: Path, gate: Gate
) -> None:
    write(hooks, "pre-command", f"trap 'echo told; exit 0' TERM; echo $$ > {gate.begun}; while :; do sleep 0.01; done")
    cluster.agent("--cancel-grace", "20")
    job_id = submit(cluster, "echo command")
    gate.wait()
    assert cluster.airunner("cancel", job_id).returncode == 0
    log = list(events(cluster, job_id))
    assert log[-1]["state"] == "CANCELLED"
    written = "".join(str(event["data"]) for event in log if event["kind"] == "OUTPUT")
    assert "told\n" in written
    assert "command" not in written.replace("pre-command", "")
    assert "pre-exit" in written


def test_hooks_stand_around_the_checkout_too(cluster: Cluster, hooks: Path, tmp_path: Path) -> None:
    write(hooks, "pre-checkout", "ls | wc -l")
    write(hooks, "post-checkout", "ls; test -n $AIRUNNER_COMMIT")
    cluster.agent()
    done = cluster.airunner("submit", str(new_repository(tmp_path / "repository")), "--", "true")
    assert done.stdout.decode().split()[:2] == ["0", "file"]


def test_a_hook_that_is_no_program_is_told(cluster: Cluster, hooks: Path) -> None:
    (hooks / "pre-command").chmod(0o644)
    cluster.agent()
    done = cluster.airunner("submit", "--", "true")
    assert done.returncode == 126
    assert b"the hook pre-command cannot be run" in done.stderr


def test_a_hook_that_others_could_write_is_not_run(cluster: Cluster, hooks: Path) -> None:
    cluster.agent()
    (hooks / "pre-command").chmod(0o757)
    done = cluster.airunner("submit", "--json", "--", "echo", "command")
    log = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    assert (log[-1]["state"], log[-1]["reason"]) == ("FAILED", "hook-failed")
    assert "pre-command is not run" in str(log)
    (hooks / "pre-command").chmod(0o755)
    hooks.chmod(0o777)
    done = cluster.airunner("submit", "--", "echo", "command")
    assert b"`chmod go-w " in done.stderr
    started = cluster.airunner("agent")
    assert (started.returncode, b"the hooks in it are not to be trusted" in started.stderr) == (2, True)


def test_a_secret_is_given_to_the_job_that_asks_for_it_and_to_no_other(cluster: Cluster) -> None:
    cluster.agent("--secret", "DEPLOY", more={"DEPLOY": "swordfish", "OTHER": "kept"})
    look = ("--", "sh", "-c", 'test "$DEPLOY" = swordfish && test -z "$OTHER"')
    assert cluster.airunner("submit", "--secret", "DEPLOY", *look).returncode == 0
    assert cluster.airunner("submit", *look).returncode == 1
    missing = cluster.airunner("submit", "--secret", "OTHER", *look)
    assert missing.returncode == 1
    assert b"the job needs the secret OTHER" in missing.stderr


def test_a_secret_that_an_agent_does_not_have_keeps_it_from_starting(cluster: Cluster) -> None:
    done = cluster.airunner("agent", "--secret", "NO_SUCH")
    assert done.returncode == 2
    assert b"--secret NO_SUCH: there is no such variable" in done.stderr
    done = cluster.airunner("agent", "--hooks", "/no/such/folder")
    assert (done.returncode, b"there is no such folder" in done.stderr) == (2, True)
