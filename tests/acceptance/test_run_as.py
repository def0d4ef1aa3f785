"""Jobs of an agent that is root run as users who can read nothing of the agent's, and leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.bounded import homes_of_an_ordinary_user
from tests.acceptance.running import Cluster, events, make_home, running_cluster
from tests.agent.checkout.repositories import new_repository

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run jobs as other users")

UID = 54_321  # of no account
LOOKING = """
id -u; id -g; id -G; stat -c %u . "$HOME" "$TMPDIR" .git file "$KEY_FILE" | sort -u
cat "$KEY_FILE"; echo; echo again > /dev/stdout; git status --short; echo "$USER $LOGNAME"
for place in {home}/certs/* {home}/agent/*/spool/* {home}/broker/*; do cat "$place" && echo "read $place"; done
ls {home} {home}/certs {home}/agent/*/spool {home}/agent/*/workspaces && echo listed
mv ../checkout ../elsewhere && echo moved
kill -KILL $PPID && echo killed
mkdir -p "$HOME/a/b"; ln -s {canary} "$HOME/link"; chmod 0 "$HOME/a"
rm -rf .git; ln -s {canary} .git; ln -s {canary} link
mkfifo ../tmp/begun
setsid sh -c 'echo > ../tmp/begun; exec sleep 1000' >/dev/null 2>&1 &
read -r begun < ../tmp/begun
exit 0
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with homes_of_an_ordinary_user() as made:
        yield made


@pytest.fixture
def cluster(folder: Path) -> Iterator[Cluster]:
    make_home(folder / "home")
    with running_cluster(folder / "home") as running:
        yield running


def workspaces(cluster: Cluster) -> list[Path]:
    return list(cluster.home.glob("agent/*/workspaces/*"))


def test_a_job_is_its_users_and_reads_nothing_of_the_agents(cluster: Cluster, folder: Path) -> None:
    canary = folder / "canary"
    (canary / "inner").mkdir(parents=True)
    repository = new_repository(folder / "repository")
    agent = cluster.agent("--run-as", f"{UID}:{UID}")
    assert not [line for line in agent.lines if line.startswith("note: jobs run as")]
    script = LOOKING.format(home=cluster.home, canary=canary)
    asked = ["--env", "KEY_FILE=secret", "--secret-file", "KEY_FILE", str(repository)]
    done = cluster.airunner("submit", *asked, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().split("\n") == [*[str(UID)] * 4, "[REDACTED]", "again", f"{UID} {UID}", ""]
    assert b"sleep 1000" in done.stderr, "it was ended, and named"
    assert b"Permission denied" in done.stderr
    assert (canary / "inner").is_dir()
    agent.stop()
    assert workspaces(cluster) == []
    assert [line for line in agent.lines if "could not remove" in line] == []


def test_terminals_are_the_users_hooks_are_not_and_what_it_may_not_run_is_told(cluster: Cluster, folder: Path) -> None:
    closed, hook = folder / "closed", cluster.home / "hooks" / "pre-command"
    for made in (closed, hook.parent):
        made.mkdir(mode=0o700)
    hook.write_text("#!/bin/sh\nid -u\n")
    for program in (closed / "program", folder / "program"):
        shutil.copy("/bin/true", program)
    for program in (hook, closed / "program", folder / "program"):
        program.chmod(0o700)
    cluster.agent("--run-as", str(UID))
    script = 'id -u; stat -c %u "$(tty)"; echo again > "$(tty)"; exit 3'
    done = cluster.airunner("submit", "--pty", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout.decode().split()) == (3, ["0", str(UID), str(UID), "again"])
    for words, code in (
        (["--pty", "--", "no-such-command"], 127),
        (["--", "no-such-command"], 127),
        (["--env", f"PATH={closed}", "--", "program"], 127),
        (["--", str(closed / "program")], 126),
        (["--", str(folder / "program")], 126),
    ):
        assert cluster.airunner("submit", *words).returncode == code, words


def test_each_slot_has_a_user_of_its_own_where_there_are_several(cluster: Cluster, folder: Path) -> None:
    """Two jobs at once wait for each other, and tell who they are."""
    cluster.agent("--run-as", f"{UID},{UID + 1}", spawn=2)
    meeting = [folder / "one", folder / "two"]
    for fifo in meeting:
        os.mkfifo(fifo)
        fifo.chmod(0o666)
    script = 'echo here > "$0" & read -r here < "$1"; id -u; wait'
    pairs = [(meeting[0], meeting[1]), (meeting[1], meeting[0])]
    jobs = [
        cluster.airunner("submit", "--no-monitor", "--", "sh", "-c", script, *map(str, pair)).stdout.decode().strip()
        for pair in pairs
    ]
    told = {str(event["data"]) for job in jobs for event in events(cluster, job) if event["kind"] == "OUTPUT"}
    assert told == {f"{UID}\n", f"{UID + 1}\n"}


def test_an_agent_without_it_says_once_what_its_jobs_can_read(cluster: Cluster) -> None:
    agent = cluster.agent()
    [note] = [line for line in agent.lines if line.startswith("note: ")]
    assert "including the one that signs tokens" in note
    done = cluster.airunner("doctor", "--json")
    [finding] = [json.loads(line) for line in done.stdout.splitlines() if json.loads(line)["check"] == "jobs"]
    assert finding["severity"] == "note"


def test_what_another_user_has_changed_is_returned_and_git_runs_as_that_user(cluster: Cluster, folder: Path) -> None:
    repository = new_repository(folder / "repository")
    cluster.agent("--run-as", f"{UID}:{UID}")
    script = """
        echo changed > file; echo '* filter=who' > .gitattributes; git config filter.who.clean 'id -u'
        rm .git/index; ln -s /etc/shadow .git/index
    """
    done = cluster.airunner("submit", "--return", str(repository), "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    patch = cluster.airunner("apply", "@last", "--patch", cwd=repository)
    assert patch.stdout.count(f"\n+{UID}\n".encode()) == 2, patch.stderr
